/**
 * POSIX threads under stress (conformance/stress/threads.c), natively for a moment and then in a container.
 *
 *   node conformance/threads.ts [--seconds N] [--seed N] [--round NAME]
 */
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { TestDaemon } from '../src/daemon/testing.ts'
import { run } from './native.ts'
import { singleProgram } from './single.ts'

const NATIVE_SECONDS = 3

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '20' }, seed: { type: 'string' }, round: { type: 'string' } } })
const seconds = Number(values.seconds), seed = values.seed ?? String(Math.floor(Date.now() / 1000) % 1_000_000)
const { binary, image } = singleProgram('threads', ['threads.c', 'locks.c', 'lives.c', 'stress.h'].map((f) => join(import.meta.dirname, 'stress', f)))
const only = values.round === undefined ? [] : [values.round]
console.log(`seed ${seed}`)
const native = await run(binary, [`${NATIVE_SECONDS}`, seed, ...only], 120)
const d = await TestDaemon.start()
const ours = await d.command(['run', '--rm', image, '/bin/threads', `${seconds}`, seed, ...only])
let passed = 0, failed = 0
for (const [where, r] of [['natively', native], ['here', ours]] as const) {
  const lines = r.stdout.trimEnd().split('\n')
  for (const line of lines) console.log(`${line} (${where})`)
  const ok = String(r.status) === '0' && lines.every((l) => l.startsWith('ok'))
  if (!ok) console.log(`not ok - ${where}: status ${r.status} ${r.stderr}`)
  passed += lines.filter((l) => l.startsWith('ok')).length
  failed += ok ? 0 : 1
}
if (/bug|panick/.test(d.log)) {
  console.log(`not ok - the daemon: ${d.log.slice(-2000)}`)
  failed++
}
await d.remove()
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed ? 1 : 0)
