/** Names: working directory, making, linking, renaming, removing, listing. */
import * as E from '../abi/errno.ts'
import * as F from '../abi/fcntl.ts'
import { ASK_WITH_FD } from '../abi/ring.ts'
import { isDir, pathOf, under, type Dentry, type Inode } from '../fs/inode.ts'
import { may, walk, writable } from '../fs/path.ts'
import { writeDirents } from '../fs/stat.ts'
import { addon } from '../native/addon.ts'
import type { Call, Handler } from './handler.ts'
import { groupOf, openat } from './open.ts'
import { fromCwd, owns, root as isRoot, target } from './target.ts'

const getcwd: Handler = (call) => {
  // The working directory travels in no argument: it is the task's.
  const d = call.task.cwd
  if (d.deleted) return -E.ENOENT
  const { root } = call.task.creds
  const outside = root && !under(d, root) ? '(unreachable)' : ''
  const text = Buffer.from(`${outside}${pathOf(d, root)}\0`, 'latin1')
  const p = call.place(0)
  if (call.long(1) < text.length) return -E.ERANGE
  if (!p) return -E.EFAULT
  if (p.len < text.length) return -E.ERANGE
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

/**
 * chroot(2); answers the new root's node id, 1 where it is the container's own again.
 *
 * Errors, in the order checked (fs/open.c): those of the walk, ENOTDIR, EACCES, EPERM.
 */
const chroot: Handler = (call) => {
  const d = fromCwd(call, 0)
  if (typeof d === 'number') return d
  if (!isDir(d.inode)) return -E.ENOTDIR
  if (!may(d.inode, F.X_OK, call.task.creds)) return -E.EACCES
  if (!isRoot(call)) return -E.EPERM
  const { root: _, ...rest } = call.task.creds
  call.task.creds = d === call.task.container.vfs.root ? rest : { ...rest, root: d }
  return d.id
}

function enter(call: Call, d: Dentry): number {
  if (!isDir(d.inode)) return -E.ENOTDIR
  if (!may(d.inode, F.X_OK, call.task.creds)) return -E.EACCES
  call.task.cwd = d
  // The loader walks from a directory of the image itself.
  const nid = Buffer.alloc(8)
  nid.writeUInt32LE(call.task.container.vfs.overridden.nid(d.inode))
  call.write(0, nid)
  return d.id
}

/** Directories whose names are not the container's to change. */
const generated = (dir: Dentry): boolean => dir.inode.special !== undefined || dir.inode.fs.type === 'proc' || dir.inode.fs.type === 'sysfs'

/**
 * The directory and free name for a new entry. Errors in the order of fs/namei.c filename_create, may_create;
 * `before` is asked between the two.
 */
export function vacant(call: Call, dirArg: number, pathArg: number, dirs: boolean, before?: (dir: Dentry) => E.Errno): { dir: Dentry; name: string } | E.Errno {
  const at = call.node(dirArg)
  if (typeof at === 'number') return at
  const f = walk(call.task.container.vfs, at, call.text(pathArg), 'never', call.task.creds)
  if (typeof f === 'number') return f
  if (f.node) return -E.EEXIST
  if (f.slash && !dirs) return -E.ENOENT
  if (f.dir.deleted) return -E.ENOENT
  if (!writable(f.dir)) return -E.EROFS
  if (generated(f.dir)) return -E.EPERM
  const early = before?.(f.dir) ?? 0
  if (early < 0) return early
  if (!may(f.dir.inode, F.W_OK | F.X_OK, call.task.creds)) return -E.EACCES
  return { dir: f.dir, name: f.name }
}

/** Makes a new entry that belongs to the caller. */
export function create(call: Call, where: { dir: Dentry; name: string }, mode: number, target = ''): Dentry | E.Errno {
  const c = call.task.creds
  const parent = where.dir.inode
  const setgid = (mode & F.S_IFMT) === F.S_IFDIR ? parent.mode & F.S_ISGID : 0
  return call.task.container.vfs.make(where.dir, where.name, mode | setgid, c.uid[1], groupOf(parent, c.gid[1]), target)
}

function createAt(call: Call, dirArg: number, pathArg: number, mode: number, target = ''): number {
  const where = vacant(call, dirArg, pathArg, (mode & F.S_IFMT) === F.S_IFDIR)
  if (typeof where === 'number') return where
  const d = create(call, where, mode, target)
  return typeof d === 'number' ? d : 0
}

const mkdirat: Handler = (call) => createAt(call, 0, 1, F.S_IFDIR | (call.int(2) & 0o1777))

const mknodat: Handler = (call) => {
  const mode = call.int(2)
  const type = mode & F.S_IFMT || F.S_IFREG
  if (type === F.S_IFCHR || type === F.S_IFBLK) {
    // Known and denied: a device made here would be the host's.
    const where = vacant(call, 0, 1, false)
    return typeof where === 'number' ? where : -E.EPERM
  }
  if (type !== F.S_IFREG && type !== F.S_IFIFO && type !== F.S_IFSOCK) return type === F.S_IFDIR ? -E.EPERM : -E.EINVAL
  return createAt(call, 0, 1, type | (mode & 0o7777))
}

const symlinkat: Handler = (call) => {
  const text = call.text(0)
  return text === '' ? -E.ENOENT : createAt(call, 1, 2, F.S_IFLNK | 0o777, text)
}

/** /proc/sys/fs/protected_hardlinks: what others own is linked only by who may read and write it (fs/namei.c may_linkat). */
function mayLink(call: Call, i: Inode): boolean {
  const privileged = i.mode & F.S_ISUID || (i.mode & (F.S_ISGID | 0o010)) === (F.S_ISGID | 0o010)
  return owns(call, i) || ((i.mode & F.S_IFMT) === F.S_IFREG && !privileged && may(i, F.R_OK | F.W_OK, call.task.creds))
}

const linkat: Handler = (call) => {
  const flags = call.int(4)
  if (flags & ~(F.AT_SYMLINK_FOLLOW | F.AT_EMPTY_PATH)) return -E.EINVAL
  const d = target(call, 0, 1, flags, (flags & F.AT_SYMLINK_FOLLOW) !== 0)
  if (typeof d === 'number') return d
  const where = vacant(call, 2, 3, false, (dir) => (d.inode.fs !== dir.inode.fs ? -E.EXDEV : mayLink(call, d.inode) ? 0 : -E.EPERM))
  if (typeof where === 'number') return where
  if (isDir(d.inode)) return -E.EPERM
  if (d.inode.nlink <= 0) return -E.ENOENT
  return call.task.container.vfs.link(d, where.dir, where.name)
}

/** May `node` be taken out of `dir`: write permission, and the sticky bit's rule. */
function mayRemove(call: Call, dir: Dentry, node: Dentry): E.Errno {
  if (!may(dir.inode, F.W_OK | F.X_OK, call.task.creds)) return -E.EACCES
  if (generated(dir)) return -E.EPERM
  const sticky = (dir.inode.mode & F.S_ISVTX) !== 0
  return sticky && !owns(call, node.inode) && !owns(call, dir.inode) ? -E.EPERM : 0
}

const unlinkat: Handler = (call) => {
  const { vfs } = call.task.container
  const flags = call.int(2)
  if (flags & ~F.AT_REMOVEDIR) return -E.EINVAL
  const at = call.node(0)
  if (typeof at === 'number') return at
  const path = call.text(1)
  const f = walk(vfs, at, path, 'never', call.task.creds)
  if (typeof f === 'number') return f
  const rmdir = (flags & F.AT_REMOVEDIR) !== 0
  if (f.name === '.') {
    const last = path.split('/').filter(Boolean).at(-1)
    if (!rmdir) return -E.EISDIR
    return last === '.' ? -E.EINVAL : last === '..' ? -E.ENOTEMPTY : -E.EBUSY
  }
  if (!writable(f.dir)) return -E.EROFS
  if (!f.node) return -E.ENOENT
  if (f.slash && !rmdir) return isDir(f.node.inode) ? -E.EISDIR : -E.ENOTDIR
  const r = mayRemove(call, f.dir, f.node)
  if (r < 0) return r
  if (f.node.mounted) return -E.EBUSY
  if (rmdir) {
    if (!isDir(f.node.inode)) return -E.ENOTDIR
    if (!vfs.isEmpty(f.node)) return -E.ENOTEMPTY
  } else if (isDir(f.node.inode)) {
    return -E.EISDIR
  }
  return vfs.unlink(f.node)
}

const renameat2: Handler = (call) => {
  const { vfs } = call.task.container
  const flags = call.int(4)
  if (flags & ~(F.RENAME_NOREPLACE | F.RENAME_EXCHANGE) || flags === 3) return -E.EINVAL
  const [a, b] = [call.node(0), call.node(2)]
  if (typeof a === 'number') return a
  if (typeof b === 'number') return b
  const from = walk(vfs, a, call.text(1), 'never', call.task.creds)
  if (typeof from === 'number') return from
  const to = walk(vfs, b, call.text(3), 'never', call.task.creds)
  if (typeof to === 'number') return to
  if (from.dir.inode.fs !== to.dir.inode.fs) return -E.EXDEV
  if (from.name === '.' || to.name === '.') return -E.EBUSY
  if (!writable(from.dir)) return -E.EROFS
  if (!from.node) return -E.ENOENT
  if (to.dir.deleted) return -E.ENOENT
  if (flags & F.RENAME_NOREPLACE && to.node) return -E.EEXIST
  if (flags & F.RENAME_EXCHANGE && !to.node) return -E.ENOENT
  if ((from.slash || to.slash) && !isDir(from.node.inode)) return -E.ENOTDIR
  if (isDir(from.node.inode) && under(to.dir, from.node)) return -E.EINVAL
  if (to.node && isDir(to.node.inode) && under(from.dir, to.node)) return flags & F.RENAME_EXCHANGE ? -E.EINVAL : -E.ENOTEMPTY
  if (to.node?.inode === from.node.inode && !from.node.inode.fs.host) return 0
  const denied = mayRemove(call, from.dir, from.node)
    || (to.node ? mayRemove(call, to.dir, to.node) : !may(to.dir.inode, F.W_OK | F.X_OK, call.task.creds) ? -E.EACCES : generated(to.dir) ? -E.EPERM : 0)
  if (denied) return denied
  if (to.node && !(flags & F.RENAME_EXCHANGE) && isDir(to.node.inode) !== isDir(from.node.inode)) return isDir(to.node.inode) ? -E.EISDIR : -E.ENOTDIR
  // A directory that gets another parent has its ".." rewritten (fs/namei.c, vfs_rename).
  const moves = [from.node, ...(flags & F.RENAME_EXCHANGE ? [to.node!] : [])].filter((d) => isDir(d.inode))
  if (from.dir !== to.dir && moves.some((d) => !may(d.inode, F.W_OK, call.task.creds))) return -E.EACCES
  if (from.node.mounted || to.node?.mounted) return -E.EBUSY
  if (flags & F.RENAME_EXCHANGE) return vfs.exchange(from.node, to.node!)
  if (to.node) {
    if (isDir(to.node.inode) && !vfs.isEmpty(to.node)) return -E.ENOTEMPTY
    if (!to.node.inode.fs.host) vfs.unlink(to.node, true)
  }
  return vfs.rename(from.node, to.dir, to.name, 0)
}

/** The whole directory; `args[1]`: the numbers of the caller's descriptors, for /proc/self/fd. */
const getdents64: Handler = (call) => {
  const d = call.node(0)
  if (typeof d === 'number') return d
  if (!isDir(d.inode)) return -E.ENOTDIR
  if (d.deleted) return -E.ENOENT
  const special = d.inode.special
  let list: Iterable<[string, Parameters<typeof writeDirents>[0]['inode']]>
  if (special?.kind === 'dynamic' && special.fds) {
    const open = call.bytes(1)
    if (!open || open.length === 0) return -ASK_WITH_FD
    list = special.fds(Array.from({ length: open.length >> 2 }, (_, n) => open.readUInt32LE(4 * n)))
  } else {
    list = call.task.container.vfs.list(d)
  }
  const all = writeDirents(d, list)
  if (all.length <= 65_536) {
    call.write(0, all)
    return all.length
  }
  const fd = addon.memoryFile(all, true)
  if (fd < 0) return fd
  call.fds.push(fd)
  return 0
}

const memfdCreate: Handler = (call) => {
  const flags = call.int(1)
  // MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL, MFD_EXEC; huge pages are the host's.
  if (flags & ~0x1b || (flags & 0x18) === 0x18) return -E.EINVAL
  const fd = addon.guestMemfd(call.text(0), flags & 8 ? flags & 11 : flags & 3)
  if (fd < 0) return fd
  call.fds.push(fd)
  const grant = Buffer.alloc(40)
  grant.writeUInt32LE(1, 0)
  call.write(0, grant)
  return 0
}

export const handlers: Record<string, Handler> = {
  openat, getcwd, chdir, fchdir, chroot, mkdirat, mknodat, symlinkat, linkat, unlinkat, renameat2, getdents64, memfd_create: memfdCreate,
}
