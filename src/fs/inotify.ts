/**
 * inotify(7) for a container. What happens to names and attributes is told where the daemon does it; what
 * happens to bytes (IN_MODIFY, IN_ACCESS, IN_OPEN, IN_CLOSE_*) happens behind descriptors that guests hold, so
 * the host's inotify tells it: one watch on the upper directory, whose files are named by inode number, and
 * one for each file or directory of a host mount, where the host's kernel tells everything.
 *
 * A guest's descriptor is the read end of a pipe that is readable while events wait; the events themselves
 * are here, and read(2) is a request (loader: notify.rs), so that merging, overflow and partial reads are
 * Linux's. Before anything is told or read the host's queue is drained: events come in the order of their causes.
 */
import { closeSync, readSync, writeSync } from 'node:fs'
import * as E from '../abi/errno.ts'
import { addon } from '../native/addon.ts'
import { isDir, type Dentry, type Inode } from './inode.ts'

export const IN_ACCESS = 0x1, IN_MODIFY = 0x2, IN_ATTRIB = 0x4, IN_CLOSE_WRITE = 0x8, IN_CLOSE_NOWRITE = 0x10, IN_OPEN = 0x20
export const IN_MOVED_FROM = 0x40, IN_MOVED_TO = 0x80, IN_CREATE = 0x100, IN_DELETE = 0x200, IN_DELETE_SELF = 0x400, IN_MOVE_SELF = 0x800
export const IN_ALL_EVENTS = 0xfff
const IN_Q_OVERFLOW = 0x4000, IN_IGNORED = 0x8000, IN_ISDIR = 0x4000_0000
export const IN_ONLYDIR = 0x0100_0000, IN_DONT_FOLLOW = 0x0200_0000, IN_MASK_CREATE = 0x1000_0000, IN_MASK_ADD = 0x2000_0000, IN_ONESHOT = 0x8000_0000
/** What the host tells of a file of the upper directory. */
const DATA = IN_ACCESS | IN_MODIFY | IN_CLOSE_WRITE | IN_CLOSE_NOWRITE | IN_OPEN

/** /proc/sys/fs/inotify, as Linux has them by default. */
const MAX_QUEUED = 16_384, MAX_INSTANCES = 128, MAX_WATCHES = 65_536

interface Watch {
  readonly instance: Instance
  readonly wd: number
  readonly inode: Inode
  mask: number
}

interface Event { readonly wd: number; readonly mask: number; readonly cookie: number; readonly name: string }

/** Calls `ready` whenever a descriptor is readable, or nobody reads what is written to it; returns how to stop that. */
export type Follow = (fd: number, ready: () => void) => () => void

/** struct inotify_event and its name, padded to the structure's size. */
function encode(e: Event): Buffer {
  const b = Buffer.alloc(sizeOf(e))
  b.writeInt32LE(e.wd, 0)
  b.writeUInt32LE(e.mask >>> 0, 4)
  b.writeUInt32LE(e.cookie, 8)
  b.writeUInt32LE(b.length - 16, 12)
  b.write(e.name, 16, 'latin1')
  return b
}

const sizeOf = (e: Event): number => 16 + (e.name === '' ? 0 : (e.name.length + 16) & ~15)

const BYTE = Buffer.from('!')

/** What the host tells, read and looked at at once. */
const EVENTS = Buffer.alloc(65_536)

/** What one inotify_init1 made. */
export class Instance {
  readonly watches = new Map<number, Watch>()
  nextWd = 1
  private readonly queue: Event[] = []
  private readonly pipe: number

  /** `pipe`: the write end, which does not block. */
  constructor(pipe: number) {
    this.pipe = pipe
  }

  push(e: Event): void {
    const last = this.queue.at(-1)
    if (last && last.wd === e.wd && last.mask === e.mask && last.cookie === e.cookie && last.name === e.name) return
    if (this.queue.length > MAX_QUEUED) return
    this.queue.push(this.queue.length === MAX_QUEUED ? { wd: -1, mask: IN_Q_OVERFLOW, cookie: 0, name: '' } : e)
    // A byte an event: an edge-triggered epoll sees each.
    try { writeSync(this.pipe, BYTE) } catch { /* full: it is readable */ }
  }

  /** Whole events of at most `room` bytes. Errors: EAGAIN: none; EINVAL: the first does not fit. */
  read(room: number): Buffer | E.Errno {
    const out: Buffer[] = []
    let left = room
    for (let e = this.queue[0]; e && sizeOf(e) <= left; e = this.queue[0]) {
      out.push(encode(e))
      left -= sizeOf(e)
      this.queue.shift()
    }
    if (this.queue.length === 0) addon.drainPipe(this.pipe)
    if (out.length > 0) return Buffer.concat(out)
    return this.queue.length > 0 ? -E.EINVAL : -E.EAGAIN
  }

  get bytes(): number {
    return this.queue.reduce((n, e) => n + sizeOf(e), 0)
  }

  close(): void {
    closeSync(this.pipe)
  }
}

export class Inotify {
  private readonly instances = new Map<Instance, () => void>()
  private readonly watched = new Map<Inode, Set<Watch>>()
  private count = 0
  private cookie = 1
  /** The host's instance; −1: nothing was watched yet. */
  private host = -1
  private stopHost = (): void => {}
  private upperWd = -1
  private upperMask = 0
  /** Watches of host mounts, and files whose end the host tells, by the host's number. */
  private readonly hostWatches = new Map<number, Inode>()
  private readonly hostNumbers = new Map<Inode, number>()
  /** Files of the upper directory by inode number; undefined: nobody watches it. */
  private readonly files = new Map<number, Inode | undefined>()

  private readonly upper: string
  private readonly follow: Follow

  constructor(upper: string, follow: Follow) {
    this.upper = upper
    this.follow = follow
  }

  /** A new instance and the descriptor for the guest. Errors: EMFILE, ENFILE. */
  create(nonblock: boolean): { instance: Instance; fd: number } | E.Errno {
    if (this.instances.size >= MAX_INSTANCES) return -E.EMFILE
    const [read, write] = addon.pipe(nonblock)
    if (read === undefined || write === undefined) return -E.EMFILE
    const instance = new Instance(write)
    // Readable is not what a write end gets: it is told when the last reader is gone.
    this.instances.set(instance, this.follow(write, () => this.close(instance)))
    return { instance, fd: read }
  }

  private close(instance: Instance): void {
    this.instances.get(instance)?.()
    if (!this.instances.delete(instance)) return
    for (const w of instance.watches.values()) this.forget(w)
    instance.close()
  }

  destroy(): void {
    for (const i of [...this.instances.keys()]) this.close(i)
    this.stopHost()
    if (this.host >= 0) closeSync(this.host)
    this.host = -1
  }

  /** inotify_add_watch(2): the watch's number. Errors: EEXIST, ENOSPC, and the host's. */
  add(instance: Instance, d: Dentry, mask: number): number {
    this.drain()
    const { inode } = d
    const events = mask & (IN_ALL_EVENTS | IN_ONESHOT)
    const old = [...this.watched.get(inode) ?? []].find((w) => w.instance === instance)
    if (old && mask & IN_MASK_CREATE) return -E.EEXIST
    if (!old && this.count >= MAX_WATCHES) return -E.ENOSPC
    const w = old ?? { instance, wd: instance.nextWd, inode, mask: 0 }
    const before = w.mask
    w.mask = mask & IN_MASK_ADD ? w.mask | events : events
    const r = this.tellHost(d, w)
    if (r < 0) {
      w.mask = before
      return r
    }
    if (!old) {
      instance.nextWd++
      this.count++
      instance.watches.set(w.wd, w)
      const all = this.watched.get(inode)
      if (all) all.add(w)
      else this.watched.set(inode, new Set([w]))
    }
    this.files.clear()
    return w.wd
  }

  /** Has the host tell what the daemon does not see. */
  private tellHost(d: Dentry, w: Watch): number {
    if (this.host < 0) {
      this.host = addon.inotifyInit()
      if (this.host < 0) return this.host
      this.stopHost = this.follow(this.host, () => this.drain())
    }
    if (d.inode.fs.host) {
      const n = d.inode.fs.host.watch(d, this.host, (w.mask & IN_ALL_EVENTS) | IN_MASK_ADD)
      if (n < 0) return n
      this.hostWatches.set(n, d.inode)
      this.hostNumbers.set(d.inode, n)
      return 0
    }
    const data = w.mask & DATA & ~this.upperMask
    if (data === 0) return 0
    const n = addon.inotifyAdd(this.host, Buffer.from(this.upper), this.upperMask | data)
    if (n < 0) return n
    this.upperWd = n
    this.upperMask |= data
    return 0
  }

  /** inotify_rm_watch(2). Errors: EINVAL. */
  remove(instance: Instance, wd: number): E.Errno {
    this.drain()
    const w = instance.watches.get(wd)
    if (!w) return -E.EINVAL
    this.end(w)
    return 0
  }

  /** The watch is gone, and its instance is told so. */
  private end(w: Watch): void {
    this.forget(w)
    w.instance.push({ wd: w.wd, mask: IN_IGNORED, cookie: 0, name: '' })
  }

  private forget(w: Watch): void {
    if (!w.instance.watches.delete(w.wd)) return
    this.count--
    const all = this.watched.get(w.inode)
    all?.delete(w)
    if (all?.size !== 0) return
    this.watched.delete(w.inode)
    const n = this.hostNumbers.get(w.inode)
    if (n !== undefined) {
      this.hostNumbers.delete(w.inode)
      this.hostWatches.delete(n)
      addon.inotifyRemove(this.host, n)
    }
    if (this.watched.size === 0 && this.upperWd >= 0) {
      addon.inotifyRemove(this.host, this.upperWd)
      this.upperWd = -1
      this.upperMask = 0
    }
  }

  read(instance: Instance, room: number): Buffer | E.Errno {
    this.drain()
    return instance.read(room)
  }

  /** FIONREAD. */
  waiting(instance: Instance): number {
    this.drain()
    return instance.bytes
  }

  private send(inode: Inode, mask: number, cookie: number, name: string): void {
    for (const w of [...this.watched.get(inode) ?? []]) {
      if (!(w.mask & mask & IN_ALL_EVENTS)) continue
      w.instance.push({ wd: w.wd, mask, cookie, name })
      if (w.mask & IN_ONESHOT) this.end(w)
    }
  }

  /** Something happened to what `d` names: its directory's watches hear the name. */
  private both(d: Dentry, mask: number): void {
    const bits = isDir(d.inode) ? mask | IN_ISDIR : mask
    if (!d.deleted && d.parent !== d) this.send(d.parent.inode, bits, 0, d.name)
    this.send(d.inode, bits, 0, '')
  }

  /** Whether anybody wants to hear of names that the daemon changes; then what came before is told first. */
  private heard(i: Inode): boolean {
    if (this.watched.size === 0 || i.fs.host) return false
    this.drain()
    return true
  }

  created(d: Dentry): void {
    if (!this.heard(d.inode)) return
    this.files.clear()
    this.send(d.parent.inode, IN_CREATE | (isDir(d.inode) ? IN_ISDIR : 0), 0, d.name)
  }

  linked(d: Dentry): void {
    if (!this.heard(d.inode)) return
    this.send(d.inode, IN_ATTRIB, 0, '')
    this.created(d)
  }

  attributes(d: Dentry): void {
    if (this.heard(d.inode)) this.both(d, IN_ATTRIB)
  }

  /** A name is about to go. `contents`: the host's file that goes with it. `replaced`: another takes its place. */
  removing(d: Dentry, contents: string | undefined, replaced: boolean): void {
    const { inode } = d
    if (!this.heard(inode)) return
    const dir = isDir(inode)
    if (!dir) this.send(inode, IN_ATTRIB, 0, '')
    if (!replaced) this.send(d.parent.inode, IN_DELETE | (dir ? IN_ISDIR : 0), 0, d.name)
    if (!this.watched.has(inode) || (!dir && inode.nlink > 1)) return
    // Its end is when nobody has it open any more, which the host knows.
    const n = contents === undefined ? -1 : addon.inotifyAdd(this.host, Buffer.from(contents), IN_DELETE_SELF)
    if (n < 0) return this.gone(inode)
    this.hostWatches.set(n, inode)
  }

  private gone(inode: Inode): void {
    this.send(inode, IN_DELETE_SELF, 0, '')
    for (const w of [...this.watched.get(inode) ?? []]) this.end(w)
  }

  moved(d: Dentry, from: Dentry, name: string): void {
    if (!this.heard(d.inode)) return
    this.files.clear()
    const bits = isDir(d.inode) ? IN_ISDIR : 0
    const cookie = this.cookie++ >>> 0
    this.send(from.inode, IN_MOVED_FROM | bits, cookie, name)
    this.send(d.parent.inode, IN_MOVED_TO | bits, cookie, d.name)
    this.send(d.inode, IN_MOVE_SELF, 0, '')
  }

  /** Takes what the host has told. */
  private drain(): void {
    if (this.host < 0) return
    for (;;) {
      let n: number
      try {
        n = readSync(this.host, EVENTS)
      } catch {
        return
      }
      for (let at = 0; at + 16 <= n;) {
        const len = EVENTS.readUInt32LE(at + 12)
        const name = EVENTS.toString('latin1', at + 16, at + 16 + len).split('\0', 1)[0]!
        this.told(EVENTS.readInt32LE(at), EVENTS.readUInt32LE(at + 4), EVENTS.readUInt32LE(at + 8), name)
        at += 16 + len
      }
    }
  }

  private told(wd: number, mask: number, cookie: number, name: string): void {
    if (mask & IN_Q_OVERFLOW) {
      for (const i of this.instances.keys()) i.push({ wd: -1, mask: IN_Q_OVERFLOW, cookie: 0, name: '' })
      return
    }
    if (wd === this.upperWd) {
      const i = this.file(Number(name))
      if (i && mask & DATA) this.both(i.at!, mask & DATA)
      return
    }
    const inode = this.hostWatches.get(wd)
    if (!inode) return
    if (!inode.fs.host) {
      this.hostWatches.delete(wd)
      this.gone(inode)
    } else if (mask & IN_IGNORED) {
      this.hostWatches.delete(wd)
      this.hostNumbers.delete(inode)
      for (const w of [...this.watched.get(inode) ?? []]) this.end(w)
    } else {
      this.send(inode, mask, cookie, name)
    }
  }

  /** The inode of this number, when it or its directory is watched; it has the name it was found at. */
  private file(ino: number): Inode | undefined {
    if (this.files.has(ino)) return this.files.get(ino)
    let found: Inode | undefined
    for (const i of this.watched.keys()) {
      if (i.ino === ino && i.at) found = i
      for (const d of i.fs.host ? [] : i.children?.values() ?? []) {
        if (d.inode.ino !== ino) continue
        found = d.inode
        if (!found.at || found.at.deleted) found.at = d
      }
      if (found) break
    }
    this.files.set(ino, found)
    return found
  }
}
