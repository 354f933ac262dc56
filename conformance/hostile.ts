/**
 * What a guest whose loader has been taken over, and any client, can send: random requests on the ring
 * and packets on the connection of a running container (conformance/fuzz/ring.c), mutated frames on the
 * control socket. The daemon neither ends nor hangs nor keeps anything; other containers run on.
 *
 *   node conformance/hostile.ts [--requests N] [--frames N] [--seed N]        by root: another process's ring is taken
 */
import { spawnSync } from 'node:child_process'
import { readdirSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import * as R from '../src/abi/ring.ts'
import { frame } from '../src/daemon/frames.ts'
import { childrenOf, rss, TestDaemon, testImage, until } from '../src/daemon/testing.ts'
import { handlers } from '../src/syscalls/index.ts'
import { Checks } from './checks.ts'
import { run } from './native.ts'
import { workOf } from './single.ts'

/** Requests to one container, frames on one connection. */
const A_CONTAINER = 20_000
const A_CONNECTION = 500

const { values } = parseArgs({ options: { requests: { type: 'string', default: '100000' }, frames: { type: 'string', default: '100000' }, seed: { type: 'string' } } })
const first = Number(values.seed ?? Math.floor(Date.now() / 1000) % 1_000_000)
let state = first
/** Numerical Recipes' generator; the high bits. */
const below = (n: number): number => {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
  return Math.floor(state / 0x1_0000_0000 * n)
}

/** The stand-in, compiled with the ring's constants. */
function standIn(): string {
  const out = workOf('hostile')
  const constants = Object.entries(R).filter((e): e is [string, number] => typeof e[1] === 'number')
  writeFileSync(join(out, 'ring.h'), constants.map(([name, v]) => `#define ${name} ${v}u\n`).join(''))
  const binary = join(out, 'ring')
  const source = join(import.meta.dirname, 'fuzz/ring.c')
  const r = spawnSync('cc', ['-O1', '-Wall', '-Wextra', '-Wno-sign-compare', '-Werror', '-I', out, '-o', binary, source], { encoding: 'utf8' })
  if (r.status !== 0) throw new Error(`${source} does not compile:\n${r.error?.message ?? r.stderr}`)
  return binary
}

const image = await testImage()
const d = await TestDaemon.start()
const checks = new Checks()

async function requests(binary: string, seed: number, count: number): Promise<number> {
  const victim = d.spawn(['run', '--rm', image, 'bash', '-c', 'echo ready; while :; do mkdir /tmp/d; rmdir /tmp/d; done 2>/dev/null'])
  const ended = new Promise<void>((r) => victim.once('close', () => r()))
  let said = ''
  victim.stderr!.on('data', (text: Buffer) => { said += text.toString() })
  await Promise.race([new Promise((r) => victim.stdout!.once('data', r)), ended.then(() => { throw new Error(`the container has not started: ${said}`) })])
  const pid = childrenOf(d.zygotes()[0]!).at(-1)!
  const r = await run(binary, [`${pid}`, `${seed}`, `${count}`, ...[...handlers.keys()].map(String)], 120)
  victim.kill('SIGKILL')
  await ended
  if (r.status !== '0') throw new Error(`${binary}: ${r.status} ${r.stderr}`)
  return Number(r.stdout)
}

const text = (): string => ['', '/', 'a', image, 'x'.repeat(below(300)), '\0', '../..'][below(7)]!
const value = (depth = 0): unknown => {
  switch (below(depth > 3 ? 6 : 9)) {
    case 0: return null
    case 1: return below(2) === 0
    case 2: return below(1000) - 100
    case 3: return [2 ** 53, -(2 ** 31), 1.5, NaN][below(4)]
    case 4: return text()
    case 5: return Buffer.alloc(below(40), below(256))
    case 6: return Array.from({ length: below(5) }, () => value(depth + 1))
    case 7: return Object.fromEntries(Array.from({ length: below(4) }, () => [text(), value(depth + 1)]))
    default: return Array.from({ length: below(5) }, () => text())
  }
}
const FIELDS = ['image', 'path', 'argv', 'env', 'cwd', 'user', 'tty', 'name', 'rm', 'mounts', 'container', 'signo', 'timeoutMs', 'detached', 'detachOnClose', 'all', 'version', 'client']
const TYPES = ['hello', 'run', 'exec', 'signal', 'ps', 'logs', 'stop', 'wait', 'rm', 'audit']

/** A frame that is one in its own way: with fields of any kind, or bytes changed, cut, doubled, put in. */
function mutated(): Buffer {
  const m: Record<string, unknown> = { type: TYPES[below(TYPES.length)], version: 1 }
  for (let n = below(6); n > 0; n--) m[FIELDS[below(FIELDS.length)]!] = value()
  let b = frame(m)
  for (let n = below(4); n > 0 && b.length > 5; n--) {
    const at = 4 + below(b.length - 4)
    switch (below(4)) {
      case 0: b[at] = below(256); break
      case 1: b[at]! ^= 1 << below(8); break
      case 2: b = Buffer.concat([b.subarray(0, at), Buffer.from([below(256)]), b.subarray(at)]); break
      default: b = Buffer.concat([b.subarray(0, at), b.subarray(at + 1 + below(4))])
    }
  }
  // Mostly the length is right, so that what comes after is a frame again.
  b.writeUInt32LE(below(200) === 0 ? below(1 << 21) : b.length - 4)
  return b
}

async function frames(count: number): Promise<void> {
  const s = createConnection(d.socket)
  const closed = new Promise<void>((r) => s.once('close', () => r()))
  s.on('error', () => {})
  s.resume()
  await new Promise((r) => { s.once('connect', r); s.once('close', r) })
  if (below(10) > 0) s.write(frame({ type: 'hello', version: 1, client: 'hostile' }))
  for (let n = 0; n < count; n++) s.write(mutated())
  s.end()
  const late = setTimeout(() => s.destroy(), 2000)
  await closed
  clearTimeout(late)
}

console.log(`seed ${first}`)
try {
  await frames(A_CONNECTION)
  const binary = standIn()
  await requests(binary, first, 1000)
  // What a container leaves behind goes when the next turn of the loop comes.
  await until(() => readdirSync(join(d.dir, 'state/containers')).length === 0)
  const before = { fds: d.fds(), rss: rss(d.pid) }
  let containers = 0, refused = 0
  for (let left = Number(values.requests); left > 0; containers++) {
    left -= await requests(binary, first + 1 + containers, Math.min(left, A_CONTAINER))
    const other = await d.command(['run', '--rm', image, 'true'])
    if (other.status !== 0) console.log(`after seed ${first + 1 + containers}: ${other.stderr}`, refused++)
  }
  checks.check(`${values.requests} requests to ${containers} containers`, refused === 0, `${refused} times no other container started\n${d.log.slice(-2000)}`)
  for (let left = Number(values.frames); left > 0; left -= A_CONNECTION) await frames(A_CONNECTION)
  checks.check(`${values.frames} frames`, true)
  const alive = await d.command(['run', '--rm', image, 'bash', '-c', 'echo alive'])
  checks.check('the daemon answers', alive.stdout === 'alive\n', `${alive.stderr}${d.log.slice(-2000)}`)
  const bugs = [...new Set(d.log.match(/^vkernel: (bug in|a request failed).*\n(    at .*\n){0,4}/gm))]
  checks.check('the daemon says nothing of bugs', bugs.length === 0, bugs.join('').slice(0, 6000))
  checks.check('no descriptor is kept', await until(() => d.fds() <= before.fds + 4), `${d.fds()} descriptors, ${before.fds} before`)
  checks.check('no container is kept', await until(() => readdirSync(join(d.dir, 'state/containers')).length === 0))
  checks.check('the daemon does not grow', rss(d.pid) < before.rss + 131_072, `${rss(d.pid)} kB, ${before.rss} before`)
} catch (e) {
  checks.check('the daemon lives', false, `${(e as Error).stack}\n${d.log.slice(-3000)}`)
} finally {
  await d.remove()
}
process.exit(checks.end())
