/** Names and metadata: decode, check in Linux's order, change the tree. */
import { readlinkSync, statSync, statfsSync, truncateSync } from 'node:fs'
import * as E from '../abi/errno.ts'
import * as F from '../abi/fcntl.ts'
import { isDir, now, pathOf, type Dentry, type Inode, type Time } from '../fs/inode.ts'
import { may, resolve, walk } from '../fs/path.ts'
import { listing, writeDirents, writeStat, writeStatfs, writeStatx } from '../fs/stat.ts'
import { addon } from '../native/addon.ts'
import type { Call, Handler } from './handler.ts'
import { groupOf, openat } from './open.ts'

/** The dentry that (dirfd node, path, flags) name; an empty path is the node itself when allowed. */
function target(call: Call, dirArg: number, pathArg: number, flags: number, follow: boolean): Dentry | E.Errno {
  const at = call.node(dirArg)
  if (typeof at === 'number') return at
  const path = call.text(pathArg)
  if (path === '') return flags & F.AT_EMPTY_PATH ? at : -E.ENOENT
  return resolve(call.task.container.vfs, at, path, follow, call.task.creds)
}

/** As `target`, with the working directory in args[5] (calls without a dirfd). */
function fromCwd(call: Call, pathArg: number, follow = true): Dentry | E.Errno {
  const at = call.node(5)
  if (typeof at === 'number') return at
  return resolve(call.task.container.vfs, at, call.text(pathArg), follow, call.task.creds)
}

const root = (call: Call): boolean => call.task.creds.uid[1] === 0
const owns = (call: Call, i: Inode): boolean => root(call) || i.uid === call.task.creds.uid[1]

/** A descriptor of the guest's own behind /proc/self/fd/N, as far as the host tells. */
function statInode(call: Call, i: Inode, follow: boolean): Buffer | E.Errno {
  const { vfs } = call.task.container
  if (i.special?.kind === 'fd' && follow) {
    try {
      const st = statSync(`/proc/${call.task.hostPid}/fd/${i.special.fd}`)
      return writeStat(vfs, { ...i, mode: st.mode, uid: 0, gid: 0, ino: st.ino, rdev: st.rdev, nlink: 1 })
    } catch {
      return writeStat(vfs, { ...i, mode: F.S_IFIFO | 0o600, nlink: 1 })
    }
  }
  return writeStat(vfs, i)
}

const newfstatat: Handler = (call) => {
  const flags = call.int(3)
  const follow = !(flags & F.AT_SYMLINK_NOFOLLOW)
  const d = target(call, 0, 1, flags, follow)
  if (typeof d === 'number') return d
  const b = statInode(call, d.inode, follow)
  if (typeof b === 'number') return b
  call.out(2, b)
  return 0
}

const fstat: Handler = (call) => {
  const d = call.node(0)
  if (typeof d === 'number') return d
  call.out(1, writeStat(call.task.container.vfs, d.inode))
  return 0
}

const statx: Handler = (call) => {
  const flags = call.int(2)
  const d = target(call, 0, 1, flags, !(flags & F.AT_SYMLINK_NOFOLLOW))
  if (typeof d === 'number') return d
  call.out(4, writeStatx(call.task.container.vfs, d.inode))
  return 0
}

const faccessat2: Handler = (call) => {
  const mode = call.int(2), flags = call.int(3)
  if (mode & ~7) return -E.EINVAL
  const d = target(call, 0, 1, flags, !(flags & F.AT_SYMLINK_NOFOLLOW))
  if (typeof d === 'number') return d
  return mode === 0 || may(d.inode, mode, call.task.creds, !(flags & F.AT_EACCESS)) ? 0 : -E.EACCES
}

const readlinkat: Handler = (call) => {
  const d = target(call, 0, 1, F.AT_EMPTY_PATH, false)
  if (typeof d === 'number') return d
  const i = d.inode
  if ((i.mode & F.S_IFMT) !== F.S_IFLNK) return -E.EINVAL
  const special = i.special
  let text = i.target ?? ''
  if (special?.kind === 'link') {
    const node = special.node?.()
    text = node ? pathOf(node) : special.target()
  } else if (special?.kind === 'fd') {
    try {
      text = readlinkSync(`/proc/${call.task.hostPid}/fd/${special.fd}`, { encoding: 'latin1' })
    } catch {
      text = `pipe:[${special.fd}]`
    }
  }
  const p = call.place(2)
  if (!p || p.len === 0) return -E.EINVAL
  return call.out(2, Buffer.from(text, 'latin1'))
}

const getcwd: Handler = (call) => {
  // The working directory travels in no argument: it is the task's.
  const d = call.task.cwd
  if (d.deleted) return -E.ENOENT
  const text = Buffer.from(pathOf(d) + '\0', 'latin1')
  const p = call.place(0)
  if (!p || p.len < text.length) return -E.ERANGE
  return call.out(0, text)
}

const chdir: Handler = (call) => {
  const d = fromCwd(call, 0)
  if (typeof d === 'number') return d
  return enter(call, d)
}

const fchdir: Handler = (call) => {
  const d = call.node(0)
  if (typeof d === 'number') return d
  const r = enter(call, d)
  return r < 0 ? r : 0
}

function enter(call: Call, d: Dentry): number {
  if (!isDir(d.inode)) return -E.ENOTDIR
  if (!may(d.inode, F.X_OK, call.task.creds)) return -E.EACCES
  call.task.cwd = d
  return d.id
}

/** The directory and free name for a new entry. */
function vacant(call: Call, dirArg: number, pathArg: number, dirs: boolean): { dir: Dentry; name: string } | E.Errno {
  const at = call.node(dirArg)
  if (typeof at === 'number') return at
  const f = walk(call.task.container.vfs, at, call.text(pathArg), false, call.task.creds)
  if (typeof f === 'number') return f
  if (f.node) return -E.EEXIST
  if (f.slash && !dirs) return -E.ENOENT
  if (f.dir.deleted) return -E.ENOENT
  if (f.dir.inode.special || f.dir.inode.fs === 'proc') return -E.EPERM
  if (!may(f.dir.inode, F.W_OK | F.X_OK, call.task.creds)) return -E.EACCES
  return { dir: f.dir, name: f.name }
}

function create(call: Call, where: { dir: Dentry; name: string }, mode: number, more: Partial<Inode> = {}): number {
  const { vfs } = call.task.container
  const c = call.task.creds
  const parent = where.dir.inode
  const inode = vfs.newInode(mode, c.uid[1], groupOf(parent, c.gid[1]), parent.fs)
  if (isDir(inode) && parent.mode & F.S_ISGID) inode.mode |= F.S_ISGID
  Object.assign(inode, more)
  vfs.link(where.dir, where.name, inode)
  return 0
}

const mkdirat: Handler = (call) => {
  const where = vacant(call, 0, 1, true)
  if (typeof where === 'number') return where
  return create(call, where, F.S_IFDIR | (call.int(2) & 0o1777))
}

const mknodat: Handler = (call) => {
  const mode = call.int(2)
  const type = mode & F.S_IFMT || F.S_IFREG
  const where = vacant(call, 0, 1, false)
  if (typeof where === 'number') return where
  const { vfs } = call.task.container
  const c = call.task.creds
  if (type !== F.S_IFREG && type !== F.S_IFIFO) return -E.EPERM
  const inode = vfs.newInode(type | (mode & 0o7777), c.uid[1], groupOf(where.dir.inode, c.gid[1]), where.dir.inode.fs)
  if (type === F.S_IFIFO) {
    const host = vfs.upperPath(inode)
    const r = addon.makeFifo(Buffer.from(host), 0o600)
    if (r < 0) return r
    inode.special = { kind: 'fifo', host }
  } else {
    const r = vfs.createContents(inode)
    if (r < 0) return r
  }
  vfs.link(where.dir, where.name, inode)
  return 0
}

const symlinkat: Handler = (call) => {
  const text = call.text(0)
  if (text === '') return -E.ENOENT
  const where = vacant(call, 1, 2, false)
  if (typeof where === 'number') return where
  return create(call, where, F.S_IFLNK | 0o777, { target: text })
}

const linkat: Handler = (call) => {
  const flags = call.int(4)
  const d = target(call, 0, 1, flags, (flags & F.AT_SYMLINK_FOLLOW) !== 0)
  if (typeof d === 'number') return d
  const where = vacant(call, 2, 3, false)
  if (typeof where === 'number') return where
  if (isDir(d.inode)) return -E.EPERM
  if (d.inode.fs !== where.dir.inode.fs) return -E.EXDEV
  if (d.inode.nlink <= 0) return -E.ENOENT
  d.inode.nlink++
  d.inode.ctime = now()
  call.task.container.vfs.link(where.dir, where.name, d.inode)
  return 0
}

/** May `name` be taken out of `dir`: write permission, and the sticky bit's rule. */
function mayRemove(call: Call, dir: Dentry, node: Dentry): E.Errno {
  if (!may(dir.inode, F.W_OK | F.X_OK, call.task.creds)) return -E.EACCES
  if (dir.inode.fs === 'proc') return -E.EPERM
  const sticky = (dir.inode.mode & F.S_ISVTX) !== 0
  return sticky && !owns(call, node.inode) && !owns(call, dir.inode) ? -E.EPERM : 0
}

const unlinkat: Handler = (call) => {
  const { vfs } = call.task.container
  const flags = call.int(2)
  if (flags & ~F.AT_REMOVEDIR) return -E.EINVAL
  const at = call.node(0)
  if (typeof at === 'number') return at
  const f = walk(vfs, at, call.text(1), false, call.task.creds)
  if (typeof f === 'number') return f
  if (!f.node) return -E.ENOENT
  const rmdir = (flags & F.AT_REMOVEDIR) !== 0
  if (f.name === '.') {
    const last = call.text(1).split('/').filter(Boolean).at(-1)
    if (!rmdir) return -E.EISDIR
    return last === '.' ? -E.EINVAL : last === '..' ? -E.ENOTEMPTY : -E.EBUSY
  }
  const r = mayRemove(call, f.dir, f.node)
  if (r < 0) return r
  if (rmdir) {
    if (!isDir(f.node.inode)) return -E.ENOTDIR
    if (f.node.inode.fs !== f.dir.inode.fs) return -E.EBUSY
    if (!vfs.isEmpty(f.node)) return -E.ENOTEMPTY
  } else if (isDir(f.node.inode)) {
    return -E.EISDIR
  }
  vfs.unlink(f.node)
  return 0
}

const renameat2: Handler = (call) => {
  const { vfs } = call.task.container
  const flags = call.int(4)
  if (flags & ~(F.RENAME_NOREPLACE | F.RENAME_EXCHANGE) || flags === 3) return -E.EINVAL
  const [a, b] = [call.node(0), call.node(2)]
  if (typeof a === 'number') return a
  if (typeof b === 'number') return b
  const from = walk(vfs, a, call.text(1), false, call.task.creds)
  if (typeof from === 'number') return from
  const to = walk(vfs, b, call.text(3), false, call.task.creds)
  if (typeof to === 'number') return to
  if (from.name === '.' || to.name === '.') return -E.EBUSY
  if (!from.node) return -E.ENOENT
  if (to.dir.deleted) return -E.ENOENT
  if (from.dir.inode.fs !== to.dir.inode.fs || to.dir.inode.special) return -E.EXDEV
  const denied = mayRemove(call, from.dir, from.node) || (to.node ? mayRemove(call, to.dir, to.node) : may(to.dir.inode, F.W_OK | F.X_OK, call.task.creds) ? 0 : -E.EACCES)
  if (denied) return denied
  const under = (d: Dentry, top: Dentry): boolean => {
    for (let at = d; ; at = at.parent) {
      if (at === top) return true
      if (at.parent === at) return false
    }
  }
  if (isDir(from.node.inode) && under(to.dir, from.node)) return -E.EINVAL
  if (to.slash && !isDir(from.node.inode)) return -E.ENOTDIR
  if (flags & F.RENAME_EXCHANGE) {
    if (!to.node) return -E.ENOENT
    const [x, y] = [from.node, to.node]
    vfs.rename(x, to.dir, to.name)
    vfs.rename(y, from.dir, from.name)
    to.dir.inode.children!.set(to.name, x)
    return 0
  }
  if (to.node) {
    if (flags & F.RENAME_NOREPLACE) return -E.EEXIST
    if (to.node.inode === from.node.inode) return 0
    if (isDir(to.node.inode)) {
      if (!isDir(from.node.inode)) return -E.EISDIR
      if (under(from.dir, to.node)) return -E.ENOTEMPTY
      if (!vfs.isEmpty(to.node)) return -E.ENOTEMPTY
    } else if (isDir(from.node.inode)) {
      return -E.ENOTDIR
    }
    vfs.unlink(to.node)
  }
  vfs.rename(from.node, to.dir, to.name)
  return 0
}

function setMode(call: Call, i: Inode, mode: number): number {
  if (!owns(call, i)) return -E.EPERM
  if (i.fs === 'proc') return -E.EPERM
  i.mode = (i.mode & F.S_IFMT) | (mode & 0o7777)
  i.ctime = now()
  return 0
}

const fchmodat: Handler = (call) => {
  const d = target(call, 0, 1, 0, true)
  return typeof d === 'number' ? d : setMode(call, d.inode, call.int(2))
}

const fchmod: Handler = (call) => {
  const d = call.node(0)
  return typeof d === 'number' ? d : setMode(call, d.inode, call.int(1))
}

function setOwner(call: Call, i: Inode, uid: number, gid: number): number {
  const c = call.task.creds
  if (!root(call)) {
    if (i.uid !== c.uid[1] || (uid !== -1 && uid !== i.uid)) return -E.EPERM
    if (gid !== -1 && gid !== c.gid[1] && !c.groups.includes(gid)) return -E.EPERM
  }
  if (uid !== -1) i.uid = uid >>> 0
  if (gid !== -1) i.gid = gid >>> 0
  if (!isDir(i) && i.mode & 0o111) i.mode &= ~(F.S_ISUID | F.S_ISGID)
  i.ctime = now()
  return 0
}

const fchownat: Handler = (call) => {
  const flags = call.int(4)
  const d = target(call, 0, 1, flags, !(flags & F.AT_SYMLINK_NOFOLLOW))
  return typeof d === 'number' ? d : setOwner(call, d.inode, call.int(2), call.int(3))
}

const fchown: Handler = (call) => {
  const d = call.node(0)
  return typeof d === 'number' ? d : setOwner(call, d.inode, call.int(1), call.int(2))
}

const utimensat: Handler = (call) => {
  const flags = call.int(3)
  const d = target(call, 0, 1, F.AT_EMPTY_PATH, !(flags & F.AT_SYMLINK_NOFOLLOW))
  if (typeof d === 'number') return d
  const given = call.bytes(2)
  const i = d.inode
  const pick = (at: number, old: Time): Time | E.Errno => {
    if (!given) return now()
    const nsec = Number(given.readBigInt64LE(at + 8))
    if (nsec === F.UTIME_NOW) return now()
    if (nsec === F.UTIME_OMIT) return old
    if (nsec < 0 || nsec > 999_999_999) return -E.EINVAL
    return { sec: Number(given.readBigInt64LE(at)), nsec }
  }
  const host = call.task.container.vfs.hostStat(i)
  const old = (ns: bigint | undefined, t: Time): Time => (ns === undefined ? t : { sec: Number(ns / 1_000_000_000n), nsec: Number(ns % 1_000_000_000n) })
  const atime = pick(0, old(host?.atimeNs, i.atime)), mtime = pick(16, old(host?.mtimeNs, i.mtime))
  if (typeof atime === 'number') return atime
  if (typeof mtime === 'number') return mtime
  const explicit = given !== undefined && !(Number(given.readBigInt64LE(8)) === F.UTIME_NOW && Number(given.readBigInt64LE(24)) === F.UTIME_NOW)
  if (!owns(call, i) && (explicit || !may(i, F.W_OK, call.task.creds))) return explicit ? -E.EPERM : -E.EACCES
  i.atime = atime
  i.mtime = mtime
  i.ctime = now()
  const b = i.backing
  if (b && b.kind !== 'image') return addon.setTimes(Buffer.from(b.path), [atime.sec, atime.nsec, mtime.sec, mtime.nsec])
  return 0
}

const truncate: Handler = (call) => {
  const { vfs } = call.task.container
  const d = fromCwd(call, 0)
  if (typeof d === 'number') return d
  if (isDir(d.inode)) return -E.EISDIR
  if (!vfs.isRegular(d.inode)) return -E.EINVAL
  if (!may(d.inode, F.W_OK, call.task.creds)) return -E.EACCES
  const length = call.long(1)
  if (length < 0) return -E.EINVAL
  const r = vfs.copyUp(d.inode, length === 0)
  if (r < 0) return r
  const b = d.inode.backing
  if (!b || b.kind === 'image') return -E.EINVAL
  try {
    truncateSync(b.path, length)
  } catch (e) {
    return E.errnoOf(e)
  }
  return 0
}

const statfsOf = (call: Call, i: Inode, outArg: number): number => {
  call.out(outArg, writeStatfs(i, statfsSync(call.task.container.vfs.upper)))
  return 0
}

const statfs: Handler = (call) => {
  const d = fromCwd(call, 0)
  return typeof d === 'number' ? d : statfsOf(call, d.inode, 1)
}

const fstatfs: Handler = (call) => {
  const d = call.node(0)
  return typeof d === 'number' ? d : statfsOf(call, d.inode, 1)
}

const getdents64: Handler = (call) => {
  const d = call.node(0)
  if (typeof d === 'number') return d
  if (!isDir(d.inode)) return -E.ENOTDIR
  if (d.deleted) return 0
  const all = writeDirents(d, listing(call.task.container.vfs, d))
  if (all.length <= 65_536) {
    call.write(0, all)
    return all.length
  }
  const fd = addon.memoryFile(all, true)
  if (fd < 0) return fd
  call.fds.push(fd)
  return 0
}

/** No extended attributes yet: none are there, and none can be set. */
const none: Handler = () => -E.ENODATA
const empty: Handler = () => 0
const unsupported: Handler = () => -E.EOPNOTSUPP

const memfdCreate: Handler = (call) => {
  const fd = addon.guestMemfd(call.text(0), call.int(1) & 3)
  if (fd < 0) return fd
  call.fds.push(fd)
  const grant = Buffer.alloc(40)
  grant.writeUInt32LE(1, 0)
  call.write(0, grant)
  return 0
}

export const handlers: Record<string, Handler> = {
  openat, newfstatat, fstat, statx, faccessat2, readlinkat, getcwd, chdir, fchdir, mkdirat, mknodat, symlinkat, linkat,
  unlinkat, renameat2, fchmodat, fchmod, fchownat, fchown, utimensat, truncate, statfs, fstatfs, getdents64,
  memfd_create: memfdCreate,
  getxattr: none, lgetxattr: none, fgetxattr: none, listxattr: empty, llistxattr: empty, flistxattr: empty,
  setxattr: unsupported, lsetxattr: unsupported, fsetxattr: unsupported, removexattr: none, lremovexattr: none, fremovexattr: none,
}
