/** Running containers: makes them, answers their rings, ends them. */
import { closeSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { randomBytes } from 'node:crypto'
import { addon } from '../native/addon.ts'
import type { Audit } from '../policy/audit.ts'
import { Container, type Task } from '../task/container.ts'
import { VkError } from './errors.ts'
import type { Loop } from './loop.ts'
import { Ring } from './ring.ts'
import { Zygote, type ZygoteEvent } from './zygote.ts'

export interface RunRequest {
  readonly image: string
  readonly path: string
  readonly argv: readonly Buffer[]
  readonly env: readonly Buffer[]
  readonly cwd: string
  readonly user: string
  readonly tty: boolean
  /** stdin, stdout, stderr. */
  readonly stdio: readonly number[]
}

/** One process that a client asked for. */
export interface Job {
  readonly id: number
  readonly running: Running
  readonly main: boolean
  pid: number
  started: (pid: number) => void
  ended: (result: { code: number; signal?: number; error?: string }) => void
}

export interface Running {
  readonly container: Container
  readonly ring: Ring
  readonly zygote: Zygote
  readonly image: string
  readonly startedAt: number
  /** Host pid of the container's PID 1. */
  pid: number
  readonly unwatch: (() => void)[]
}

export class Runtime {
  readonly running = new Map<string, Running>()
  private readonly jobs = new Map<number, Job>()
  private nextJob = 1

  private readonly loop: Loop
  private readonly state: string
  readonly audit: Audit

  constructor(loop: Loop, state: string, audit: Audit) {
    this.loop = loop
    this.state = state
    this.audit = audit
    loop.beforeSleep = () => {
      let work = false
      for (const r of this.running.values()) {
        if (r.ring.poll()) work = true
      }
      if (work) return true
      for (const r of this.running.values()) r.ring.sleep()
      // What was posted between the look and the announcement.
      for (const r of this.running.values()) if (r.ring.poll()) work = true
      return work
    }
    loop.afterSleep = () => { for (const r of this.running.values()) r.ring.awake() }
  }

  /** Starts a container with its first process. */
  run(q: RunRequest, callbacks: Pick<Job, 'started' | 'ended'>): Job {
    const zygote = Zygote.of(q.image, this.loop, (e) => this.event(e), (z) => this.zygoteDied(z))
    const id = randomBytes(6).toString('hex')
    const { policy, programs } = zygote.manifest.predicate
    let running: Running | undefined
    const container = new Container({
      id, image: zygote.image, rules: { exec: policy.exec, programs, elfIndex: zygote.elfIndex },
      upper: join(this.state, 'containers', id), audit: this.audit, hostname: id,
      onTask: (task) => { if (running) this.watchTask(running, task) },
    })
    const ring = new Ring(container, (task, what) => this.violation(container, task, what), (task) => this.connection(container, task))
    running = { container, ring, zygote, image: q.image, startedAt: Date.now(), pid: 0, unwatch: [] }
    this.running.set(id, running)
    running.unwatch.push(this.loop.watch(ring.doorbell, () => { drainEvent(ring.doorbell) }))
    return this.spawn(running, q, callbacks, undefined)
  }

  /** Starts another process in a running container. */
  exec(containerId: string, q: RunRequest, callbacks: Pick<Job, 'started' | 'ended'>): Job {
    const running = this.running.get(containerId) ?? [...this.running.values()].find((r) => r.container.id.startsWith(containerId))
    if (!running || !running.pid) throw new VkError('VK_ERR_NO_CONTAINER', `no container ${containerId} is running`)
    return this.spawn(running, q, callbacks, running.pid)
  }

  private spawn(running: Running, q: RunRequest, callbacks: Pick<Job, 'started' | 'ended'>, joinPid: number | undefined): Job {
    const { container, ring, zygote } = running
    const [uid, gid] = q.user.split(':').map(Number)
    const ids = { uid: uid || 0, gid: gid ?? (uid || 0) }
    const [ours, theirs] = addon.seqpacketPair()
    const tty = q.tty ? addon.duplicate(q.stdio[0]!) : -1
    const cwd = container.directory(q.cwd)
    const task = container.addTask(ours!, { uid: [ids.uid, ids.uid, ids.uid], gid: [ids.gid, ids.gid, ids.gid], groups: [ids.gid] }, cwd, tty)
    const job: Job = { id: this.nextJob++, running, main: joinPid === undefined, pid: 0, ...callbacks }
    this.jobs.set(job.id, job)
    const fds = [...q.stdio, theirs!, ring.fd, ring.doorbell]
    const pidfd = joinPid === undefined ? -1 : addon.pidfdOpen(joinPid)
    if (joinPid !== undefined) fds.push(pidfd)
    const sent = zygote.request({
      type: joinPid === undefined ? 'spawn' : 'join', id: job.id, path: Buffer.from(q.path), argv: q.argv, env: q.env, cwd: cwd.id,
      uid: ids.uid, gid: ids.gid, groups: [ids.gid], umask: 0o22, hostname: container.hostname, nofile: 1024, tty: q.tty, task: task.num,
    }, fds)
    closeSync(theirs!)
    if (pidfd >= 0) closeSync(pidfd)
    if (!sent) {
      this.finish(job, { code: 125, error: 'the zygote does not take requests' })
    }
    return job
  }

  /** Follows a task's connection: its introduction, its children's connections, its end. */
  private watchTask(running: Running, task: Task): void {
    const stop = this.loop.watch(task.conn, () => {
      if (!this.connection(running.container, task)) {
        stop()
        running.ring.release(task)
        running.container.removeTask(task)
      }
    })
    running.unwatch.push(stop)
  }

  /** Reads what a connection holds; false at its end. */
  private connection(container: Container, task: Task): boolean {
    for (;;) {
      const p = addon.receive(task.conn, 16)
      if (p.error) return p.error === -11
      if (p.data.length === 0) return false
      if (p.pid > 0 && task.hostPid === 0) container.introduced(task, p.pid)
      for (const fd of p.fds) {
        addon.receiveCredentials(fd)
        task.announced.push(fd)
      }
    }
  }

  private violation(container: Container, task: Task | undefined, what: string): void {
    this.audit.record({ container: container.id, event: 'protocol', decision: 'denied', rule: what })
    if (task?.hostPid) try { process.kill(task.hostPid, 'SIGKILL') } catch { /* gone */ }
  }

  private event(e: ZygoteEvent): void {
    const job = this.jobs.get(e.id)
    if (!job) return
    switch (e.type) {
      case 'started':
        job.pid = e.pid!
        if (job.main) job.running.pid = e.pid!
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

  private finish(job: Job, result: { code: number; signal?: number; error?: string }): void {
    if (!this.jobs.delete(job.id)) return
    // The ring may hold requests of processes that are gone: nothing of them is answered any more.
    if (job.main) this.destroy(job.running)
    job.ended(result)
  }

  private destroy(r: Running): void {
    if (!this.running.delete(r.container.id)) return
    for (const job of [...this.jobs.values()]) if (job.running === r && !job.main) this.finish(job, { code: 137, signal: 9 })
    for (const stop of r.unwatch) stop()
    r.container.destroy()
    r.ring.destroy()
  }

  private zygoteDied(z: Zygote): void {
    for (const job of [...this.jobs.values()]) {
      if (job.running.zygote === z) this.finish(job, { code: 137, signal: 9, error: 'the image\'s zygote ended' })
    }
  }

  signal(job: Job, signo: number): void {
    if (job.pid) try { process.kill(job.pid, signo) } catch { /* it has ended */ }
  }

  stop(): void {
    for (const r of [...this.running.values()]) {
      if (r.pid) try { process.kill(r.pid, 'SIGKILL') } catch { /* gone */ }
      this.destroy(r)
    }
    Zygote.stopAll()
  }
}

const EVENT = Buffer.alloc(8)

function drainEvent(fd: number): void {
  try { readSync(fd, EVENT, 0, 8, null) } catch { /* EAGAIN: already drained */ }
}
