/**
 * A directory or file of the host that a mount puts into a container (-v HOST:GUEST[:ro]).
 *
 * The host path is opened once, when the mount is made. From there on every access starts at that
 * descriptor: openat2(2) with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS on the
 * names that the container's own path walk has resolved, so neither "..", a link, nor a rename by
 * another process leads out. Symbolic links are read here and followed in the guest's tree.
 * Nothing is cached between two looks but the dentry: the host may change the directory at any time.
 */
import { chmodSync, closeSync, fstatSync, ftruncateSync, openSync, readdirSync, statfsSync, type BigIntStats, type StatsFs } from 'node:fs'
import * as E from '../abi/errno.ts'
import * as F from '../abi/fcntl.ts'
import { addon } from '../native/addon.ts'
import { isDir, type Dentry, type FileSystem, type Inode, type Time } from './inode.ts'

const bytes = (text: string): Buffer => Buffer.from(text, 'latin1')
const time = (ns: bigint): Time => ({ sec: Number(ns / 1_000_000_000n), nsec: Number(ns % 1_000_000_000n) })
const OVERFLOW_ID = 65_534

/** Ids of the host as the container sees them: a daemon that is not root knows only its own user, which is the guest's root. */
const rootless = process.getuid!() !== 0
const mapped = (id: bigint, own: number): number => (!rootless ? Number(id) : Number(id) === own ? 0 : OVERFLOW_ID)

export class HostFs {
  /** O_PATH descriptor of what is mounted. */
  private readonly fd: number
  /** Dentry that it is mounted at; set by the mounter. */
  root!: Dentry

  constructor(path: string) {
    // O_PATH: nothing of a device or FIFO is opened.
    this.fd = openSync(path, F.O_PATH | F.O_CLOEXEC)
  }

  close(): void {
    closeSync(this.fd)
  }

  /** Names from the mount's root to `d`. */
  private path(d: Dentry): string {
    const parts: string[] = []
    for (let at = d; at !== this.root; at = at.parent) parts.push(at.name)
    return parts.reverse().join('/')
  }

  /** Opens what `d` names; never follows a link. */
  private openPath(path: string, flags: number, mode = 0): number {
    return path === '' ? addon.reopen(this.fd, flags & ~F.O_NOFOLLOW) : addon.openBeneath(this.fd, bytes(path), flags | F.O_NOFOLLOW, mode)
  }

  /** Calls `use` with an O_PATH descriptor of `d`, or answers why not. */
  private on<T>(d: Dentry, use: (fd: number) => T): T | E.Errno {
    return this.onPath(this.path(d), use)
  }

  private onPath<T>(path: string, use: (fd: number) => T): T | E.Errno {
    const fd = path === '' ? this.fd : this.openPath(path, F.O_PATH)
    if (fd < 0) return fd
    try {
      return use(fd)
    } catch (e) {
      return E.errnoOf(e)
    } finally {
      if (fd !== this.fd) closeSync(fd)
    }
  }

  /** The inode that the host shows for `d`; `old` is brought up to date when it still is the same file. */
  private toInode(st: BigIntStats, fd: number, fs: FileSystem, at: Dentry | undefined, old: Inode | undefined): Inode {
    const facts = {
      mode: Number(st.mode), uid: mapped(st.uid, process.getuid!()), gid: mapped(st.gid, process.getgid!()), nlink: Number(st.nlink),
      rdev: Number(st.rdev), atime: time(st.atimeNs), mtime: time(st.mtimeNs), ctime: time(st.ctimeNs),
    }
    const ino = Number(BigInt.asUintN(52, st.ino))
    const same = old && old.ino === ino && (old.mode & F.S_IFMT) === (facts.mode & F.S_IFMT)
    const inode: Inode = same ? Object.assign(old, facts) : { ino, ...facts, fs, ...(at ? { at } : {}) }
    if (isDir(inode)) inode.children ??= new Map()
    if ((inode.mode & F.S_IFMT) === F.S_IFLNK) inode.target = addon.readlinkFd(fd).toString('latin1')
    return inode
  }

  /** What is mounted, as an inode. */
  mounted(fs: FileSystem): Inode {
    return this.toInode(fstatSync(this.fd, { bigint: true }), this.fd, fs, undefined, undefined)
  }

  /** Looks a name up. Errors: undefined, for whatever the host does not show. */
  lookup(dir: Dentry, name: string, old: Inode | undefined): Inode | undefined {
    const at = this.path(dir)
    const r = this.onPath(at === '' ? name : `${at}/${name}`, (fd) => this.toInode(fstatSync(fd, { bigint: true }), fd, dir.inode.fs, old?.at, old))
    return typeof r === 'number' ? undefined : r
  }

  stat(d: Dentry): BigIntStats | undefined {
    const r = this.on(d, (fd) => fstatSync(fd, { bigint: true }))
    return typeof r === 'number' ? undefined : r
  }

  /** Has the host's inotify instance tell what happens to `d`; the watch's number. */
  watch(d: Dentry, inotify: number, mask: number): number {
    const r = this.on(d, (fd) => addon.inotifyAdd(inotify, Buffer.from(`/proc/self/fd/${fd}`), mask))
    return r
  }

  names(dir: Dentry): string[] {
    const fd = this.openPath(this.path(dir), F.O_RDONLY | F.O_DIRECTORY)
    if (fd < 0) return []
    try {
      return readdirSync(`/proc/self/fd/${fd}`, { encoding: 'latin1' })
    } catch {
      return []
    } finally {
      closeSync(fd)
    }
  }

  statfs(): StatsFs {
    return statfsSync(`/proc/self/fd/${this.fd}`)
  }

  /** A descriptor for the guest; regular files and FIFOs only, so nothing of the host's devices is reached. */
  open(d: Dentry, flags: number): number {
    const path = this.path(d)
    // Between the look and the open the host may have put something else there: O_NONBLOCK, then look.
    const fd = this.openPath(path, (flags & ~(F.O_CREAT | F.O_EXCL | F.O_TRUNC)) | F.O_NONBLOCK)
    if (fd < 0) return fd
    const st = fstatSync(fd)
    const keep = st.isFile() || st.isFIFO()
    if (!keep) {
      closeSync(fd)
      return -E.EACCES
    }
    try {
      if (flags & F.O_TRUNC && st.isFile()) ftruncateSync(fd, 0)
    } catch (e) {
      closeSync(fd)
      return E.errnoOf(e)
    }
    if (st.isFIFO() || flags & F.O_NONBLOCK) return fd
    // The guest did not ask for O_NONBLOCK: a second open of the same file, through the descriptor.
    const again = addon.reopen(fd, flags & ~(F.O_CREAT | F.O_EXCL | F.O_TRUNC | F.O_NOFOLLOW))
    closeSync(fd)
    return again
  }

  /** Makes a file, directory, FIFO or symbolic link; the new name belongs to the guest's ids where the daemon can give it away. */
  make(dir: Dentry, name: string, mode: number, uid: number, gid: number, target: string): E.Errno {
    const type = mode & F.S_IFMT, perm = mode & 0o7777
    const at = this.openPath(this.path(dir), F.O_RDONLY | F.O_DIRECTORY)
    if (at < 0) return at
    try {
      const n = bytes(name)
      let r: number
      if (type === F.S_IFDIR) r = addon.mkdirAt(at, n, perm)
      else if (type === F.S_IFLNK) r = addon.symlinkAt(bytes(target), at, n)
      else if (type === F.S_IFIFO) r = addon.fifoAt(at, n, perm)
      else {
        r = addon.openBeneath(at, n, F.O_CREAT | F.O_EXCL | F.O_WRONLY | F.O_NOFOLLOW, perm)
        if (r >= 0) closeSync(r)
      }
      if (r < 0) return r
      const made = addon.openBeneath(at, n, F.O_PATH | F.O_NOFOLLOW, 0)
      if (made < 0) return 0
      try {
        // The daemon's umask does not apply to guests.
        if (!rootless) addon.chownFd(made, uid, gid)
        if (type !== F.S_IFLNK) chmodSync(`/proc/self/fd/${made}`, perm)
      } catch { /* taken away meanwhile: it was made, which is what was asked */ } finally {
        closeSync(made)
      }
      return 0
    } finally {
      closeSync(at)
    }
  }

  private inParent(d: Dentry, use: (at: number) => number): number {
    const at = this.openPath(this.path(d), F.O_RDONLY | F.O_DIRECTORY)
    if (at < 0) return at
    const r = use(at)
    closeSync(at)
    return r
  }

  unlink(d: Dentry): E.Errno {
    return this.inParent(d.parent, (at) => addon.unlinkAt(at, bytes(d.name), isDir(d.inode) ? F.AT_REMOVEDIR : 0))
  }

  rename(d: Dentry, dir: Dentry, name: string, flags: number): E.Errno {
    return this.inParent(d.parent, (from) => this.inParent(dir, (to) => addon.renameAt(from, bytes(d.name), to, bytes(name), flags)))
  }

  link(d: Dentry, dir: Dentry, name: string): E.Errno {
    return this.inParent(d.parent, (from) => this.inParent(dir, (to) => addon.linkAt(from, bytes(d.name), to, bytes(name))))
  }

  chmod(d: Dentry, mode: number): E.Errno {
    return this.on(d, (fd) => { chmodSync(`/proc/self/fd/${fd}`, mode & 0o7777); return 0 })
  }

  chown(d: Dentry, uid: number, gid: number): E.Errno {
    if (!rootless) return this.on(d, (fd) => addon.chownFd(fd, uid, gid))
    // One user of the host: a change that changes nothing is all it can make.
    return (uid === -1 || uid === d.inode.uid) && (gid === -1 || gid === d.inode.gid) ? 0 : -E.EPERM
  }

  setTimes(d: Dentry, atime: Time, mtime: Time): E.Errno {
    return this.on(d, (fd) => addon.timesFd(fd, [atime.sec, atime.nsec, mtime.sec, mtime.nsec]))
  }

  truncate(d: Dentry, length: number): E.Errno {
    const fd = this.openPath(this.path(d), F.O_WRONLY | F.O_NONBLOCK)
    if (fd < 0) return fd
    try {
      ftruncateSync(fd, length)
      return 0
    } catch (e) {
      return E.errnoOf(e)
    } finally {
      closeSync(fd)
    }
  }
}
