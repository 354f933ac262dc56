/** open and its grants: what the loader gets for a name. */
import { openSync, unlinkSync } from 'node:fs'
import * as E from '../abi/errno.ts'
import * as F from '../abi/fcntl.ts'
import { FIFO_NO_READER, GRANT_DIR, GRANT_HOST, GRANT_IMAGE, GRANT_LOADER, GRANT_SIZE } from '../abi/ring.ts'
import { isDir, now, type Dentry, type Inode } from '../fs/inode.ts'
import { may, walk, writable } from '../fs/path.ts'
import { createContents } from '../fs/upper.ts'
import { addon } from '../native/addon.ts'
import type { Call } from './handler.ts'
import { waiting } from './inotify.ts'

interface Grant { kind: number; node: number; nid?: number; size?: number; mode: number; what?: number; ino: number }

function writeGrant(call: Call, g: Grant): number {
  const b = Buffer.alloc(GRANT_SIZE)
  b.writeUInt32LE(g.kind, 0)
  b.writeUInt32LE(g.node, 4)
  b.writeBigUInt64LE(BigInt(g.nid ?? 0), 8)
  b.writeBigUInt64LE(BigInt(g.size ?? 0), 16)
  b.writeUInt32LE(g.mode, 24)
  b.writeUInt32LE(g.what ?? 0, 28)
  b.writeBigUInt64LE(BigInt(g.ino), 32)
  call.write(0, b)
  return 0
}

/** Answers with a host descriptor, which the reply takes over. */
export function grantHost(call: Call, fd: number, d: Dentry | undefined): number {
  if (fd < 0) return fd
  call.fds.push(fd)
  return writeGrant(call, { kind: GRANT_HOST, node: d?.id ?? 0, mode: d?.inode.mode ?? 0, ino: d?.inode.ino ?? 0 })
}

export function openat(call: Call): number {
  const { vfs } = call.task.container
  const asked = call.int(2)
  // With O_PATH no other flag means anything (open(2)).
  const flags = asked & F.O_PATH ? asked & (F.O_PATH | F.O_DIRECTORY | F.O_NOFOLLOW | F.O_CLOEXEC) : asked
  const how = call.int(4)
  const temporary = (flags & F.O_TMPFILE_BIT) !== 0
  const create = (flags & F.O_CREAT) !== 0
  if (create && flags & F.O_DIRECTORY) return -E.EINVAL
  if (temporary && (!(flags & F.O_DIRECTORY) || (flags & F.O_ACCMODE) === F.O_RDONLY)) return -E.EINVAL
  if (how & F.RESOLVE_CACHED && (create || temporary || flags & F.O_TRUNC)) return -E.EAGAIN
  const at = call.node(0)
  if (typeof at === 'number') return at
  const exclusive = create && (flags & F.O_EXCL) !== 0
  const follow = !(flags & F.O_NOFOLLOW) && !exclusive
  const creds = call.task.creds
  const found = walk(vfs, at, call.text(1), follow, creds, how)
  if (typeof found === 'number') return found
  const node = found.node
  if (temporary) return node ? openUnnamed(call, node, flags) : -E.ENOENT
  if (!node) {
    if (!create) return -E.ENOENT
    if (found.slash) return -E.EISDIR
    if (found.dir.deleted) return -E.ENOENT
    if (!writable(found.dir)) return -E.EROFS
    if (!may(found.dir.inode, F.W_OK | F.X_OK, creds)) return -E.EACCES
    if (found.dir.inode.special) return -E.EACCES
    const made = vfs.make(found.dir, found.name, F.S_IFREG | (call.int(3) & 0o7777), creds.uid[1], groupOf(found.dir.inode, creds.gid[1]))
    return typeof made === 'number' ? made : openNode(call, made, flags & ~F.O_TRUNC, true)
  }
  if (exclusive) return -E.EEXIST
  if (create && isDir(node.inode)) return -E.EISDIR
  return openNode(call, node, flags, false)
}

/** O_TMPFILE: a file that no name leads to; its contents have no name on the host either once they are open. */
function openUnnamed(call: Call, dir: Dentry, flags: number): number {
  const { vfs } = call.task.container
  const creds = call.task.creds
  if (!isDir(dir.inode)) return -E.ENOTDIR
  if (!writable(dir)) return -E.EROFS
  if (!may(dir.inode, F.W_OK | F.X_OK, creds)) return -E.EACCES
  if (dir.inode.special || dir.inode.fs.host) return -E.EOPNOTSUPP
  const inode = vfs.newInode(F.S_IFREG | (call.int(3) & 0o7777), creds.uid[1], groupOf(dir.inode, creds.gid[1]), dir.inode.fs)
  const r = createContents(vfs, inode)
  if (r < 0) return r
  const path = vfs.upperPath(inode)
  const d = vfs.anonymous(inode, `#${inode.ino}`, dir)
  inode.nlink = 0
  vfs.forget(d)
  const fd = hostOpen(path, flags & ~(F.O_CREAT | F.O_EXCL | F.O_TMPFILE))
  unlinkSync(path)
  return grantHost(call, fd, d)
}

/** A new file takes its directory's group where that has set-group-id (inode_init_owner). */
export const groupOf = (dir: Inode, gid: number): number => (dir.mode & F.S_ISGID ? dir.gid : gid)

function openNode(call: Call, node: Dentry, flags: number, created: boolean): number {
  const { vfs } = call.task.container
  const i = node.inode
  const access = flags & F.O_ACCMODE
  const type = i.mode & F.S_IFMT
  const grant = (kind: number, more: Partial<Grant> = {}): number =>
    writeGrant(call, { kind, node: node.id, mode: i.mode, ino: i.ino, ...more })
  if (i.special?.kind === 'fd') {
    if (flags & F.O_PATH) return grant(GRANT_DIR)
    return grant(GRANT_LOADER, { what: 3, nid: i.special.fd })
  }
  if (type === F.S_IFLNK) return flags & F.O_PATH ? grant(GRANT_DIR) : -E.ELOOP
  if (flags & F.O_DIRECTORY && type !== F.S_IFDIR) return -E.ENOTDIR
  if (flags & F.O_PATH) return grant(GRANT_DIR)
  const nid = vfs.overridden.nid(i)
  const writes = access !== F.O_RDONLY || (flags & F.O_TRUNC) !== 0
  const device = [F.S_IFCHR, F.S_IFBLK, F.S_IFIFO, F.S_IFSOCK].includes(type)
  if (writes && !device && !writable(node)) return type === F.S_IFDIR ? -E.EISDIR : -E.EROFS
  const want = access === F.O_RDONLY ? F.R_OK : access === F.O_WRONLY ? F.W_OK : F.R_OK | F.W_OK
  if (!created && !may(i, want, call.task.creds)) return -E.EACCES
  if (flags & F.O_NOATIME && call.task.creds.uid[1] !== 0 && call.task.creds.uid[1] !== i.uid) return -E.EPERM
  if (type === F.S_IFDIR) return access === F.O_RDONLY ? grant(GRANT_DIR, { nid }) : -E.EISDIR
  const special = i.special
  switch (special?.kind) {
    case 'device': return grantHost(call, hostOpen(special.host, flags & ~(F.O_CREAT | F.O_TRUNC | F.O_EXCL)), node)
    case 'tty': case 'console': return openTerminal(call, node, special.kind, flags)
    case 'ptmx': return openMaster(call, node, flags)
    case 'pty': return special.master ? -E.EIO : grantHost(call, call.task.container.ptys.open(special.pty, flags), node)
    case 'inotify': return -E.ENXIO
    case 'fifo': return grantHost(call, openFifo(special.host, flags), node)
    case 'text': {
      if (access !== F.O_RDONLY) return special.sink ? grantHost(call, hostOpen('/dev/null', flags & F.O_ACCMODE), node) : -E.EACCES
      const made = special.make()
      return grantHost(call, addon.memoryFile(typeof made === 'string' ? Buffer.from(made, 'latin1') : made, true), node)
    }
    case 'maps': return special.own() ? grant(GRANT_LOADER, { what: 1 }) : grantHost(call, addon.memoryFile(Buffer.alloc(0), true), node)
    default: break
  }
  if (type === F.S_IFSOCK) return -E.ENXIO
  if (i.fs.host) {
    const fd = i.fs.host.open(node, flags)
    return fd === -E.ENXIO && type === F.S_IFIFO && !(flags & F.O_NONBLOCK) ? -FIFO_NO_READER : grantHost(call, fd, node)
  }
  if (i.backing?.kind === 'image') {
    if (!writes) return grant(GRANT_IMAGE, { nid: i.backing.nid, size: i.backing.size })
    const r = vfs.copyUp(i, (flags & F.O_TRUNC) !== 0)
    if (r < 0) return r
    if (flags & F.O_TRUNC) i.mtime = i.ctime = now()
  }
  const b = i.backing
  if (!b || b.kind === 'image') return -E.EIO
  i.at = node
  return grantHost(call, hostOpen(b.path, flags & ~(F.O_CREAT | F.O_EXCL)), node)
}

/** /dev/tty is the caller's controlling terminal (tty_nr of proc(5) stat), /dev/console the container's own. */
function openTerminal(call: Call, node: Dentry, kind: 'tty' | 'console', flags: number): number {
  const { container } = call.task
  const pty = kind === 'console' ? container.terminal : container.controllingTerminal(call.task)
  return pty ? grantHost(call, container.ptys.open(pty, flags), node) : -E.ENXIO
}

/** A new terminal; the descriptor's node remembers which, for TIOCGPTN. */
function openMaster(call: Call, node: Dentry, flags: number): number {
  const { vfs, ptys } = call.task.container
  const made = ptys.create(flags, call.task.creds.uid[1])
  if (typeof made === 'number') return made
  const inode = Object.assign(vfs.newInode(node.inode.mode, 0, 0, node.inode.fs), {
    rdev: node.inode.rdev, special: { kind: 'pty', pty: made.pty, master: true } as const,
  })
  const d = vfs.anonymous(inode, 'ptmx', node.parent)
  vfs.forget(d)
  d.deleted = false
  return grantHost(call, made.master, d)
}

/** TIOCGPTN: the number of a terminal as the container counts; FIONREAD of an inotify instance. */
export function ioctl(call: Call): number {
  const d = call.node(0)
  if (typeof d === 'number') return -E.ENOTTY
  const special = d.inode.special
  if (special?.kind === 'inotify') return waiting(call, d)
  return special?.kind === 'pty' && special.master ? special.pty.index : -E.ENOTTY
}

function hostOpen(path: string, flags: number): number {
  try {
    return openSync(path, (flags & (F.O_ACCMODE | F.O_TRUNC | F.O_APPEND | F.O_NONBLOCK | F.O_SYNC | F.O_DSYNC)) | F.O_NOFOLLOW | F.O_NOCTTY)
  } catch (e) {
    return E.errnoOf(e)
  }
}

/**
 * A FIFO is opened without waiting for the other end (fifo(7)): the daemon must not wait, the loader
 * does. A reader gets its end at once and looks for a writer itself; a writer without a reader is
 * told to ask again. The descriptor is O_NONBLOCK; the loader clears that when the guest did not ask for it.
 */
function openFifo(path: string, flags: number): number {
  const fd = hostOpen(path, flags | F.O_NONBLOCK)
  return fd === -E.ENXIO && !(flags & F.O_NONBLOCK) ? -FIFO_NO_READER : fd
}
