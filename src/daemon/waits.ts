/**
 * Who waits on what, in words (`recompiler ps --wait`): the call that each thread says it is in, and what
 * the host's /proc says of the other side of it: the owner of a lock, the ends of a pipe, the children.
 * An ordinary user's daemon may not look at its guests' descriptors; then those parts are missing.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { pathOf } from '../fs/inode.ts'
import { innerId } from '../fs/procfs.ts'
import { entryOf } from '../syscalls/table/index.ts'
import type { Container, Task } from '../task/container.ts'
import type { Doing, Ring } from './ring.ts'

export interface Wait {
  readonly container: string
  readonly pid: number
  readonly tid: number
  readonly program: string
  /** Field 3 of the thread's stat (proc(5)). */
  readonly state: string
  /** Of the call it is in; −1: none, or not known. */
  readonly nr: number
  readonly args: readonly bigint[]
  /** Why it waits, in words. */
  readonly on: string
}

interface HostThread { readonly tid: number; readonly state: string }

const read = (path: string): string => {
  try { return readFileSync(path, 'latin1') } catch { return '' }
}
const list = (path: string): string[] => {
  try { return readdirSync(path) } catch { return [] }
}
const link = (path: string): string => {
  try { return readlinkSync(path) } catch { return '' }
}
const stat = (path: string): string[] => {
  const raw = read(path)
  return raw.slice(raw.lastIndexOf(')') + 2).split(' ')
}

/** Threads of a process by their number in the container. */
function threadsOf(hostPid: number): HostThread[] {
  return list(`/proc/${hostPid}/task`).flatMap((host) => {
    const at = `/proc/${hostPid}/task/${host}`
    const tid = innerId(read(`${at}/status`))
    return tid > 0 ? [{ tid, state: stat(`${at}/stat`)[0] ?? '?' }] : []
  })
}

/** The descriptors of the container's other processes that are the other end of `what`. */
function ends(container: Container, what: string, write: boolean): string {
  const found = new Set<string>()
  for (const t of container.tasks.values()) {
    for (const fd of list(`/proc/${t.hostPid}/fd`)) {
      if (link(`/proc/${t.hostPid}/fd/${fd}`) !== what) continue
      const flags = parseInt(/^flags:\s+(\d+)/m.exec(read(`/proc/${t.hostPid}/fdinfo/${fd}`))?.[1] ?? '0', 8)
      if ((flags & 3) === (write ? 1 : 0) || (flags & 3) === 2) found.add(String(t.guestPid))
    }
  }
  return [...found].join(', ')
}

/** What a descriptor is, and who has its other end. */
function descriptor(container: Container, task: Task, fd: number, writes: boolean): string {
  const what = link(`/proc/${task.hostPid}/fd/${fd}`)
  if (what === '') return `descriptor ${fd}`
  if (!what.startsWith('pipe:')) return `descriptor ${fd}, ${container.plainFd(task, fd)}`
  const others = ends(container, what, !writes)
  const end = writes ? 'read' : 'write'
  return `descriptor ${fd}, ${what}, whose ${end} end ${others === '' ? 'no process of the container has' : `is open in ${others}`}`
}

const FUTEX = ['wait', 'wake', 'fd', 'requeue', 'cmp_requeue', 'wake_op', 'lock_pi', 'unlock_pi', 'trylock_pi', 'wait', 'wake', 'wait_requeue_pi', 'cmp_requeue_pi', 'lock_pi']

function futex(d: Doing, tids: ReadonlyMap<number, Task>): string {
  const op = FUTEX[Number(d.args[1]! & 0x7fn)] ?? '?'
  const at = `futex at 0x${d.args[0]!.toString(16)}`
  const pi = op === 'lock_pi' || op === 'wait_requeue_pi'
  // A word that holds the owner (PI, robust), or the owner beside a contended lock (pthread_mutex_t of glibc and musl).
  const owner = pi ? d.word & 0x3fff_ffff : d.word === 2 || (d.word & 0xc000_0000) !== 0 ? (d.word === 2 ? d.owner : d.word & 0x3fff_ffff) : 0
  const task = owner > 0 ? tids.get(owner) : undefined
  if (task) return `${at}: a lock that thread ${owner} of process ${task.guestPid} holds`
  if (owner > 0) return `${at}: a lock whose owner, thread ${owner}, is gone`
  return `${at} (word was ${d.word})`
}

function children(container: Container, task: Task): string {
  const found = [...container.tasks.values()].filter((t) => Number(stat(`/proc/${t.hostPid}/stat`)[1]) === task.hostPid)
  return found.length === 0 ? 'a child; none is running' : `its children: ${found.map((t) => `${t.guestPid} (${program(t)})`).join(', ')}`
}

/** Who holds what a thread waits for in /proc/locks (proc(5)): "N: -> FLOCK …" lines name the waiter below the holder. */
function lock(container: Container, hostPid: number): string {
  const lines = read('/proc/locks').split('\n')
  const waiting = lines.find((l) => / -> /.test(l) && Number(l.split(/\s+/)[5]) === hostPid)
  const id = waiting?.split(':')[0]
  const holder = Number(lines.find((l) => id !== undefined && l.startsWith(`${id}: `) && !/ -> /.test(l))?.split(/\s+/)[4] ?? 0)
  const task = [...container.tasks.values()].find((t) => t.hostPid === holder)
  return task ? `a file lock that process ${task.guestPid} (${program(task)}) holds` : 'a file lock'
}

const program = (t: Task): string => (t.exe ? pathOf(t.exe) : '')

const READS = new Set(['read', 'readv', 'pread64', 'recvfrom', 'recvmsg', 'recvmmsg', 'accept', 'accept4', 'splice', 'sendfile', 'tee'])
const WRITES = new Set(['write', 'writev', 'pwrite64', 'sendto', 'sendmsg', 'sendmmsg', 'connect', 'vmsplice'])

function reason(container: Container, task: Task, d: Doing, tids: ReadonlyMap<number, Task>): string {
  const entry = entryOf(d.nr)
  const name = entry?.name ?? ''
  const arg = (n: number): number => Number(BigInt.asIntN(32, d.args[n]!))
  if (name === 'futex') return futex(d, tids)
  if (READS.has(name)) return descriptor(container, task, arg(0), false)
  if (WRITES.has(name)) return descriptor(container, task, arg(0), true)
  if (name === 'wait4' || name === 'waitid') return children(container, task)
  if (name === 'vfork' || name === 'clone' || name === 'clone3') return `a child's execve or end; ${children(container, task)}`
  if (name === 'flock' || name === 'fcntl') return lock(container, task.hostPid)
  if (/^epoll/.test(name)) return `events of epoll descriptor ${arg(0)}`
  if (/poll$|select/.test(name)) return 'events of descriptors'
  if (/nanosleep$/.test(name)) return 'time'
  if (/^rt_sig|^pause$/.test(name)) return 'a signal'
  if (entry?.class === 'mediated' || entry?.class === 'image') return 'the daemon\'s answer'
  return ''
}

/** Every thread of a container, and what it waits on. */
export function waitsOf(container: Container, ring: Ring): Wait[] {
  const doing = new Map(ring.threads().map((d) => [`${d.task}.${d.tid}`, d]))
  const tasks = [...container.tasks.values()].filter((t) => t.guestPid > 0).sort((a, b) => a.guestPid - b.guestPid)
  const threads = tasks.map((t) => ({ task: t, threads: threadsOf(t.hostPid) }))
  const tids = new Map(threads.flatMap((t) => t.threads.map((h) => [h.tid, t.task] as const)))
  return threads.flatMap(({ task, threads }) => threads.map((h): Wait => {
    const d = doing.get(`${task.num}.${h.tid}`)
    const waits = d !== undefined && d.nr >= 0 && h.state !== 'R'
    return {
      container: container.id, pid: task.guestPid, tid: h.tid, program: program(task), state: h.state,
      nr: waits ? d.nr : -1, args: waits ? [...d.args] : [],
      on: waits ? reason(container, task, d, tids) : h.state === 'R' ? 'runs' : h.state === 'T' ? 'stopped by a signal' : '',
    }
  }))
}
