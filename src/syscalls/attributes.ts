/** Metadata of files: stat, links' text, modes, owners, times, lengths, extended attributes. */
import { statSync, statfsSync, truncateSync } from 'node:fs'
import * as E from '../abi/errno.ts'
import * as F from '../abi/fcntl.ts'
import { FD_LINK } from '../abi/ring.ts'
import { isDir, now, pathOf, type Dentry, type Inode, type Time } from '../fs/inode.ts'
import { may, writable } from '../fs/path.ts'
import { writeStat, writeStatfs, writeStatx } from '../fs/stat.ts'
import { addon } from '../native/addon.ts'
import type { Call, Handler } from './handler.ts'
import { fromCwd, owns, root, target } from './target.ts'

/** A descriptor of the guest's own behind /proc/self/fd/N, as far as the host tells. */
function statInode(call: Call, i: Inode, follow: boolean): Buffer {
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
  if (flags & ~(F.AT_SYMLINK_NOFOLLOW | F.AT_NO_AUTOMOUNT | F.AT_EMPTY_PATH | F.AT_STATX_SYNC_TYPE)) return -E.EINVAL
  const follow = !(flags & F.AT_SYMLINK_NOFOLLOW)
  const d = target(call, 0, 1, flags, follow)
  if (typeof d === 'number') return d
  call.out(2, statInode(call, d.inode, follow))
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
  if (flags & ~(F.AT_SYMLINK_NOFOLLOW | F.AT_NO_AUTOMOUNT | F.AT_EMPTY_PATH | F.AT_STATX_SYNC_TYPE)) return -E.EINVAL
  if ((flags & F.AT_STATX_SYNC_TYPE) === F.AT_STATX_SYNC_TYPE || call.int(3) < 0) return -E.EINVAL
  const d = target(call, 0, 1, flags, !(flags & F.AT_SYMLINK_NOFOLLOW))
  if (typeof d === 'number') return d
  call.out(4, writeStatx(call.task.container.vfs, d.inode))
  return 0
}

const faccessat2: Handler = (call) => {
  const mode = call.int(2), flags = call.int(3)
  if (mode & ~7 || flags & ~(F.AT_EACCESS | F.AT_SYMLINK_NOFOLLOW | F.AT_EMPTY_PATH)) return -E.EINVAL
  const d = target(call, 0, 1, flags, !(flags & F.AT_SYMLINK_NOFOLLOW))
  if (typeof d === 'number') return d
  if (mode !== 0 && !may(d.inode, mode, call.task.creds, !(flags & F.AT_EACCESS))) return -E.EACCES
  const special = [F.S_IFCHR, F.S_IFBLK, F.S_IFIFO, F.S_IFSOCK].includes(d.inode.mode & F.S_IFMT)
  return mode & F.W_OK && !special && !writable(d) ? -E.EROFS : 0
}

/**
 * readlinkat; `args[4]`, the loader's own: 1: the path of the node itself, 2: what the host shows for
 * the plain descriptor `args[0]`. /proc/self/fd/N answers FD_LINK + N, and the loader asks again.
 */
const readlinkat: Handler = (call) => {
  const p = call.place(2)
  if (!p || p.len === 0) return -E.EINVAL
  const answer = (text: string): number => call.out(2, Buffer.from(text, 'latin1'))
  const how = call.int(4)
  if (how === 2) return answer(call.task.container.plainFd(call.task, call.int(0)))
  const d = how === 1 ? call.node(0) : target(call, 0, 1, F.AT_EMPTY_PATH, false)
  if (typeof d === 'number') return d
  if (how === 1) return answer(pathOf(d, call.task.creds.root))
  const i = d.inode
  if ((i.mode & F.S_IFMT) !== F.S_IFLNK) return call.text(1) === '' ? -E.ENOENT : -E.EINVAL
  if (i.special?.kind === 'fd') return FD_LINK + i.special.fd
  if (i.special?.kind !== 'link') return answer(i.target ?? '')
  const node = i.special.node?.()
  return answer(node ? pathOf(node, call.task.creds.root) : i.special.target())
}

function setMode(call: Call, d: Dentry, mode: number): number {
  const i = d.inode
  if (!writable(d)) return -E.EROFS
  if (!owns(call, i) || ['proc', 'sysfs'].includes(i.fs.type)) return -E.EPERM
  // Only a member of the file's group keeps set-group-id on it (chmod(2)).
  const c = call.task.creds
  const bits = !root(call) && !isDir(i) && i.gid !== c.gid[1] && !c.groups.includes(i.gid) ? mode & ~F.S_ISGID : mode
  const r = i.fs.host ? i.fs.host.chmod(d, bits) : 0
  if (r < 0) return r
  i.mode = (i.mode & F.S_IFMT) | (bits & 0o7777)
  i.ctime = now()
  call.task.container.vfs.overridden.covered(i)
  call.task.container.vfs.inotify.attributes(d)
  return 0
}

const fchmodat: Handler = (call) => {
  const d = target(call, 0, 1, 0, true)
  return typeof d === 'number' ? d : setMode(call, d, call.int(2))
}

const fchmod: Handler = (call) => {
  const d = call.node(0)
  return typeof d === 'number' ? d : setMode(call, d, call.int(1))
}

function setOwner(call: Call, d: Dentry, uid: number, gid: number): number {
  const i = d.inode
  const c = call.task.creds
  if (!writable(d)) return -E.EROFS
  if (!root(call)) {
    if (i.uid !== c.uid[1] || (uid !== -1 && uid !== i.uid)) return -E.EPERM
    if (gid !== -1 && gid !== c.gid[1] && !c.groups.includes(gid)) return -E.EPERM
  }
  const r = i.fs.host ? i.fs.host.chown(d, uid, gid) : 0
  if (r < 0) return r
  if (uid !== -1) i.uid = uid >>> 0
  if (gid !== -1) i.gid = gid >>> 0
  if (!isDir(i) && i.mode & 0o111) i.mode &= ~(F.S_ISUID | F.S_ISGID)
  i.ctime = now()
  call.task.container.vfs.overridden.covered(i)
  call.task.container.vfs.inotify.attributes(d)
  return 0
}

const fchownat: Handler = (call) => {
  const flags = call.int(4)
  if (flags & ~(F.AT_SYMLINK_NOFOLLOW | F.AT_EMPTY_PATH)) return -E.EINVAL
  const d = target(call, 0, 1, flags, !(flags & F.AT_SYMLINK_NOFOLLOW))
  return typeof d === 'number' ? d : setOwner(call, d, call.int(2), call.int(3))
}

const fchown: Handler = (call) => {
  const d = call.node(0)
  return typeof d === 'number' ? d : setOwner(call, d, call.int(1), call.int(2))
}

const utimensat: Handler = (call) => {
  const flags = call.int(3)
  if (flags & ~(F.AT_SYMLINK_NOFOLLOW | F.AT_EMPTY_PATH)) return -E.EINVAL
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
  if (given && given.length < 32) return -E.EFAULT
  const host = call.task.container.vfs.hostStat(i)
  const old = (ns: bigint | undefined, t: Time): Time => (ns === undefined ? t : { sec: Number(ns / 1_000_000_000n), nsec: Number(ns % 1_000_000_000n) })
  const atime = pick(0, old(host?.atimeNs, i.atime)), mtime = pick(16, old(host?.mtimeNs, i.mtime))
  if (typeof atime === 'number') return atime
  if (typeof mtime === 'number') return mtime
  if (!writable(d)) return -E.EROFS
  const explicit = given !== undefined && !(Number(given.readBigInt64LE(8)) === F.UTIME_NOW && Number(given.readBigInt64LE(24)) === F.UTIME_NOW)
  if (!owns(call, i) && (explicit || !may(i, F.W_OK, call.task.creds))) return explicit ? -E.EPERM : -E.EACCES
  if (i.fs.host) return i.fs.host.setTimes(d, atime, mtime)
  i.atime = atime
  i.mtime = mtime
  i.ctime = now()
  call.task.container.vfs.overridden.changed(i)
  call.task.container.vfs.inotify.attributes(d)
  // A file whose last name is gone has its times on the host only, and nobody looks at those again.
  if (i.backing?.kind === 'upper' && i.nlink > 0) return addon.setTimes(Buffer.from(i.backing.path), [atime.sec, atime.nsec, mtime.sec, mtime.nsec])
  return 0
}

const truncate: Handler = (call) => {
  const { vfs } = call.task.container
  const d = fromCwd(call, 0)
  if (typeof d === 'number') return d
  const i = d.inode
  if (isDir(i)) return -E.EISDIR
  if (!vfs.isRegular(i)) return -E.EINVAL
  const length = call.long(1)
  if (length < 0) return -E.EINVAL
  if (!writable(d)) return -E.EROFS
  if (!may(i, F.W_OK, call.task.creds)) return -E.EACCES
  if (i.fs.host) return i.fs.host.truncate(d, length)
  const r = vfs.copyUp(i, length === 0)
  if (r < 0) return r
  if (i.backing?.kind !== 'upper') return -E.EINVAL
  try {
    truncateSync(i.backing.path, length)
  } catch (e) {
    return E.errnoOf(e)
  }
  return 0
}

const statfsOf = (call: Call, i: Inode, outArg: number): number => {
  call.out(outArg, writeStatfs(i, i.fs.host?.statfs() ?? statfsSync(call.task.container.vfs.upper)))
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

/** name_to_handle_at(2) on an overlay that is not exported. */
const nameToHandleAt: Handler = (call) => {
  const flags = call.int(4)
  if (flags & ~(F.AT_SYMLINK_FOLLOW | F.AT_EMPTY_PATH | F.AT_EACCESS)) return -E.EINVAL
  const d = target(call, 0, 1, flags, (flags & F.AT_SYMLINK_FOLLOW) !== 0)
  return typeof d === 'number' ? d : -E.EOPNOTSUPP
}

export const handlers: Record<string, Handler> = {
  newfstatat, fstat, statx, faccessat2, readlinkat, fchmodat, fchmod, fchownat, fchown, utimensat, truncate, statfs, fstatfs,
  name_to_handle_at: nameToHandleAt,
}
