/** Addresses of sockets: names of AF_UNIX sockets in the container's tree, destinations beyond its loopback. */
import * as E from '../abi/errno.ts'
import * as F from '../abi/fcntl.ts'
import { may, resolve } from '../fs/path.ts'
import { parseAddress } from '../policy/egress.ts'
import { create, vacant } from './file.ts'
import type { Handler } from './handler.ts'

/**
 * bind of an AF_UNIX path: (directory node, path, mode, the whole sun_path). Makes the socket's inode
 * and answers its number, which is in the abstract name that the loader binds (docs/abi.md).
 */
const bind: Handler = (call) => {
  const where = vacant(call, 0, 1, false)
  if (typeof where === 'number') return where === -E.EEXIST ? -E.EADDRINUSE : where
  // A socket in a directory of the host would be the host's.
  if (where.dir.inode.fs.host) return -E.EACCES
  const d = create(call, where, F.S_IFSOCK | (call.int(2) & 0o777))
  if (typeof d === 'number') return d
  d.inode.address = call.bytes(3) ?? Buffer.alloc(0)
  call.task.container.sockets.set(d.inode.ino, d.inode)
  return d.inode.ino
}

/** getsockname of a named socket: the address as bind got it. */
const getsockname: Handler = (call) => {
  const address = call.task.container.sockets.get(call.int(0))?.address
  return address ? call.out(1, address) : -E.ENOENT
}

/**
 * connect: args[0] 0: to an AF_UNIX path (args[1] directory node, args[2] path): the socket's inode
 * number. args[0] 1: beyond the loopback (args[1] the sockaddr, args[2] the socket's type, args[3] its
 * own sockaddr): 0: the guest's socket may go on; with args[4] 1 a socket that is connecting comes
 * with the reply. Every refusal is on record.
 */
const connect: Handler = (call) => {
  const { container } = call.task
  if (call.int(0) === 0) {
    const at = call.node(1)
    if (typeof at === 'number') return at
    const d = resolve(container.vfs, at, call.text(2), true, call.task.creds)
    if (typeof d === 'number') return d
    if (!may(d.inode, F.W_OK, call.task.creds)) return -E.EACCES
    if ((d.inode.mode & F.S_IFMT) !== F.S_IFSOCK) return -E.ECONNREFUSED
    return d.inode.fs.host ? -E.EACCES : d.inode.ino
  }
  const bytes = call.bytes(1)
  const address = bytes && parseAddress(bytes)
  if (!address) return -E.EAFNOSUPPORT
  const native = call.int(4) === 1
  const r = container.network.connect(container.programOf(call.task), call.int(2), address, call.bytes(3) ?? Buffer.alloc(0), native)
  if (!native || r < 0) return r
  call.fds.push(r)
  return 0
}

export const handlers: Record<string, Handler> = { bind, getsockname, connect }
