/** A container and its tasks (guest processes), as the daemon knows them. */
import { closeSync, readFileSync, readlinkSync } from 'node:fs'
import { mountDev } from '../fs/devfs.ts'
import type { ImageFs } from '../fs/imagefs.ts'
import type { Follow } from '../fs/inotify.ts'
import { isDir, pathOf, type Dentry, type Inode } from '../fs/inode.ts'
import { ROOT, walk, type Creds } from '../fs/path.ts'
import { innerId, mountProc, type ProcTask } from '../fs/procfs.ts'
import { Ptys, type Pty } from '../fs/ptys.ts'
import { mountSys } from '../fs/sysfs.ts'
import { Vfs } from '../fs/vfs.ts'
import type { Network } from '../net/network.ts'
import type { Audit, AuditEvent } from '../policy/audit.ts'
import { Gate, type Approvals } from '../policy/gate.ts'

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
  /** NUL-terminated strings, for /proc/PID/cmdline and environ. */
  argv: Buffer
  env: Buffer
  /** Connection of a child that was announced and not yet numbered. */
  announced: number[]
}

export interface ContainerOptions {
  readonly id: string
  readonly image: ImageFs
  readonly approvals: Approvals
  readonly network: Network
  readonly upper: string
  readonly audit: Audit
  readonly hostname: string
  /** Standard input of a container that is started with a terminal. */
  readonly terminal: number | undefined
  /** A new task's connection wants to be followed. */
  readonly onTask: (task: Task) => void
  /** Follows a descriptor of the container's own. */
  readonly follow: Follow
  /** A record of a call (docs/abi.md), for who watches. */
  readonly onRecord: (nr: number, bytes: Buffer) => void
}

/** Announced children that are not numbered yet: more is a violation. */
export const MAX_ANNOUNCED = 64
const MAX_REPORTED = 10_000
const NONE = Buffer.alloc(0)

export class Container {
  readonly id: string
  readonly vfs: Vfs
  readonly gate: Gate
  readonly network: Network
  readonly hostname: string
  readonly ptys = new Ptys()
  /** The terminal it was started with. */
  readonly terminal: Pty | undefined
  readonly tasks = new Map<number, Task>()
  /** Named AF_UNIX sockets by inode number. */
  readonly sockets = new Map<number, Inode>()
  /** The task whose call is being answered: what /proc/self means. */
  current: Task | undefined
  private nextTask = 1
  private readonly audit: Audit
  private readonly onTask: (task: Task) => void
  readonly onRecord: (nr: number, bytes: Buffer) => void
  /** Processes that have ended and are not waited for yet, by guest pid. */
  private readonly zombies = new Map<number, { task: Task; start: string }>()
  private readonly reported = new Set<string>()
  private readonly views = new WeakMap<Task, ProcTask>()

  constructor(o: ContainerOptions) {
    this.id = o.id
    this.audit = o.audit
    this.hostname = o.hostname
    this.onTask = o.onTask
    this.onRecord = o.onRecord
    this.network = o.network
    this.vfs = new Vfs(o.image, o.upper, o.follow)
    this.gate = new Gate(o.approvals, o.audit, o.id)
    this.terminal = o.terminal === undefined ? undefined : this.ptys.adopt(o.terminal, 0)
    mountDev(this.vfs, this.ptys, this.terminal !== undefined)
    mountProc(this.vfs, {
      hostname: this.hostname,
      current: () => this.current && this.view(this.current),
      tasks: () => this.visible(),
      terminal: (hostIndex) => this.ptys.ofHost(hostIndex)?.index,
      descriptor: (t, fd) => this.descriptor(t.hostPid, fd),
    })
    mountSys(this.vfs)
  }

  /** What procfs sees of a task, now and later. */
  private view(t: Task): ProcTask {
    let v = this.views.get(t)
    if (!v) {
      v = {
        get hostPid() { return t.hostPid }, get guestPid() { return t.guestPid }, get creds() { return t.creds },
        get exe() { return t.exe }, get cwd() { return t.cwd }, get cmdline() { return t.argv }, get environ() { return t.env },
      }
      this.views.set(t, v)
    }
    return v
  }

  /** Processes by guest pid: the running ones, and those whose parent has not waited yet. */
  private visible(): ProcTask[] {
    for (const [pid, z] of this.zombies) if (startOf(z.task.hostPid) !== z.start) this.zombies.delete(pid)
    return [...[...this.tasks.values()].filter((t) => t.guestPid > 0), ...[...this.zombies.values()].map((z) => z.task)]
      .sort((a, b) => a.guestPid - b.guestPid).map((t) => this.view(t))
  }

  addTask(conn: number, creds: Creds, cwd: Dentry, parent?: Task): Task {
    const task: Task = {
      num: this.nextTask++, conn, container: this, creds, hostPid: 0, guestPid: 0, cwd, announced: [],
      argv: parent?.argv ?? NONE, env: parent?.env ?? NONE, ...(parent?.exe ? { exe: parent.exe } : {}),
    }
    this.tasks.set(task.num, task)
    this.onTask(task)
    return task
  }

  /** The process behind a task has said who it is. */
  introduced(task: Task, hostPid: number): void {
    task.hostPid = hostPid
    try {
      task.guestPid = innerId(readFileSync(`/proc/${hostPid}/status`, 'utf8'))
    } catch { /* it is gone already */ }
  }

  removeTask(task: Task): void {
    this.tasks.delete(task.num)
    for (const fd of [task.conn, ...task.announced]) closeSync(fd)
    const start = task.guestPid > 0 ? startOf(task.hostPid) : undefined
    if (start !== undefined) this.zombies.set(task.guestPid, { task, start })
  }

  /** The program a task runs, for the audit log. */
  programOf(task: Task): string {
    return task.exe ? pathOf(task.exe) : ''
  }

  record(event: Omit<AuditEvent, 'container'>): void {
    this.audit.record({ container: this.id, ...event })
  }

  /** Records something once a program. */
  report(task: Task, event: AuditEvent['event'], path: string | undefined, rule: string): void {
    const program = path ?? this.programOf(task)
    const key = `${program}\0${rule}`
    if (this.reported.has(key) || this.reported.size >= MAX_REPORTED) return
    this.reported.add(key)
    this.record({ event, decision: event === 'instruction' || path !== undefined ? 'reported' : 'denied', path: program, rule })
  }

  /** The controlling terminal of a process: field 7 of its stat (proc(5)). */
  controllingTerminal(task: Task): Pty | undefined {
    try {
      const raw = readFileSync(`/proc/${task.hostPid}/stat`, 'utf8')
      const nr = Number(raw.slice(raw.lastIndexOf(')') + 2).split(' ')[4])
      const major = (nr >> 8) & 0xfff, minor = (nr & 0xff) | ((nr >> 12) & 0xfff00)
      return major >= 136 && major <= 143 ? this.ptys.ofHost(((major - 136) << 20) | minor) : undefined
    } catch {
      return undefined
    }
  }

  /** What a descriptor of a process that is no file of the container's shows as a link. */
  private descriptor(hostPid: number, fd: number): string {
    let text: string
    try {
      text = readlinkSync(`/proc/${hostPid}/fd/${fd}`)
    } catch {
      return `pipe:[${fd}]`
    }
    if (/^(pipe|socket|anon_inode):|^\/memfd:|^\/dev\/(null|zero|full|random|urandom)$/.test(text)) return text
    const tty = /^\/dev\/pts\/(\d+)$/.exec(text)
    const pty = tty && this.ptys.ofHost(Number(tty[1]))
    if (pty) return `/dev/pts/${pty.index}`
    // A file of the host, which standard input or output was redirected to: its name is the host's own.
    return `host:[${fd}]`
  }

  /** Node of /dev/pts/N for a client's terminal; 0: it is none. */
  terminalNode(fd: number): number {
    const pty = this.ptys.adopt(fd, 0)
    const pts = pty && walk(this.vfs, this.vfs.root, `/dev/pts/${pty.index}`, true, ROOT)
    return typeof pts === 'object' ? pts.node?.id ?? 0 : 0
  }

  plainFd(task: Task, fd: number): string {
    return this.descriptor(task.hostPid, fd)
  }

  /** The directory a new process starts in, made when missing, as docker does. Errors: undefined when the path is none. */
  directory(path: string): Dentry | undefined {
    const d = this.vfs.makePath(path)
    return typeof d === 'number' || !isDir(d.inode) ? undefined : d
  }

  destroy(): void {
    for (const task of [...this.tasks.values()]) this.removeTask(task)
    this.network.destroy()
    this.ptys.destroy()
    this.vfs.destroy()
  }
}

/** Start time of a process (proc(5) stat field 22), which tells it from a later one of its number. As utf8, which Node
 *  reads without a buffer of 64 KiB. */
function startOf(hostPid: number): string | undefined {
  try {
    const raw = readFileSync(`/proc/${hostPid}/stat`, 'utf8')
    return raw.slice(raw.lastIndexOf(')') + 2).split(' ')[19]
  } catch {
    return undefined
  }
}
