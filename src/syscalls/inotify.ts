/** inotify(7): instances, watches, and reading events, which the loader asks for (notify.rs). */
import * as E from '../abi/errno.ts'
import { O_NONBLOCK, O_CLOEXEC, R_OK } from '../abi/fcntl.ts'
import { GRANT_HOST, GRANT_NOTIFY, GRANT_SIZE } from '../abi/ring.ts'
import { isDir, type Dentry } from '../fs/inode.ts'
import { IN_DONT_FOLLOW, IN_ONLYDIR, type Instance } from '../fs/inotify.ts'
import { may } from '../fs/path.ts'
import type { Call, Handler } from './handler.ts'
import { fromCwd } from './target.ts'

const instanceOf = (d: Dentry): Instance | undefined => (d.inode.special?.kind === 'inotify' ? d.inode.special.instance : undefined)

/** A pipe's read end stands for the instance; its node says which. */
const init: Handler = (call) => {
  const flags = call.int(0)
  if (flags & ~(O_NONBLOCK | O_CLOEXEC)) return -E.EINVAL
  const { vfs } = call.task.container
  const made = vfs.inotify.create((flags & O_NONBLOCK) !== 0)
  if (typeof made === 'number') return made
  const inode = Object.assign(vfs.newInode(0o600, 0, 0), { special: { kind: 'inotify', instance: made.instance } as const })
  const d = vfs.anonymous(inode, 'inotify', vfs.root)
  vfs.forget(d)
  d.deleted = false
  call.fds.push(made.fd)
  const grant = Buffer.alloc(GRANT_SIZE)
  grant.writeUInt32LE(GRANT_HOST, 0)
  grant.writeUInt32LE(d.id, 4)
  grant.writeUInt32LE(inode.mode, 24)
  grant.writeUInt32LE(GRANT_NOTIFY, 28)
  call.write(0, grant)
  return 0
}

/**
 * Errors, in the order checked (fs/notify/inotify/inotify_user.c):
 * - (the loader) EINVAL: bits that are none, no event; EBADF; EINVAL: IN_MASK_ADD with IN_MASK_CREATE, a
 *   descriptor of something else.
 * - those of the walk; ENOTDIR with IN_ONLYDIR; EACCES: it may not be read.
 * - EEXIST with IN_MASK_CREATE; ENOSPC: too many watches.
 */
const addWatch: Handler = (call) => {
  const at = call.node(0)
  const mask = call.int(2) >>> 0
  const instance = typeof at === 'number' ? undefined : instanceOf(at)
  if (!instance) return -E.EINVAL
  const d = fromCwd(call, 1, !(mask & IN_DONT_FOLLOW))
  if (typeof d === 'number') return d
  if (mask & IN_ONLYDIR && !isDir(d.inode)) return -E.ENOTDIR
  if (!may(d.inode, R_OK, call.task.creds)) return -E.EACCES
  const { vfs } = call.task.container
  if (isDir(d.inode) && !d.inode.special && !d.inode.fs.host) vfs.children(d)
  return vfs.inotify.add(instance, d, mask)
}

const rmWatch: Handler = (call) => {
  const at = call.node(0)
  const instance = typeof at === 'number' ? undefined : instanceOf(at)
  return instance ? call.task.container.vfs.inotify.remove(instance, call.int(1)) : -E.EINVAL
}

/** Events for the loader's read of an instance: args[1] is the room. */
const read: Handler = (call) => {
  const at = call.node(0)
  const instance = typeof at === 'number' ? undefined : instanceOf(at)
  const room = call.place(1)
  if (!instance || !room) return -E.EINVAL
  const events = call.task.container.vfs.inotify.read(instance, room.len)
  return typeof events === 'number' ? events : call.out(1, events)
}

/** FIONREAD. */
export function waiting(call: Call, d: Dentry): number {
  const instance = instanceOf(d)
  return instance ? call.task.container.vfs.inotify.waiting(instance) : -E.ENOTTY
}

export const handlers: Record<string, Handler> = { inotify_init1: init, inotify_add_watch: addWatch, inotify_rm_watch: rmWatch, read }
