/**
 * Random system calls with typed arguments from inside a container (conformance/fuzz/calls.c): the
 * daemon and the loader neither crash nor hang, and when the container is gone there is nothing left of it.
 *
 *   node conformance/fuzz.ts [--calls N] [--seed N]
 *
 * Without --seed it is a new one each time; it is printed, and makes the same calls again.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { rss, TestDaemon, until } from '../src/daemon/testing.ts'
import { table } from '../src/syscalls/table/index.ts'
import type { Entry } from '../src/syscalls/table/schema.ts'
import { Checks } from './checks.ts'
import { singleProgram, workOf } from './single.ts'

/** Calls that end the child at once. */
const LEFT_OUT = new Set(['exit', 'exit_group'])

function rowC(e: Entry): string {
  const args = e.args.map(({ arg }) => {
    const kind = { int: 'i', fd: 'f', dirfd: 'd', path: 'p', cstr: 's', ptr: 'b', iov: 'v', flags: 'F', pointer: 'b' }[arg.kind]
    const [len, scale] = arg.kind === 'ptr' ? [arg.lenArg, arg.scale] : arg.kind === 'iov' ? [arg.countArg, 1] : [255, 1]
    return `{'${kind}', ${len}, ${scale}}`
  })
  return `  {${e.nr}, "${e.name}", ${e.class === 'refused' || e.class === 'absent' ? 0 : 1}, ${args.length}, {${args.join(', ')}}},\n`
}

const FILES: Readonly<Record<string, string>> = { 'data/hello': 'hello\n', 'data/pages': 'page\n'.repeat(2500), 'data/dir/one': '1', 'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\n', 'work/README': 'each child has a directory here\n' }

const header = join(workOf('fuzz'), 'calls.h')
writeFileSync(header, `static const struct call calls[] = {\n${table.filter((e) => !LEFT_OUT.has(e.name)).map(rowC).join('')}};\n`)

/** Calls in one container. */
const A_CONTAINER = 50_000

const { values } = parseArgs({ options: { calls: { type: 'string', default: '1000000' }, seed: { type: 'string' } } })
const seed = Number(values.seed ?? Math.floor(Date.now() / 1000) % 1_000_000)
const { image } = singleProgram('fuzz', [...['calls.c', 'random.h'].map((f) => join(import.meta.dirname, 'fuzz', f)), header], FILES)
console.log(`seed ${seed}`)
const d = await TestDaemon.start()
const checks = new Checks()
try {
  // What is made once and stays: the zygote, caches.
  const first = await d.command(['run', '--rm', image, '/bin/fuzz', String(seed + 1000), '2000'])
  checks.check('2000 calls to begin with', first.status === 0, `status ${first.status} ${first.stdout}${first.stderr.slice(-500)}`)
  const before = { fds: d.fds(), rss: rss(d.pid), zygote: rss(d.zygotes()[0]!) }
  // What the children make of a container's names stays in it.
  for (let n = 0, left = Number(values.calls); left > 0; n++, left -= A_CONTAINER) {
    const r = await d.command(['run', '--rm', image, '/bin/fuzz', String(seed + n), String(Math.min(left, A_CONTAINER))])
    checks.check(`seed ${seed + n}: ${/^done: (.*)/m.exec(r.stdout)?.[1] ?? 'not done'}`, r.status === 0 && /^done: /m.test(r.stdout), `status ${r.status}\n${r.stdout.slice(-2000)}${r.stderr.slice(-500)}`)
  }
  checks.check('the daemon answers', (await d.command(['run', '--rm', image, '/bin/fuzz', String(seed + 1001), '300'])).status === 0, d.log.slice(-2000))
  checks.check('the daemon says nothing of bugs', !/bug|panick/.test(d.log), d.log.slice(-3000))
  checks.check('no descriptor is kept', await until(() => d.fds() <= before.fds), `${d.fds()} descriptors, ${before.fds} before`)
  checks.check('the daemon does not grow', rss(d.pid) < before.rss + 65_536, `${rss(d.pid)} kB, ${before.rss} before`)
  checks.check('the zygote does not grow', rss(d.zygotes()[0]!) < before.zygote + 4096, `${rss(d.zygotes()[0]!)} kB, ${before.zygote} before`)
} finally {
  await d.remove()
}
process.exit(checks.end())
