/** Addresses of sockets: names of AF_UNIX sockets in the container's tree, destinations beyond its loopback. */
import * as E from '../abi/errno.ts'
import * as F from '../abi/fcntl.ts'
import { may, resolve } from '../fs/path.ts'
import { addon } from '../native/addon.ts'
import { parseAddress, showAddress } from '../policy/egress.ts'
import { create, vacant } from './file.ts'
import type { Handler } from './handler.ts'

const { SOCK_STREAM, SOCK_DGRAM } = { SOCK_STREAM: 1, SOCK_DGRAM: 2 }

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
 * number. args[0] 1: beyond the loopback (args[1] the sockaddr, args[2] the socket's type): a socket
 * that is connecting comes with the reply. Every refusal is one audit record.
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
  const kind = call.int(2)
  const rule = kind === SOCK_STREAM || kind === SOCK_DGRAM ? container.egress.allows(address) : undefined
  if (rule === undefined) {
    container.record({ event: 'egress', decision: 'denied', path: container.programOf(call.task), rule: `no rule allows ${showAddress(address)}` })
    return -E.EACCES
  }
  const fd = addon.connectOut(kind, bytes)
  if (fd >= 0) call.fds.push(fd)
  return fd < 0 ? fd : 0
}

export const handlers: Record<string, Handler> = { bind, getsockname, connect }
