/** What must be survived: the end of any part by SIGKILL, a full disk, many containers, hostile clients. */
import test from 'ava'
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { frame } from '../src/daemon/frames.ts'
import { alive, childrenOf, outcomeOf, root, rss, TestDaemon, testImage, until } from '../src/daemon/testing.ts'
import { verifyAudit } from '../src/policy/audit.ts'

const image = await testImage()
const isRoot = process.getuid!() === 0

async function daemon(t: { teardown: (f: () => unknown) => void }, o: Parameters<typeof TestDaemon.start>[0] = {}): Promise<TestDaemon> {
  const d = await TestDaemon.start(o)
  t.teardown(() => d.remove())
  return d
}

/** A client whose program has written "ready". */
async function ready(d: TestDaemon, args: readonly string[], text: string) {
  const child = d.spawn(['run', ...args, image, 'bash', '-c', `echo ready; ${text}`])
  const outcome = outcomeOf(child)
  await new Promise((r) => child.stdout!.once('data', r))
  return { child, outcome }
}

/** Host pids of the guests of a daemon: first processes and theirs. */
function guests(d: TestDaemon): number[] {
  const below = (pid: number): number[] => childrenOf(pid).flatMap((c) => [c, ...below(c)])
  return d.zygotes().flatMap(below)
}

test('kill -9 of a guest process: its parent sees it as on Linux', async (t) => {
  const d = await daemon(t)
  const r = await d.sh(image, 'sleep 100 & p=$!; (sleep 0.1; kill -9 $p) & wait $p; echo $?')
  t.is(r.stdout, '137\n')
  // From the host, unseen by the container.
  const { outcome } = await ready(d, [], 'sleep 100; echo status $?')
  t.true(await until(() => guests(d).length === 2))
  process.kill(guests(d)[1]!, 'SIGKILL')
  t.regex((await outcome).stdout, /status 137/)
  const first = await ready(d, [], 'sleep 100 & wait')
  t.true(await until(() => guests(d).length === 2))
  process.kill(guests(d)[0]!, 'SIGKILL')
  t.is((await first.outcome).status, 137)
  t.true(await until(() => guests(d).length === 0))
})

test('kill -9 of the zygote: its containers end with 137, the next run starts another', async (t) => {
  const d = await daemon(t)
  const { outcome } = await ready(d, [], 'sleep 100 & sleep 100')
  const pids = guests(d)
  process.kill(d.zygotes()[0]!, 'SIGKILL')
  const r = await outcome
  t.is(r.status, 125, 'the client says whose failure it was')
  t.regex(r.stderr, /zygote ended/)
  t.true(await until(() => pids.every((p) => !alive(p))))
  t.is((await d.sh(image, 'echo again')).stdout, 'again\n')
  t.is(d.zygotes().length, 1)
})

test('kill -9 of the client: the guest is ended, or goes on when that was asked', async (t) => {
  const d = await daemon(t)
  const ended = await ready(d, [], 'sleep 100 & sleep 100')
  const pids = guests(d)
  t.true(pids.length > 0)
  ended.child.kill('SIGKILL')
  t.true(await until(() => pids.every((p) => !alive(p))))
  const kept = await ready(d, ['--detach-on-close', '--name', 'kept'], 'sleep 100')
  // Its standard output stays open: the guest has it.
  const gone = new Promise((r) => kept.child.once('exit', r))
  kept.child.kill('SIGKILL')
  await gone
  await new Promise((r) => setTimeout(r, 200))
  t.regex((await d.command(['ps'])).stdout, /kept .* running/)
  await d.command(['stop', '-t', '0', 'kept'])
  await kept.outcome
  t.true(await until(() => guests(d).length === 0))
})

test('a client that is killed before its container has started leaves none', async (t) => {
  const d = await daemon(t)
  for (let n = 0; n < 10; n++) {
    const child = d.spawn(['run', image, 'sleep', '100'])
    await new Promise((r) => setTimeout(r, n))
    child.kill('SIGKILL')
    await outcomeOf(child)
  }
  t.true(await until(() => guests(d).length === 0))
  t.is((await d.command(['ps'])).stdout.trim().split('\n').length, 1)
})

test('kill -9 of the daemon: guests end; a restart leaves nothing of it behind', async (t) => {
  const d = await daemon(t)
  const { outcome } = await ready(d, [], 'echo x > /tmp/file; mkfifo /tmp/fifo; sleep 100 & sleep 100')
  const pids = [...d.zygotes(), ...guests(d)]
  t.true(pids.length >= 2)
  const before = d.lastSeq
  await d.end('SIGKILL')
  const r = await outcome
  t.is(r.status, 125)
  t.regex(r.stderr, /the daemon is gone/)
  t.true(await until(() => pids.every((p) => !alive(p))))
  t.true(readdirSync(join(d.dir, 'state/containers')).length > 0)
  await d.boot()
  t.deepEqual(readdirSync(join(d.dir, 'state/containers')), [])
  t.is((await d.sh(image, 'echo again')).stdout, 'again\n')
  t.like(verifyAudit(d.audit), { ok: true })
  t.true(d.lastSeq > before)
})

test('SIGTERM: a clean end', async (t) => {
  const d = await daemon(t)
  const { outcome } = await ready(d, [], 'sleep 100')
  const pids = [...d.zygotes(), ...guests(d)]
  t.is(await d.end('SIGTERM'), 0)
  t.is((await outcome).status, 125)
  t.false(existsSync(d.socket))
  t.deepEqual(readdirSync(join(d.dir, 'state/containers')), [])
  t.true(await until(() => pids.every((p) => !alive(p))))
})

test('two daemons: the second says whose socket, state or log it is', async (t) => {
  const d = await daemon(t)
  await t.throwsAsync(TestDaemon.start({ dir: d.dir }), { message: /already listening on/ })
  t.is((await d.sh(image, 'echo still there')).stdout, 'still there\n')
  const other = mkdtempSync(join(tmpdir(), 'vkernel-test-'))
  t.teardown(() => rmSync(other, { recursive: true }))
  await t.throwsAsync(TestDaemon.start({ dir: other, state: join(d.dir, 'state') }), { message: /another daemon's/ })
})

test('a socket file that nobody listens on is replaced', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'vkernel-test-'))
  writeFileSync(join(dir, 's'), '')
  const d = await daemon(t, { dir })
  t.is((await d.sh(image, 'echo here')).stdout, 'here\n')
})

test('a directory that others may change is not used', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'vkernel-test-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  mkdirSync(join(dir, 'state'))
  spawnSync('chmod', ['777', join(dir, 'state')])
  await t.throwsAsync(TestDaemon.start({ dir }), { message: /may be changed by others/ })
})

const withRoot = isRoot ? test : test.skip

withRoot('a full disk in the upper directory is ENOSPC in the guest, and nothing else', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'vkernel-test-'))
  mkdirSync(join(dir, 'state'), { mode: 0o700 })
  t.is(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m,mode=700', 'tmpfs', join(dir, 'state')]).status, 0)
  const d = await daemon(t, { dir })
  const r = await d.sh(image, 'probe fill /tmp/big; echo x 2>/dev/null > /bin/bash || echo no copy-up; rm /tmp/big; echo fits > /tmp/small; cat /tmp/small')
  t.like(r, { status: 0, stdout: 'ENOSPC\nno copy-up\nfits\n' })
  t.is((await d.sh(image, 'probe fill /tmp/a')).stdout, 'ENOSPC\n')
})

withRoot('an audit log that cannot be written: nothing is executed', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'vkernel-test-'))
  const logs = join(dir, 'logs')
  mkdirSync(logs)
  t.is(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8k', 'tmpfs', logs]).status, 0)
  const d = await daemon(t, { dir, audit: join(logs, 'audit.jsonl') })
  let last
  for (let n = 0; n < 100; n++) {
    last = await d.command(['run', image, 'true'])
    if (last.status !== 0) break
  }
  t.is(last?.status, 126)
  spawnSync('mount', ['-o', 'remount,size=1m', logs])
  t.is((await d.command(['run', image, 'true'])).status, 0)
  t.like(verifyAudit(join(logs, 'audit.jsonl')), { ok: true })
})

test('200 containers in a row: no more descriptors, memory or files', async (t) => {
  const d = await daemon(t)
  const rounds = async (count: number) => {
    for (let n = 0; n < count; n += 4) {
      const all = await Promise.all(Array.from({ length: 4 }, () => d.command(['run', image, 'true'])))
      t.true(all.every((r) => r.status === 0))
    }
  }
  await rounds(60)
  const zygote = d.zygotes()[0]!
  const before = { fds: d.fds(), zygoteFds: d.fds(zygote), rss: rss(d.pid), zygoteRss: rss(zygote), maps: readFileSync(`/proc/${d.pid}/maps`, 'latin1').split('\n').length }
  await rounds(200)
  t.true(await until(() => d.fds() <= before.fds), `${d.fds()} descriptors, ${before.fds} before`)
  t.is(d.fds(zygote), before.zygoteFds)
  t.true(rss(zygote) < before.zygoteRss + 1024, `zygote ${rss(zygote)} kB, ${before.zygoteRss} before`)
  t.true(rss(d.pid) < before.rss + 16_384, `daemon ${rss(d.pid)} kB, ${before.rss} before`)
  t.deepEqual(readdirSync(join(d.dir, 'state/containers')), [])
  t.is(guests(d).length, 0)
  t.is(d.zygotes().length, 1)
})

/** A raw connection that has greeted. */
async function raw(d: TestDaemon): Promise<Socket> {
  const s = createConnection(d.socket)
  s.on('error', () => {})
  await new Promise((r) => s.once('connect', r))
  s.write(frame({ type: 'hello', version: 1, client: 'test' }))
  await new Promise((r) => s.once('data', r))
  return s
}

test('10,000 hostile frames: no crash, no descriptor kept', async (t) => {
  const d = await daemon(t)
  const before = d.fds()
  let seed = 7
  const next = (): number => (seed = (seed * 1_103_515_245 + 12_345) & 0x7fffffff) >> 8
  const types = ['run', 'exec', 'signal', 'ps', 'logs', 'stop', 'wait', 'rm', 'audit', 'hello', 'nothing', 5, null, {}]
  const values: unknown[] = [null, true, -1, 2 ** 53, 1.5, '', 'x'.repeat(1000), '/', '../..', 'a\0b', [], [[]], [1], {}, { a: 1 }, Buffer.alloc(10), image]
  const fields = ['image', 'path', 'argv', 'env', 'cwd', 'user', 'tty', 'name', 'rm', 'mounts', 'container', 'signo', 'timeoutMs', 'detached']
  for (let n = 0; n < 100; n++) {
    const s = n % 3 === 0 ? createConnection(d.socket) : await raw(d)
    s.on('error', () => {})
    const parts: Buffer[] = []
    for (let k = 0; k < 100; k++) {
      if (n % 3 === 1) {
        const m: Record<string, unknown> = { type: types[next() % types.length] }
        for (let f = next() % 5; f > 0; f--) m[fields[next() % fields.length]!] = values[next() % values.length]
        parts.push(frame(m))
      } else {
        const b = Buffer.from(Array.from({ length: next() % 60 }, () => next() & 0xff))
        const len = Buffer.alloc(4)
        len.writeUInt32LE(next() % 50 === 0 ? next() : b.length)
        parts.push(len, b)
      }
    }
    s.write(Buffer.concat(parts))
    await new Promise((r) => setTimeout(r, 5))
    s.destroy()
  }
  t.true(await until(() => d.fds() <= before + 8), `${d.fds()} descriptors, ${before} before`)
  t.is((await d.sh(image, 'echo alive')).stdout, 'alive\n')
  t.notRegex(d.log, /a request failed/)
})

test('frames that are too long, or never end, cost nobody anything', async (t) => {
  const d = await daemon(t)
  const before = d.fds()
  const long = await raw(d)
  long.write(Buffer.from([0, 0, 0, 0x7f]))
  t.true(await until(() => long.destroyed || long.readableEnded || d.fds() <= before))
  const half = await Promise.all(Array.from({ length: 50 }, () => raw(d)))
  for (const s of half) s.write(Buffer.from([255, 255, 0, 0, 1]))
  t.is((await d.sh(image, 'echo alive')).stdout, 'alive\n')
  for (const s of half) s.destroy()
  t.true(await until(() => d.fds() <= before + 8))
})

test('more at once than a socket takes: 40 starts, 40 threads that open files', async (t) => {
  const d = await daemon(t)
  const starts = await Promise.all(Array.from({ length: 40 }, () => d.command(['run', image, 'true'])))
  t.deepEqual(starts.filter((r) => r.status !== 0), [])
  t.is((await d.sh(image, 'probe threads 40 /tmp/x')).stdout, '0 failed\n')
  t.notRegex(d.log, /bug/)
})

test('as many processes as a container may have, and one more', async (t) => {
  const d = await daemon(t)
  t.is((await d.sh(image, 'probe forkbomb 200')).stdout, 'done\n')
  t.is((await d.sh(image, 'for n in {1..300}; do (:) & done; wait; echo done')).stdout, 'done\n')
})

withRoot('an ordinary user has a daemon of its own', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'vkernel-test-'))
  cpSync(join(root, 'build/test-images/keys/default.pub'), join(dir, 'keys/default.pub'))
  spawnSync('chown', ['-R', '1000:1000', dir])
  const user = ['setpriv', '--reuid', '1000', '--regid', '1000', '--clear-groups', 'env', `HOME=${dir}`, `VKERNEL_KEYS=${join(dir, 'keys')}`]
  const d = await daemon(t, { dir, prefix: user })
  t.is(statSync(d.socket).uid, 1000)
  t.is(statSync(join(dir, 'state')).mode & 0o777, 0o700)
  const r = await d.command(['run', image, 'bash', '-c', 'id -u; echo x > /etc/new; chown 5:6 /etc/new; stat -c %u:%g /etc/new; readlink /proc/self/fd/1 | cut -c 1-5; ls /proc/self/fd | wc -l; probe pty; probe unix /tmp/u'], '', user)
  t.deepEqual(r.stdout.split('\n').slice(0, 5), ['0', '5:6', 'pipe:', '4', '/dev/pts/0 /dev/pts/0'])
  t.is(r.status, 0)
  // Another user, who is not root, is not served; and does not take up with a stranger's daemon.
  const stranger = ['setpriv', '--reuid', '1001', '--regid', '1001', '--clear-groups', 'env', `HOME=${dir}`]
  spawnSync('chmod', ['711', dir])
  spawnSync('chmod', ['777', d.socket])
  const s = await d.command(['run', image, 'true'], '', stranger)
  t.is(s.status, 125)
  t.regex(s.stderr, /another user|gone/)
  const shared = join(dir, 'shared')
  mkdirSync(shared)
  spawnSync('chown', ['1000:1000', shared])
  t.is((await d.command(['run', '-v', `${shared}:/m`, image, 'bash', '-c', 'stat -c %u:%g /m; echo x > /m/f; chown 5 /m/f'], '', user)).stdout, '0:0\n')
  t.is(statSync(join(shared, 'f')).uid, 1000)
})
