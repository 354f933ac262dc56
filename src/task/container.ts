/** A container and its tasks (guest processes), as the daemon knows them. */
import { closeSync, readFileSync } from 'node:fs'
import { mountDev, mountDir } from '../fs/devfs.ts'
import type { ImageFs } from '../fs/imagefs.ts'
import { isDir, type Dentry } from '../fs/inode.ts'
import type { Creds } from '../fs/path.ts'
import { mountProc, type ProcTask } from '../fs/procfs.ts'
import { Vfs } from '../fs/vfs.ts'
import type { Audit } from '../policy/audit.ts'
import { Gate, type GateRules } from '../policy/gate.ts'

/** A guest process. */
export interface Task {
  readonly num: number
  /** The daemon's end of its connection. */
  readonly conn: number
  readonly container: Container
  creds: Creds
  hostPid: number
  guestPid: number
  exe?: Dentry
  cwd: Dentry
  argv0: string
  /** Connection of a child that was announced and not yet numbered. */
  announced: number[]
  /** Descriptor of the terminal, for /dev/tty; −1: none. */
  readonly tty: number
}

export interface ContainerOptions {
  readonly id: string
  readonly image: ImageFs
  readonly rules: GateRules
  readonly upper: string
  readonly audit: Audit
  readonly hostname: string
  /** A new task's connection wants to be followed. */
  readonly onTask: (task: Task) => void
}

export class Container {
  readonly id: string
  readonly vfs: Vfs
  readonly gate: Gate
  readonly audit: Audit
  readonly hostname: string
  readonly tasks = new Map<number, Task>()
  /** The task whose call is being answered: what /proc/self means. */
  current: Task | undefined
  private nextTask = 1
  private readonly onTask: (task: Task) => void

  constructor(o: ContainerOptions) {
    this.id = o.id
    this.audit = o.audit
    this.hostname = o.hostname
    this.onTask = o.onTask
    this.vfs = new Vfs(o.image, o.upper)
    this.gate = new Gate(o.rules, o.audit, o.id)
    mountDev(this.vfs)
    mountProc(this.vfs, this.procSource(), (name, mode) => mountDir(this.vfs, this.vfs.root, name, mode, 'proc'))
  }

  private procSource(): Parameters<typeof mountProc>[1] {
    const view = (t: Task): ProcTask => ({
      hostPid: t.hostPid, guestPid: t.guestPid,
      exe: () => t.exe, cwd: () => t.cwd, cmdline: () => `${t.argv0}\0`,
    })
    return {
      hostname: this.hostname,
      current: () => this.current && view(this.current),
      tasks: () => [...this.tasks.values()].filter((t) => t.guestPid > 0).sort((a, b) => a.guestPid - b.guestPid).map(view),
      mounts: () => 'overlay / overlay rw,relatime 0 0\nproc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n'
        + 'tmpfs /dev tmpfs rw,nosuid,noexec 0 0\ntmpfs /dev/shm tmpfs rw,nosuid,nodev 0 0\n',
    }
  }

  addTask(conn: number, creds: Creds, cwd: Dentry, tty: number, parent?: Task): Task {
    const task: Task = {
      num: this.nextTask++, conn, container: this, creds, hostPid: 0, guestPid: 0, cwd, argv0: parent?.argv0 ?? '', announced: [], tty,
      ...(parent?.exe ? { exe: parent.exe } : {}),
    }
    this.tasks.set(task.num, task)
    this.onTask(task)
    return task
  }

  /** The process behind a task has said who it is. */
  introduced(task: Task, hostPid: number): void {
    task.hostPid = hostPid
    try {
      const line = /^NSpid:\s+(.*)$/m.exec(readFileSync(`/proc/${hostPid}/status`, 'latin1'))?.[1]
      task.guestPid = Number(line?.split(/\s+/).at(-1) ?? 0)
    } catch { /* it is gone already */ }
  }

  removeTask(task: Task): void {
    this.tasks.delete(task.num)
    for (const fd of [task.conn, ...task.announced]) closeSync(fd)
  }

  /** The directory a new process starts in, made when missing, as docker does. */
  directory(path: string): Dentry {
    let at = this.vfs.root
    for (const part of path.split('/').filter(Boolean)) {
      let next = this.vfs.child(at, part)
      if (!next) next = this.vfs.link(at, part, this.vfs.newInode(0o040755, 0, 0))
      if (!isDir(next.inode)) break
      at = next
    }
    return at
  }

  destroy(): void {
    for (const task of [...this.tasks.values()]) this.removeTask(task)
    this.vfs.destroy()
  }
}
