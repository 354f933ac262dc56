/**
 * Every stressor of stress-ng that leaves the machine itself alone, for a second, natively and in a
 * container: the same exit status (0 well, 2 a check failed, 3 no resources, 4 not implemented), or
 * [[stress-ng]] of conformance/expect.toml says why not. An unexpected pass fails.
 *
 *   node conformance/stress-ng.ts --rootfs DIR --image DIR [--only NAME,NAME] [--jobs N] [--kept FILE] [--verbose]
 *
 * `--kept`: a file of native outcomes; what it lacks is run and added.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { asContainer, contained as inContainer, ENV, type Ended } from './native.ts'
import { readExpected } from './report.ts'

const SECONDS = 90

/** Stressors that are run nowhere: what they are for is the machine, or all of its memory or processes. */
const LEFT_OUT = new Set([
  'bigheap', 'cpu-online', 'idle-page', 'memhotplug', 'oom-pipe', 'pageswap', 'physpage', 'rawdev', 'resources', 'smi', 'softlockup', 'swap', 'watchdog', 'forkheavy', 'vforkmany',
])

const stressNg = (args: readonly string[]): string[] => ['/usr/bin/stress-ng', ...args]
const stress = (name: string): string[] => stressNg([`--${name}`, '1', '--timeout', '1s', '--verify', '--no-rand-seed', '--temp-path', '/tmp/case', '--log-brief', '--vm-bytes', '32M'])

const native = (rootfs: string, command: readonly string[]): Promise<Ended> => asContainer(rootfs, '/tmp/case', ENV, command, SECONDS)
const contained = (image: string, command: readonly string[]): Promise<Ended> => inContainer(image, '/tmp/case', ENV, command, SECONDS)

async function main(): Promise<number> {
  const { values } = parseArgs({ options: {
    rootfs: { type: 'string' }, image: { type: 'string' }, only: { type: 'string' }, jobs: { type: 'string', default: '2' }, kept: { type: 'string' }, verbose: { type: 'boolean' },
  } })
  if (!values.rootfs || !values.image) {
    console.error('usage: node conformance/stress-ng.ts --rootfs DIR --image DIR [--only NAME,NAME] [--jobs N] [--kept FILE] [--verbose]')
    return 2
  }
  const listed = await native(values.rootfs, stressNg(['--stressors']))
  const all = listed.stdout.trim().split(/\s+/)
  if (listed.status !== '0' || all.length < 100) throw new Error(`stress-ng does not list its stressors: ${listed.status} ${listed.stderr}`)
  const only = values.only?.split(',')
  const names = all.filter((n) => only ? only.includes(n) : !LEFT_OUT.has(n))
  const expected = readExpected('stress-ng')
  const kept = (values.kept && existsSync(values.kept) ? JSON.parse(readFileSync(values.kept, 'utf8')) : {}) as Record<string, string>
  let passed = 0, failed = 0, next = 0
  const worker = async (): Promise<void> => {
    while (next < names.length) {
      const name = names[next++]!
      const want = kept[name] ??= (await native(values.rootfs!, stress(name))).status
      if (values.kept) writeFileSync(values.kept, JSON.stringify(kept))
      const started = Date.now()
      const got = await contained(values.image!, stress(name))
      const known = expected.get(name)
      const same = got.status === want
      const ok = same !== (known !== undefined)
      if (ok) passed++
      else failed++
      const why = same ? 'passes now: take it out of conformance/expect.toml' : `natively ${want}, here ${got.status}`
      console.log(`${ok ? 'ok' : 'not ok'} - ${name} (${want}, ${Date.now() - started} ms)${ok ? known ? ` # known: ${known}` : '' : `: ${why}`}`)
      if (!ok || values.verbose) console.log(`${got.stdout}${got.stderr}`.trimEnd().split('\n').slice(values.verbose ? 0 : -8).join('\n').replace(/^/gm, '    '))
    }
  }
  await Promise.all(Array.from({ length: Number(values.jobs) }, worker))
  if (!only) for (const name of expected.keys()) if (!names.includes(name)) { failed++; console.log(`not ok - ${name}: in conformance/expect.toml, but no such stressor`) }
  console.log(`${passed} passed, ${failed} failed`)
  return failed ? 1 : 0
}

process.exit(await main())
