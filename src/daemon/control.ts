/** The control socket: length-prefixed msgpack frames, SO_PEERCRED checked, stdio by SCM_RIGHTS. */
import { closeSync } from 'node:fs'
import { Packr, unpack } from 'msgpackr'
import { addon } from '../native/addon.ts'
import { VkError } from './errors.ts'
import type { Loop } from './loop.ts'
import type { Job, Runtime } from './runtime.ts'

export const PROTOCOL_VERSION = 1
const MAX_FRAME = 1 << 20
const packr = new Packr({ useRecords: false })

interface Message {
  type: string
  version?: number
  image?: string; path?: string; argv?: (string | Buffer)[]; env?: (string | Buffer)[]; cwd?: string; user?: string; tty?: boolean
  detachOnClose?: boolean
  container?: string
  signo?: number
}

const bytes = (list: unknown): Buffer[] =>
  Array.isArray(list) && list.length <= 65_536 ? list.map((v) => (Buffer.isBuffer(v) ? v : Buffer.from(String(v)))) : []

/** One client. */
class Session {
  private input: Buffer = Buffer.alloc(0)
  private fds: number[] = []
  private job: Job | undefined
  private greeted = false
  private detach = false
  private closed = false
  private readonly unwatch: () => void

  private readonly fd: number
  private readonly loop: Loop
  private readonly runtime: Runtime

  constructor(fd: number, loop: Loop, runtime: Runtime) {
    this.fd = fd
    this.loop = loop
    this.runtime = runtime
    this.unwatch = loop.watch(fd, () => this.readable())
  }

  private send(message: object): void {
    if (this.closed) return
    const body = packr.pack(message)
    const frame = Buffer.alloc(4 + body.length)
    frame.writeUInt32LE(body.length)
    body.copy(frame, 4)
    if (addon.send(this.fd, frame, []) !== frame.length) this.close()
  }

  private readable(): void {
    const p = addon.receive(this.fd, 65_536)
    if (p.error === -11) return
    if (p.error || p.data.length === 0) return this.close()
    this.fds.push(...p.fds)
    this.input = Buffer.concat([this.input, p.data])
    while (!this.closed && this.input.length >= 4) {
      const len = this.input.readUInt32LE(0)
      if (len > MAX_FRAME || this.fds.length > 16) return this.close()
      if (this.input.length < 4 + len) return
      const body = this.input.subarray(4, 4 + len)
      this.input = this.input.subarray(4 + len)
      try {
        this.handle(unpack(body) as Message)
      } catch (e) {
        const known = e instanceof VkError ? e : new VkError('VK_ERR_PROTOCOL', `the request failed: ${(e as Error).message}`)
        this.send({ type: 'error', code: known.code, message: known.message, hint: known.hint, status: known.status })
      }
    }
  }

  private handle(m: Message): void {
    if (!this.greeted) {
      if (m.type !== 'hello' || m.version !== PROTOCOL_VERSION) {
        throw new VkError('VK_ERR_PROTOCOL', `the first message must be hello of version ${PROTOCOL_VERSION}`)
      }
      this.greeted = true
      this.send({ type: 'hello', version: PROTOCOL_VERSION, daemon: 'vkernel 0.1.0', pid: process.pid, capabilities: ['run', 'exec', 'ps', 'audit'] })
      return
    }
    switch (m.type) {
      case 'run': case 'exec': return this.start(m)
      case 'signal':
        if (this.job && Number.isInteger(m.signo) && m.signo! > 0 && m.signo! <= 64) this.runtime.signal(this.job, m.signo!)
        return
      case 'ps':
        return this.send({ type: 'ps', containers: [...this.runtime.running.values()].map((r) => ({
          id: r.container.id, image: r.image, pid: r.pid, tasks: r.container.tasks.size, startedAt: r.startedAt })) })
      case 'audit':
        return this.send({ type: 'audit', file: this.runtime.audit.file, records: this.runtime.audit.recent })
      case 'shutdown':
        this.send({ type: 'shutdown' })
        process.kill(process.pid, 'SIGTERM')
        return
      default:
        throw new VkError('VK_ERR_PROTOCOL', `no message ${m.type}`)
    }
  }

  private start(m: Message): void {
    const stdio = this.fds.splice(0, 3)
    try {
      if (stdio.length !== 3 || this.job) throw new VkError('VK_ERR_PROTOCOL', 'run needs stdin, stdout and stderr, once a connection')
      this.detach = m.detachOnClose === true
      const request = {
        image: String(m.image ?? ''), path: String(m.path ?? ''), argv: bytes(m.argv), env: bytes(m.env), cwd: m.cwd || '/', user: m.user || '0',
        tty: m.tty === true, stdio,
      }
      const callbacks: Pick<Job, 'started' | 'ended'> = {
        started: (pid) => this.send({ type: 'started', container: this.job?.running.container.id ?? '', pid }),
        ended: (result) => {
          this.job = undefined
          this.send({ type: 'exit', ...result })
        },
      }
      this.job = m.type === 'run' ? this.runtime.run(request, callbacks) : this.runtime.exec(String(m.container), request, callbacks)
    } finally {
      for (const fd of stdio) closeSync(fd)
    }
  }

  private close(): void {
    if (this.closed) return
    this.closed = true
    this.unwatch()
    closeSync(this.fd)
    for (const fd of this.fds) closeSync(fd)
    // A client that is gone takes its process with it, unless it asked otherwise.
    if (this.job && !this.detach) this.runtime.signal(this.job, 9)
  }
}

/** Listens on `path` for this user's (or root's) clients. */
export function listen(path: string, loop: Loop, runtime: Runtime): void {
  const listener = addon.listenUnix(path)
  if (listener < 0) throw new Error(`cannot listen on ${path}: errno ${-listener}`)
  loop.watch(listener, () => {
    for (;;) {
      const c = addon.acceptUnix(listener)
      if (c.fd < 0) return
      if (c.uid !== process.getuid!() && c.uid !== 0) closeSync(c.fd)
      else new Session(c.fd, loop, runtime)
    }
  })
}
