/** The control socket: length-prefixed msgpack frames, SO_PEERCRED checked, stdio by SCM_RIGHTS. */
import { closeSync, openSync } from 'node:fs'
import { EAGAIN } from '../abi/errno.ts'
import { addon } from '../native/addon.ts'
import { VkError } from './errors.ts'
import { decode, frame, listOf, MAX_FRAME, textOf } from './frames.ts'
import type { Loop } from './loop.ts'
import type { Job, Result, Running, Runtime } from './runtime.ts'
import type { Mount, StartRequest } from './start.ts'
import { waitsOf } from './waits.ts'
import { MAX_WATCH_BYTES, type Watcher, type WatchRequest } from './watch.ts'

export const PROTOCOL_VERSION = 1
/** Bytes that wait for a client to read them: beyond the first records of calls are left out, beyond the second it is given up. */
const MAX_RECORDS = 4 << 20
const MAX_QUEUED = 16 << 20
/** Descriptors that a client may have on the way. */
const MAX_FDS = 8
const MAX_MOUNTS = 64
/** Rules or ports in a message. */
const MAX_RULES = 1000

type Message = Record<string, unknown>

const wrong = (field: string): VkError => new VkError('VK_ERR_PROTOCOL', `the field ${field} is not what it should be`)

function optional<T>(field: string, v: unknown, read: (v: unknown) => T | undefined): T | undefined {
  if (v === undefined || v === null) return undefined
  const r = read(v)
  if (r === undefined) throw wrong(field)
  return r
}

const text = (m: Message, field: string): string | undefined => optional(field, m[field], textOf)

function needed(m: Message, field: string): string {
  const v = text(m, field)
  if (v === undefined) throw wrong(field)
  return v
}

function list(m: Message, field: string): Buffer[] {
  const v = listOf(m[field])
  if (!v) throw wrong(field)
  return v
}

function mountsOf(m: Message): Mount[] {
  const v = m['mounts'] ?? []
  if (!Array.isArray(v) || v.length > MAX_MOUNTS) throw wrong('mounts')
  return (v as unknown[]).map((item) => {
    if (typeof item !== 'object' || item === null) throw wrong('mounts')
    const o = item as Message
    return { host: text(o, 'host') ?? '', guest: needed(o, 'guest'), readonly: o['ro'] === true, tmpfs: o['tmpfs'] === true }
  })
}

function watchOf(m: Message): WatchRequest {
  const calls = m['calls'], bytes = m['bytes'] ?? 32
  if (calls !== undefined && !(calls instanceof Uint8Array)) throw wrong('calls')
  if (typeof bytes !== 'number' || !(bytes >= 0 && bytes <= MAX_WATCH_BYTES)) throw wrong('bytes')
  return { calls: Buffer.from(calls ?? []), bytes: Math.floor(bytes), records: m['records'] === true, stats: m['stats'] === true }
}

/** A list of texts; undefined: there is none. */
function textsOf(m: Message, field: string): string[] | undefined {
  return optional(field, m[field], (v) => Array.isArray(v) && v.length <= MAX_RULES && v.every((x) => typeof x === 'string') ? v : undefined)
}

const startOf = (m: Message): StartRequest => ({
  path: text(m, 'path') || undefined, argv: list(m, 'argv'), env: list(m, 'env'), cwd: text(m, 'cwd'), user: text(m, 'user'), tty: m['tty'] === true,
})

/** One client. */
class Session {
  private input: Buffer = Buffer.alloc(0)
  private readonly fds: number[] = []
  private job: Job | undefined
  private greeted = false
  private detach = false
  private closed = false
  private readonly unwatch: () => void
  /** What the socket did not take yet. */
  private readonly queue: Buffer[] = []
  private queued = 0
  private flushing: NodeJS.Timeout | undefined
  /** Records that were left out since the client was last told. */
  private lost = 0
  /** What this client watches. */
  private watching: { readonly on: Running; readonly watcher: Watcher } | undefined

  private readonly fd: number
  private readonly loop: Loop
  private readonly runtime: Runtime

  constructor(fd: number, loop: Loop, runtime: Runtime) {
    this.fd = fd
    this.loop = loop
    this.runtime = runtime
    this.unwatch = loop.watch(fd, () => this.readable())
  }

  /** A client that does not read is given up in the end: nothing waits for it. */
  private send(message: object): void {
    if (this.closed) return
    this.queue.push(frame(message))
    this.queued += this.queue.at(-1)!.length
    if (this.queued > MAX_QUEUED) this.close()
    else if (!this.flushing) this.flush()
  }

  private flush(): void {
    this.flushing = undefined
    for (let bytes = this.queue[0]; bytes; bytes = this.queue[0]) {
      const n = addon.send(this.fd, bytes, [])
      if (n < 0 && n !== -EAGAIN) return this.close()
      this.queued -= Math.max(n, 0)
      if (n === bytes.length) {
        this.queue.shift()
        continue
      }
      if (n > 0) this.queue[0] = bytes.subarray(n)
      this.flushing = setTimeout(() => this.flush(), 1)
      return
    }
  }

  private record(bytes: Buffer): void {
    if (this.queued > MAX_RECORDS) {
      this.lost++
      return
    }
    if (this.lost > 0) this.send({ type: 'lost', records: this.lost })
    this.lost = 0
    this.send({ type: 'record', record: bytes })
  }

  private watcher(q: WatchRequest): Watcher {
    return { ...q, record: (bytes) => this.record(bytes), ended: (calls) => this.send({ type: 'stats', calls }) }
  }

  private sendStats(on: Running): void {
    this.send({ type: 'stats', calls: on.watchers.stats() })
  }

  /** Watches a running container until the client goes or the container ends. */
  private watch(m: Message): void {
    if (this.watching) throw new VkError('VK_ERR_PROTOCOL', 'one watch a connection')
    const on = this.runtime.findRunning(needed(m, 'container'))
    const watcher = this.watcher(watchOf(m))
    this.watching = { on, watcher }
    if (watcher.stats) this.sendStats(on)
    on.watchers.add(watcher)
    this.runtime.wait(on.entry.id, (result) => { if (!this.closed) this.ended(result) })
  }

  private readable(): void {
    const p = addon.receive(this.fd, 65_536)
    if (p.error === -11) return
    this.fds.push(...p.fds)
    if (p.error || p.data.length === 0 || this.fds.length > MAX_FDS) return this.close()
    this.input = this.input.length === 0 ? p.data : Buffer.concat([this.input, p.data])
    while (!this.closed && this.input.length >= 4) {
      const len = this.input.readUInt32LE(0)
      if (len > MAX_FRAME) return this.close()
      if (this.input.length < 4 + len) return
      const body = this.input.subarray(4, 4 + len)
      this.input = this.input.subarray(4 + len)
      this.answer(body)
    }
  }

  private answer(body: Buffer): void {
    try {
      const m = decode(body)
      if (!m) throw new VkError('VK_ERR_PROTOCOL', 'a frame is not a msgpack map of plain values')
      this.handle(m)
    } catch (e) {
      const known = e instanceof VkError ? e : new VkError('VK_ERR_SPAWN', `the request failed: ${(e as Error).message}`)
      if (known !== e) process.stderr.write(`vkernel: a request failed: ${(e as Error).stack}\n`)
      this.send({ type: 'error', code: known.code, message: known.message, hint: known.hint, status: known.status })
      if (!this.greeted) this.close()
    } finally {
      // Descriptors belong to the frame they came with.
      if (this.closed || this.input.length === 0) this.dropFds()
    }
  }

  private dropFds(): void {
    for (const fd of this.fds.splice(0)) closeSync(fd)
  }

  private handle(m: Message): void {
    if (!this.greeted) {
      if (m['type'] !== 'hello' || m['version'] !== PROTOCOL_VERSION) {
        throw new VkError('VK_ERR_PROTOCOL', `the first message must be hello of version ${PROTOCOL_VERSION}`)
      }
      this.greeted = true
      this.send({
        type: 'hello', version: PROTOCOL_VERSION, daemon: 'vkernel 0.1.0', pid: process.pid,
        capabilities: ['run', 'exec', 'detach', 'mounts', 'ports', 'policy', 'ps', 'logs', 'stop', 'wait', 'rm', 'audit', 'watch', 'waits', 'profile', 'shutdown'],
      })
      return
    }
    const { runtime } = this
    switch (m['type']) {
      case 'run': case 'exec': return this.start(m)
      case 'signal': {
        const signo = m['signo']
        if (this.job && typeof signo === 'number' && Number.isInteger(signo) && signo > 0 && signo <= 64) runtime.signal(this.job, signo)
        return
      }
      case 'ps':
        return this.send({ type: 'ps', containers: [...runtime.entries.values()].flatMap((e) => {
          const r = runtime.running.get(e.id)
          if (!r && m['all'] !== true) return []
          return [{
            id: e.id, name: e.name ?? '', image: e.image, pid: r?.pid ?? 0, tasks: r?.container.tasks.size ?? 0, startedAt: e.startedAt,
            ports: r?.container.network.published ?? [],
            ...(e.result ? { code: e.result.code } : {}),
          }]
        }) })
      case 'policy': return this.policy(m)
      case 'logs': {
        const entry = runtime.find(needed(m, 'container'))
        if (!entry.log) throw new VkError('VK_ERR_NO_CONTAINER', 'only a detached container (-d) has a log')
        const fd = openSync(entry.log, 'r')
        const bytes = frame({ type: 'logs' })
        const sent = addon.send(this.fd, bytes, [fd])
        closeSync(fd)
        if (sent !== bytes.length) this.close()
        return
      }
      case 'watch': return this.watch(m)
      case 'stats': {
        if (!this.watching) throw new VkError('VK_ERR_PROTOCOL', 'stats come after watch')
        return this.sendStats(this.watching.on)
      }
      case 'waits': {
        const which = text(m, 'container')
        const all = which ? [runtime.findRunning(which)] : [...runtime.running.values()]
        return this.send({ type: 'waits', waits: all.flatMap((r) => waitsOf(r.container, r.ring)) })
      }
      case 'stop': {
        const ms = m['timeoutMs']
        return runtime.stopContainer(needed(m, 'container'), typeof ms === 'number' && ms >= 0 && ms <= 3_600_000 ? ms : 10_000, (r) => this.ended(r))
      }
      case 'wait': return runtime.wait(needed(m, 'container'), (r) => this.ended(r))
      case 'rm':
        runtime.remove(runtime.find(needed(m, 'container')))
        return this.send({ type: 'rm' })
      case 'audit':
        return this.send({ type: 'audit', file: runtime.audit.file, head: runtime.audit.checkpoint, records: runtime.audit.recent.slice(-100) })
      case 'shutdown':
        this.send({ type: 'shutdown' })
        process.kill(process.pid, 'SIGTERM')
        return
      default:
        throw new VkError('VK_ERR_PROTOCOL', `no message ${String(m['type']).slice(0, 64)}`)
    }
  }

  /** The rules of a running container, narrowed when `egress` is given, and what it has used and was refused. */
  private policy(m: Message): void {
    const { network } = this.runtime.findRunning(needed(m, 'container')).container
    const egress = textsOf(m, 'egress')
    if (egress) {
      try {
        network.narrow(egress)
      } catch (e) {
        throw new VkError('VK_ERR_POLICY', (e as Error).message)
      }
    }
    this.send({ type: 'policy', network: network.backend, egress: network.rules, ports: network.published, ...network.usage, refused: network.refused.slice(0, 100) })
  }

  private ended(result: Result): void {
    if (this.lost > 0) this.send({ type: 'lost', records: this.lost })
    this.send({ type: 'exit', ...result })
  }

  private start(m: Message): void {
    const detached = m['type'] === 'run' && m['detached'] === true
    const stdio = this.fds.splice(0, 3)
    const profile = m['profile'] === true ? this.fds.shift() : undefined
    try {
      if (stdio.length !== (detached ? 0 : 3) || this.job) throw new VkError('VK_ERR_PROTOCOL', 'run needs stdin, stdout and stderr, once a connection')
      const request = startOf(m)
      if (m['profile'] === true && (profile === undefined || detached || m['type'] !== 'run')) throw new VkError('VK_ERR_PROTOCOL', 'a profile needs a run that is waited for, and a fourth descriptor')
      if (detached && request.tty) throw new VkError('VK_ERR_PROTOCOL', 'a detached container has no terminal: -d or -t')
      const watcher = m['type'] === 'run' && typeof m['watch'] === 'object' && m['watch'] !== null ? this.watcher(watchOf(m['watch'] as Message)) : undefined
      this.detach = detached || m['detachOnClose'] === true
      const callbacks: Pick<Job, 'started' | 'ended'> = {
        started: (pid) => this.send({ type: 'started', container: this.job?.running.entry.id ?? '', pid }),
        ended: (result) => {
          this.job = undefined
          this.ended(result)
        },
      }
      this.job = m['type'] === 'exec'
        ? this.runtime.exec(needed(m, 'container'), request, stdio, callbacks)
        : this.runtime.run({
          ...request, stdio, detached, image: needed(m, 'image'), name: text(m, 'name') || undefined, rm: m['rm'] === true, mounts: mountsOf(m), ports: textsOf(m, 'ports') ?? [], watcher, profile,
        }, callbacks)
      if (watcher) this.watching = { on: this.job.running, watcher }
    } finally {
      for (const fd of profile === undefined ? stdio : [...stdio, profile]) closeSync(fd)
    }
  }

  private close(): void {
    if (this.closed) return
    this.closed = true
    this.unwatch()
    clearTimeout(this.flushing)
    this.watching?.on.watchers.remove(this.watching.watcher)
    closeSync(this.fd)
    this.dropFds()
    // A client that is gone takes its process with it, unless it asked otherwise.
    if (this.job && !this.detach) this.runtime.signal(this.job, 9)
  }
}

/** A descriptor kept for the moment when there are none left: a client is then told so by a closed connection. */
const reserve = (): number => openSync('/dev/null', 'r')

/** Listens on `path` for this user's (or root's) clients. */
export function listen(path: string, loop: Loop, runtime: Runtime): void {
  const listener = addon.listenUnix(path)
  if (listener < 0) throw new Error(`cannot listen on ${path}: errno ${-listener}`)
  let spare = reserve()
  loop.watch(listener, () => {
    for (;;) {
      const c = addon.acceptUnix(listener)
      if (c.fd === -24 || c.fd === -23) {
        // EMFILE, ENFILE: the connection would wake the loop for ever.
        closeSync(spare)
        const refused = addon.acceptUnix(listener)
        if (refused.fd >= 0) closeSync(refused.fd)
        spare = reserve()
        return
      }
      if (c.fd < 0) return
      if (c.uid !== process.getuid!() && c.uid !== 0) closeSync(c.fd)
      else new Session(c.fd, loop, runtime)
    }
  })
}
