import test, { type ExecutionContext } from 'ava'
import { spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Packr, unpack } from 'msgpackr'
import { readStub, STUB, stubFor } from './stub.ts'
import { BuildError } from './tree.ts'

const base = mkdtempSync(join(tmpdir(), 'vkernel-stub-'))
test.after.always(() => rmSync(base, { recursive: true, force: true }))
const packr = new Packr({ useRecords: false })
const digest = 'ab'.repeat(32)

type Request = Record<string, unknown> & { type: string }

/** A daemon's side of the control socket; `answer` sees each request after the greeting. */
async function daemon(answer: (m: Request, reply: (m: object) => void, socket: Socket) => void): Promise<{ path: string; requests: Request[]; close: () => void }> {
  const path = join(mkdtempSync(join(base, 'd')), 'sock')
  const requests: Request[] = []
  const server = createServer((socket) => {
    let input: Buffer = Buffer.alloc(0)
    const reply = (m: object): void => {
      const body = packr.pack(m), head = Buffer.alloc(4)
      head.writeUInt32LE(body.length)
      // In two pieces, as a stream may come.
      socket.write(head)
      socket.write(body)
    }
    socket.on('error', () => undefined)
    socket.on('data', (piece: Buffer) => {
      input = Buffer.concat([input, piece])
      while (input.length >= 4 && input.length >= 4 + input.readUInt32LE(0)) {
        const len = input.readUInt32LE(0)
        const m = unpack(input.subarray(4, 4 + len)) as Request
        input = input.subarray(4 + len)
        requests.push(m)
        if (m.type === 'hello') reply({ type: 'hello', version: 1, daemon: 'test', capabilities: ['run', { more: [1, -2, 3.5, null] }] })
        else answer(m, reply, socket)
      }
    })
  })
  await new Promise<void>((ready) => { server.listen(path, ready) })
  return { path, requests, close: () => { server.close() } }
}

let serial = 0
function stub(path = '/usr/bin/program'): string {
  const file = join(base, `stub-${serial++}`)
  writeFileSync(file, stubFor(readStub(), path, digest, 'cd'.repeat(32)))
  chmodSync(file, 0o755)
  return file
}

interface Ended { status: number | null; stderr: string }
function run(file: string, args: string[], options: { env?: Record<string, string>; cwd?: string; argv0?: string }, started?: (pid: number) => void): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], env: options.env ?? {}, ...(options.cwd ? { cwd: options.cwd } : {}), ...(options.argv0 ? { argv0: options.argv0 } : {}) })
    let stderr = ''
    child.stderr.on('data', (b: Buffer) => { stderr += b.toString() })
    child.on('close', (status) => resolve({ status, stderr }))
    if (child.pid !== undefined) started?.(child.pid)
  })
}

/** The stub is built by `npm run build`; a checkout without it skips, visibly. */
function built(t: ExecutionContext): boolean {
  if (existsSync(STUB)) return true
  t.log(`skipped: ${STUB} is not built`)
  t.pass()
  return false
}

test('a stub asks for its image\'s program with all that it was started with', async (t) => {
  if (!built(t)) return
  const d = await daemon((_, reply) => reply({ type: 'exit', code: 42 }))
  const cwd = join(base, 'work')
  mkdirSync(cwd)
  const r = await run(stub(), ['one', '', 'caf\u00e9', 'x'.repeat(70_000)], { env: { VKERNEL_SOCKET: d.path, A: '1' }, cwd, argv0: 'name' })
  d.close()
  t.deepEqual(r, { status: 42, stderr: '' })
  t.like(d.requests[0], { type: 'hello', version: 1 })
  const { argv, env, ...rest } = d.requests[1]! as unknown as { argv: Buffer[]; env: Buffer[] }
  t.deepEqual(rest, { type: 'run', image: `sha256:${digest}`, path: '/usr/bin/program', cwd, user: `${process.getuid!()}:${process.getgid!()}`, tty: false } as never)
  t.deepEqual(argv.map((b) => b.toString()), ['name', 'one', '', 'café', 'x'.repeat(70_000)])
  t.deepEqual(env.map((b) => b.toString()).sort(), ['A=1', `VKERNEL_SOCKET=${d.path}`])
})

test('signals go to the program', async (t) => {
  if (!built(t)) return
  const d = await daemon((m, reply) => {
    if (m.type === 'run') reply({ type: 'started', container: 'c', pid: 1 })
    else reply({ type: 'exit', code: 128 + Number(m['signo']) })
  })
  let pid = 0
  const ended = run(stub(), [], { env: { VKERNEL_SOCKET: d.path } }, (p) => { pid = p })
  while (!d.requests.some((m) => m.type === 'run')) await new Promise((next) => { setTimeout(next, 5) })
  process.kill(pid, 'SIGTERM')
  t.is((await ended).status, 143)
  t.deepEqual(d.requests.at(-1), { type: 'signal', signo: 15 })
  d.close()
})

test('failures are 125 and say what is wrong', async (t) => {
  if (!built(t)) return
  const none = await run(stub(), [], { env: { VKERNEL_SOCKET: join(base, 'nobody') } })
  t.deepEqual(none, { status: 125, stderr: `vkernel-stub: no vkernel daemon answers on ${join(base, 'nobody')}; start one (vkernel), or set VKERNEL_SOCKET\n` })
  const refusing = await daemon((_, reply) => reply({ type: 'error', code: 'VK_ERR_NO_IMAGE', message: 'there is no image', hint: 'build one', status: 125 }))
  t.deepEqual(await run(stub(), [], { env: { VKERNEL_SOCKET: refusing.path } }), { status: 125, stderr: 'vkernel-stub: there is no image\nbuild one\n' })
  t.deepEqual(await run(stub(), ['x'.repeat(100_000), ...Array.from({ length: 12 }, () => 'y'.repeat(100_000))], { env: { VKERNEL_SOCKET: refusing.path } }),
    { status: 125, stderr: 'vkernel-stub: arguments and environment are larger than 1 MiB\n' })
  refusing.close()
  const dying = await daemon((_, _reply, socket) => { socket.destroy() })
  t.deepEqual(await run(stub(), [], { env: { VKERNEL_SOCKET: dying.path } }), { status: 125, stderr: 'vkernel-stub: the daemon is gone: the program was ended with it\n' })
  dying.close()
  const bare = await run(STUB, [], {})
  t.is(bare.status, 125)
  t.regex(bare.stderr, /names no program/)
})

test('answers that are no answers end the stub, not crash it', async (t) => {
  if (!built(t)) return
  const bodies = ['', 'c1', 'de', 'dfffffffff', 'dbffffffff', '81a4', '81a474797065dbfffffff0', `81a161${'91'.repeat(5000)}c0`, '82a474797065a465786974a4636f6465c2']
  for (const hex of bodies) {
    const d = await daemon((_, _reply, socket) => {
      const body = Buffer.from(hex, 'hex'), head = Buffer.alloc(4)
      head.writeUInt32LE(body.length)
      socket.end(Buffer.concat([head, body]))
    })
    const r = await run(stub(), [], { env: { VKERNEL_SOCKET: d.path } })
    d.close()
    t.is(r.status, 125, `${hex.slice(0, 20)}: ${r.stderr}`)
  }
})

test('a stub without a program to be is refused at build', (t) => {
  t.throws(() => readStub(join(base, 'none')), { instanceOf: BuildError, message: /npm run build/ })
  t.throws(() => stubFor(Buffer.alloc(1), `/${'n'.repeat(5000)}`, digest, digest), { instanceOf: BuildError })
})
