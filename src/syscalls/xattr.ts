/**
 * Extended attributes (xattr(7)): kept with the inode for the container's life. user.* for regular files
 * and directories; security.capability for root, without effect; the rest needs a privilege or is not
 * supported, as on a file system without access control lists.
 */
import * as E from '../abi/errno.ts'
import * as F from '../abi/fcntl.ts'
import { isDir, now, type Dentry, type Inode } from '../fs/inode.ts'
import { may, writable } from '../fs/path.ts'
import type { Call, Handler } from './handler.ts'
import { fromCwd, owns, root } from './target.ts'

const XATTR_CREATE = 1, XATTR_REPLACE = 2
const NAME_MAX = 255, SIZE_MAX = 65_536
/** What all attributes of one file may take. */
const TOTAL_MAX = 65_536

type Find = (call: Call) => Dentry | E.Errno
const byPath = (follow: boolean): Find => (call) => fromCwd(call, 0, follow)
const byNode: Find = (call) => call.node(0)

const supported = (i: Inode): boolean => !i.fs.host && i.fs.type !== 'proc' && i.fs.type !== 'sysfs'
const holdsUser = (i: Inode): boolean => isDir(i) || (i.mode & F.S_IFMT) === F.S_IFREG

/** Whether `name` may be read (or written); Linux's order is fs/xattr.c xattr_permission. */
function permission(call: Call, d: Dentry, name: string, write: boolean): E.Errno {
  const i = d.inode
  if (write && !writable(d)) return -E.EROFS
  if (name.startsWith('security.') || name.startsWith('system.')) return 0
  if (name.startsWith('trusted.')) return write ? -E.EPERM : -E.ENODATA
  if (name.startsWith('user.')) {
    if (!holdsUser(i)) return write ? -E.EPERM : -E.ENODATA
    if (isDir(i) && i.mode & F.S_ISVTX && write && !owns(call, i)) return -E.EPERM
  }
  return may(i, write ? F.W_OK : F.R_OK, call.task.creds) ? 0 : -E.EACCES
}

/** The attributes that can be there at all. */
function known(call: Call, i: Inode, name: string, write: boolean): E.Errno {
  if (!supported(i)) return -E.EOPNOTSUPP
  if (name.startsWith('user.') && name.length > 5) return 0
  if (name.startsWith('security.')) return !write || (name === 'security.capability' && root(call)) ? 0 : -E.EPERM
  return name === 'user.' || name.startsWith('trusted.') ? -E.EINVAL : -E.EOPNOTSUPP
}

/** The file whose attribute `name` the call may read, or write. */
function holder(call: Call, find: Find, name: string, write: boolean): Dentry | E.Errno {
  const d = find(call)
  if (typeof d === 'number') return d
  return permission(call, d, name, write) || known(call, d.inode, name, write) || d
}

function nameOf(call: Call): string | E.Errno {
  const name = call.text(1)
  return name === '' || name.length > NAME_MAX ? -E.ERANGE : name
}

const set = (find: Find): Handler => (call) => {
  const flags = call.int(4)
  if (flags & ~(XATTR_CREATE | XATTR_REPLACE)) return -E.EINVAL
  const name = nameOf(call)
  if (typeof name === 'number') return name
  const value = call.bytes(2) ?? Buffer.alloc(0)
  if (call.long(3) > SIZE_MAX || call.long(3) < 0) return -E.E2BIG
  if (call.long(3) > value.length) return -E.ENOSPC
  const d = holder(call, find, name, true)
  if (typeof d === 'number') return d
  const i = d.inode
  const there = i.xattrs?.has(name) ?? false
  if (there && flags & XATTR_CREATE) return -E.EEXIST
  if (!there && flags & XATTR_REPLACE) return -E.ENODATA
  let total = name.length + value.length
  for (const [n, v] of i.xattrs ?? []) if (n !== name) total += n.length + v.length
  if (total > TOTAL_MAX) return -E.ENOSPC
  i.xattrs ??= new Map()
  i.xattrs.set(name, value)
  i.ctime = now()
  call.task.container.vfs.overridden.changed(i)
  call.task.container.vfs.inotify.attributes(d)
  return 0
}

const get = (find: Find): Handler => (call) => {
  const name = nameOf(call)
  if (typeof name === 'number') return name
  const d = holder(call, find, name, false)
  if (typeof d === 'number') return d
  const i = d.inode
  const value = i.xattrs?.get(name)
  return value ? give(call, 2, 3, value) : -E.ENODATA
}

/** A size of 0 asks how much there is. */
function give(call: Call, at: number, sizeArg: number, bytes: Buffer): number {
  const size = call.long(sizeArg)
  if (size === 0) return bytes.length
  if (size < bytes.length) return -E.ERANGE
  call.out(at, bytes)
  return bytes.length
}

const list = (find: Find): Handler => (call) => {
  const d = find(call)
  if (typeof d === 'number') return d
  return give(call, 1, 2, Buffer.from([...(d.inode.xattrs?.keys() ?? [])].map((n) => `${n}\0`).join(''), 'latin1'))
}

const remove = (find: Find): Handler => (call) => {
  const name = nameOf(call)
  if (typeof name === 'number') return name
  const d = holder(call, find, name, true)
  if (typeof d === 'number') return d
  const i = d.inode
  if (!i.xattrs?.delete(name)) return -E.ENODATA
  i.ctime = now()
  call.task.container.vfs.overridden.changed(i)
  call.task.container.vfs.inotify.attributes(d)
  return 0
}

const forms = (name: string, make: (find: Find) => Handler): [string, Handler][] =>
  [[name, make(byPath(true))], [`l${name}`, make(byPath(false))], [`f${name}`, make(byNode)]]

export const handlers: Record<string, Handler> = Object.fromEntries(
  [...forms('setxattr', set), ...forms('getxattr', get), ...forms('listxattr', list), ...forms('removexattr', remove)])
