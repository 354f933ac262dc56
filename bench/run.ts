/**
 * `npm run bench -- [cpu] [calls] [files] [start] [build] | services [--rootfs DIR --image DIR] [--only TEXT] [--rounds N]`.
 * Without names: all but `services`, which has an image of its own. A daemon of its own runs for the time of the bench.
 */
import { parseArgs } from 'node:util'
import { build } from './build.ts'
import { calls } from './calls.ts'
import { measure, workloads } from './cpu.ts'
import { elapsed, FILES, SERVICES } from './elapsed.ts'
import { report, type Row } from './report.ts'
import { start } from './start.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rootfs: { type: 'string' }, image: { type: 'string' }, only: { type: 'string' }, rounds: { type: 'string', default: '3' } },
})
const rounds = Number(values.rounds)
const wanted = (name: string): boolean => positionals.length === 0 || positionals.includes(name)
if (!values.rootfs || !values.image) {
  console.error('bench: which image? `npm run bench` makes it; by hand give --rootfs DIR and --image DIR')
  process.exit(2)
}
if (wanted('start')) report('start', await start(values.rootfs, values.image, rounds * 10))
if (wanted('calls')) report('calls', calls(rounds))
if (wanted('files')) report('files', await elapsed(FILES, values.rootfs, values.image, rounds))
if (positionals.includes('services')) report('services', await elapsed(SERVICES, values.rootfs, values.image, rounds))
if (wanted('cpu')) {
  const rows: Row[] = []
  for (const w of workloads.filter((w) => !values.only || w.name.includes(values.only))) {
    const m = await measure(w, values.rootfs, values.image, rounds)
    rows.push({ name: m.name, native: m.nativeS, ours: m.oursS, unit: 's', ...(m.same ? {} : { note: 'output differs' }) })
    console.error(`${m.name}: ${(m.oursS / m.nativeS).toFixed(2)}`)
  }
  report('cpu', rows)
}
if (wanted('build')) await build(values.rootfs)
