/** Running containers: makes them, answers their rings, ends them. */
import { closeSync, openSync, readSync, rmSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { randomBytes } from 'node:crypto'
import { addon, type Packet } from '../native/addon.ts'
import type { Audit } from '../policy/audit.ts'
import { Container, MAX_ANNOUNCED, type Task } from '../task/container.ts'
import type { Config } from '../image/manifest.ts'
import { VkError } from './errors.ts'
import type { Loop } from './loop.ts'
import { Networks, publishAll, resolvConf } from './networks.ts'
import { Ring } from './ring.ts'
import { mountAll, prepare, type Mount, type StartRequest } from './start.ts'
import { Watchers, type Watcher } from './watch.ts'
import { Zygote, type ZygoteEvent } from './zygote.ts'

export interface RunRequest extends StartRequest {
  readonly image: string
  readonly name: string | undefined
  readonly mounts: readonly Mount[]
  /** `-p`, as given. */
  readonly ports: readonly string[]
  /** Standard streams go to a log; the record stays until it is removed. */
  readonly detached: boolean
  /** The record goes with the container. */
  readonly rm: boolean
  /** stdin, stdout, stderr; none for a detached container. */
  readonly stdio: readonly number[]
  /** Watches from the first call on. */
  readonly watcher: Watcher | undefined
  /** Takes a profile of the container's processes. */
  readonly profile?: number | undefined
}

export interface Result { readonly code: number; readonly signal?: number; readonly error?: string }

/** One process that a client asked for. */
export interface Job {
  readonly id: number
  readonly running: Running
  readonly main: boolean
  /** Of the host process; −1: not started yet. */
  pidfd: number
  /** Ended by its client before it started. */
  doomed: boolean
  started: (pid: number) => void
  ended: (result: Result) => void
}

/** What is known of a container, running or ended. */
export interface Entry {
  readonly id: string
  readonly name: string | undefined
  readonly image: string
  readonly startedAt: number
  readonly rm: boolean
  readonly log: string | undefined
  result: Result | undefined
  readonly waiting: ((result: Result) => void)[]
}

export interface Running {
  readonly entry: Entry
  readonly container: Container
  readonly ring: Ring
  readonly watchers: Watchers
  readonly zygote: Zygote
  /** What `exec` takes over: the image's configuration, with the container's own environment, directory and user. */
  readonly config: Config
  /** Descriptors of the container's namespaces, in the order in which they are entered; empty: it has not said them yet. */
  readonly namespaces: number[]
  /** Host pid of the container's PID 1. */
  pid: number
  job: Job | undefined
  readonly unwatch: Set<() => void>
}

type Callbacks = Pick<Job, 'started' | 'ended'>

/** Milliseconds of looking at a ring before sleeping, where there is a second processor to answer on. */
const SPIN_MS = availableParallelism() > 1 ? 0.05 : 0
/** Looks between two looks at the clock. */
const LOOKS = 32
/** Looks at the rings that found something, before everything else gets its turn. */
const BATCH = 64
/** Records of ended containers that are kept. */
const ENDED = 100
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/

export class Runtime {
  readonly running = new Map<string, Running>()
  /** In the order of their start; the newest ended ones are kept. */
  readonly entries = new Map<string, Entry>()
  private readonly jobs = new Map<number, Job>()
  private nextJob = 1
  /** The ring that had work last, until the loop has slept. */
  private hot: Ring | undefined

  private readonly loop: Loop
  private readonly state: string
  readonly audit: Audit
  private readonly networks: Networks

  /** `dns`: name servers for containers; none: the host's. */
  constructor(loop: Loop, state: string, audit: Audit, dns: readonly string[]) {
    this.loop = loop
    this.state = state
    this.audit = audit
    this.networks = new Networks(loop, audit, dns)
    loop.beforeSleep = () => {
      for (let n = 0; n < BATCH; n++) {
        if (this.pollAll() || this.pollHot()) continue
        for (const r of this.running.values()) r.ring.sleep()
        // What was posted between the look and the announcement.
        return this.pollAll()
      }
      return true
    }
    loop.afterSleep = () => { for (const r of this.running.values()) r.ring.awake() }
  }

  /** Answers what is posted; true when there was something. */
  private pollAll(): boolean {
    let work = false
    for (const r of this.running.values()) {
      if (!r.ring.poll()) continue
      work = true
      this.hot = r.ring
    }
    return work
  }

  /** A process that has just been answered often asks again: waking from sleep would cost both sides more than this. */
  private pollHot(): boolean {
    const { hot } = this
    const until = performance.now() + SPIN_MS
    while (hot && performance.now() < until) for (let n = 0; n < LOOKS; n++) if (hot.poll()) return true
    this.hot = undefined
    return false
  }

  /** Starts a container with its first process. Throws VkError; nothing of it is left then. */
  run(q: RunRequest, callbacks: Callbacks): Job {
    if (q.name !== undefined && !NAME.test(q.name)) throw new VkError('VK_ERR_NAME', `${q.name} is no container name: letters, digits, "_", "." and "-"`)
    if (q.name !== undefined && [...this.entries.values()].some((e) => e.name === q.name)) throw new VkError('VK_ERR_NAME', `the name ${q.name} is in use`)
    const zygote = Zygote.of(q.image, this.loop, (e) => this.event(e), (z) => this.zygoteDied(z))
    const id = randomBytes(6).toString('hex')
    const log = q.detached ? join(this.state, 'logs', `${id}.log`) : undefined
    let running: Running | undefined
    const container = new Container({
      id, image: zygote.image, approvals: zygote.approvals, network: this.networks.make(id, zygote.policy),
      upper: join(this.state, 'containers', id), audit: this.audit, hostname: id,
      terminal: q.tty ? q.stdio[0] : undefined,
      onTask: (task) => { if (running) this.watchTask(running, task) },
      follow: (fd, ready) => this.loop.watch(fd, ready),
      onRecord: (nr, bytes) => running?.watchers.record(nr, bytes),
    })
    const { config } = zygote.manifest.predicate
    const stdio = [...q.stdio]
    try {
      mountAll(container, q.mounts)
      if (container.network.backend !== 'none') resolvConf(container)
      publishAll(container, zygote.policy, q.ports)
      const start = prepare(container, config, q)
      if (log) stdio.splice(0, 3, openSync('/dev/null', 'r'), openSync(log, 'a', 0o600), openSync(log, 'a', 0o600))
      const ring = new Ring(container, (task, what) => this.violation(container, task, what), (task) => this.connection(container, task))
      const entry: Entry = { id, name: q.name, image: q.image, startedAt: Date.now(), rm: q.rm || !q.detached, log, result: undefined, waiting: [] }
      running = {
        entry, container, ring, watchers: new Watchers(ring), zygote, pid: 0, namespaces: [], job: undefined, unwatch: new Set(),
        config: { ...config, env: start.env.map(String), cwd: q.cwd || config.cwd, user: q.user || config.user },
      }
      zygote.acquire()
      this.running.set(id, running)
      this.entries.set(id, entry)
      if (q.watcher) running.watchers.add(q.watcher)
      this.watch(running, ring.doorbell, () => { drainEvent(ring.doorbell); return true })
      running.job = this.spawn(running, start, q.tty, stdio, callbacks, { join: [], profile: q.profile })
      return running.job
    } catch (e) {
      if (running) {
        this.entries.delete(id)
        this.destroy(running)
      } else {
        container.destroy()
      }
      throw e
    } finally {
      if (log) for (const fd of stdio) closeSync(fd)
    }
  }

  /** A container by id, the start of an id, or name. */
  find(which: string): Entry {
    const all = [...this.entries.values()]
    const found = all.find((e) => e.id === which || e.name === which) ?? (which.length >= 4 ? all.find((e) => e.id.startsWith(which)) : undefined)
    if (!found) throw new VkError('VK_ERR_NO_CONTAINER', `there is no container ${which}`)
    return found
  }

  findRunning(which: string): Running {
    const r = this.running.get(this.find(which).id)
    if (!r?.pid || r.namespaces.length === 0) throw new VkError('VK_ERR_NO_CONTAINER', `the container ${which} is not running`)
    return r
  }

  /** Starts another process in a running container. */
  exec(which: string, q: StartRequest, stdio: readonly number[], callbacks: Callbacks): Job {
    const r = this.findRunning(which)
    return this.spawn(r, prepare(r.container, r.config, q), q.tty, stdio, callbacks, { join: r.namespaces })
  }

  private spawn(running: Running, start: ReturnType<typeof prepare>, tty: boolean, stdio: readonly number[], callbacks: Callbacks, { join, profile }: { readonly join: readonly number[]; readonly profile?: number | undefined }): Job {
    const { container, ring, zygote } = running
    const { uid, gid, groups } = start.identity
    const [ours, theirs] = addon.seqpacketPair()
    if (ours === undefined || theirs === undefined) throw new VkError('VK_ERR_SPAWN', 'no descriptors for a process')
    const job: Job = { id: this.nextJob++, running, main: join.length === 0, pidfd: -1, doomed: false, ...callbacks }
    const task = container.addTask(ours, start.creds, start.cwd)
    try {
      zygote.request({
        type: join.length === 0 ? 'spawn' : 'join', id: job.id, path: start.path, argv: start.argv, env: start.env, cwd: start.cwd.id, cwdNid: container.vfs.overridden.nid(start.cwd.inode),
        uid, gid, groups, umask: 0o22, hostname: container.hostname, nofile: 1024, tty, task: task.num, network: container.network.backend,
        terminal: tty ? container.terminalNode(stdio[0]!) : 0, profile: profile !== undefined,
      }, [...stdio, theirs, ring.fd, ring.doorbell, container.vfs.overridden.fd, ...join, ...(profile === undefined ? [] : [profile])])
      this.jobs.set(job.id, job)
      return job
    } finally {
      closeSync(theirs)
    }
  }

  /** Follows a descriptor until `ready` says that it has ended. */
  private watch(running: Running, fd: number, ready: () => boolean, ended = (): void => {}): void {
    const stop = this.loop.watch(fd, () => {
      if (ready()) return
      stop()
      running.unwatch.delete(stop)
      ended()
    })
    running.unwatch.add(stop)
  }

  /** Follows a task's connection: its introduction, its children's connections, its end. */
  private watchTask(running: Running, task: Task): void {
    this.watch(running, task.conn, () => this.connection(running.container, task), () => {
      // Its last requests were posted before it ended: they take effect, though nobody reads the answers.
      running.ring.poll()
      running.ring.release(task)
      running.container.removeTask(task)
    })
  }

  /** Reads what a connection holds; false at its end. */
  private connection(container: Container, task: Task): boolean {
    for (;;) {
      const p = addon.receive(task.conn, 16)
      if (p.error) return p.error === -11
      if (p.data.length === 0) {
        for (const fd of p.fds) closeSync(fd)
        return false
      }
      if (this.introduces(container, task, p)) continue
      if (p.pid > 0 && task.hostPid === 0) container.introduced(task, p.pid)
      for (const fd of p.fds) {
        addon.receiveCredentials(fd)
        task.announced.push(fd)
      }
      if (task.announced.length > MAX_ANNOUNCED) {
        this.violation(container, task, 'more children announced than a process may')
        for (const fd of task.announced.splice(0)) closeSync(fd)
        return false
      }
    }
  }

  /**
   * Takes the first packet of a container's first process, sent before there is anything of the guest
   * in it: its namespaces. False: it is not that.
   */
  private introduces(container: Container, task: Task, p: Packet): boolean {
    const r = this.running.get(container.id)
    if (!r || r.namespaces.length > 0 || task.num !== 1 || task.hostPid !== 0 || p.data[0] !== NAMESPACES || p.fds.length === 0) return false
    r.namespaces.push(...p.fds)
    this.networks.joined(container, r.namespaces, r.zygote)
    return true
  }

  private violation(container: Container, task: Task | undefined, what: string): void {
    container.report(task ?? [...container.tasks.values()][0]!, 'protocol', task ? undefined : '', what)
    if (task?.hostPid) try { process.kill(task.hostPid, 'SIGKILL') } catch { /* gone */ }
  }

  private event(e: ZygoteEvent): void {
    const job = this.jobs.get(e.id)
    if (!job) return
    switch (e.type) {
      case 'started':
        job.pidfd = addon.pidfdOpen(e.pid!)
        if (job.main) job.running.pid = e.pid!
        if (job.doomed) this.signal(job, 9)
        job.started(e.pid!)
        return
      case 'failed':
        this.finish(job, { code: 125, error: e.what ?? 'the process could not be set up' })
        return
      case 'exited': {
        const status = e.status!
        const signal = status & 0x7f
        this.finish(job, signal ? { code: 128 + signal, signal } : { code: (status >> 8) & 0xff })
      }
    }
  }

  private finish(job: Job, result: Result): void {
    if (!this.jobs.delete(job.id)) return
    if (job.pidfd >= 0) closeSync(job.pidfd)
    job.pidfd = -1
    if (job.main) {
      this.destroy(job.running)
      this.retire(job.running.entry, result)
    }
    job.ended(result)
  }

  private retire(entry: Entry, result: Result): void {
    entry.result = result
    for (const told of entry.waiting.splice(0)) told(result)
    if (entry.rm) this.remove(entry)
    const ended = [...this.entries.values()].filter((e) => e.result)
    for (const old of ended.slice(0, Math.max(0, ended.length - ENDED))) this.remove(old)
  }

  /** Forgets an ended container. */
  remove(entry: Entry): void {
    if (!entry.result) throw new VkError('VK_ERR_NO_CONTAINER', `the container ${entry.name ?? entry.id} is running; stop it first`)
    this.entries.delete(entry.id)
    if (entry.log) rmSync(entry.log, { force: true })
  }

  private destroy(r: Running): void {
    if (!this.running.delete(r.entry.id)) return
    // The kernel ends every process of the container with its first.
    for (const job of [...this.jobs.values()]) if (job.running === r && !job.main) this.finish(job, { code: 137, signal: 9 })
    for (const stop of r.unwatch) stop()
    r.unwatch.clear()
    r.container.destroy()
    for (const fd of r.namespaces.splice(0)) closeSync(fd)
    if (this.hot === r.ring) this.hot = undefined
    r.watchers.close()
    r.ring.destroy()
    r.zygote.release()
  }

  private zygoteDied(z: Zygote): void {
    for (const job of [...this.jobs.values()]) {
      if (job.running.zygote === z) this.finish(job, { code: 137, signal: 9, error: 'the image\'s zygote ended' })
    }
  }

  signal(job: Job, signo: number): void {
    if (job.pidfd >= 0) addon.pidfdSignal(job.pidfd, signo)
    else if (signo === 9 || signo === 15) job.doomed = true
  }

  /** SIGTERM, after `timeoutMs` SIGKILL; `done` when it has ended. */
  stopContainer(which: string, timeoutMs: number, done: (result: Result) => void): void {
    const entry = this.find(which)
    if (entry.result) return done(entry.result)
    const job = this.running.get(entry.id)?.job
    if (!job) throw new VkError('VK_ERR_NO_CONTAINER', `the container ${which} has not started yet`)
    const kill = setTimeout(() => this.signal(job, 9), timeoutMs)
    entry.waiting.push((result) => { clearTimeout(kill); done(result) })
    this.signal(job, timeoutMs > 0 ? 15 : 9)
  }

  wait(which: string, done: (result: Result) => void): void {
    const entry = this.find(which)
    if (entry.result) done(entry.result)
    else entry.waiting.push(done)
  }

  stop(): void {
    for (const r of [...this.running.values()]) {
      if (r.job) this.signal(r.job, 9)
      this.destroy(r)
    }
    Zygote.stopAll()
  }
}

/** First byte of the packet with a container's namespaces. */
const NAMESPACES = 0x6e
const EVENT = Buffer.alloc(8)

function drainEvent(fd: number): void {
  try { readSync(fd, EVENT, 0, 8, null) } catch { /* EAGAIN: already drained */ }
}
