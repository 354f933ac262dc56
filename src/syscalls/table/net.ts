/** Sockets: the container's own network namespace, with only a loopback interface. */
import { fd, flags, input, int, output, pointer, syscall } from './schema.ts'

const direct = { class: 'direct', policy: 'net' } as const
const local = { class: 'local', policy: 'net' } as const

export const entries = [
  syscall(41, 'socket', { domain: int, type: int, protocol: int }, { ...local, newFd: true, doc: 'Make a socket.', errno: ['EAFNOSUPPORT', 'EPERM'], quirk: 'AF_UNIX, AF_INET and AF_INET6 streams and datagrams, and NETLINK_ROUTE queries, other netlink protocols are EPROTONOSUPPORT; raw sockets are EPERM.' }),
  syscall(42, 'connect', { fd, addr: input('addrlen'), addrlen: int }, { ...local, restart: true, doc: 'Connect a socket.', errno: ['EACCES'], quirk: 'Beyond the container\'s loopback only what the policy allows: EACCES and an audit record.' }),
  syscall(43, 'accept', { fd, addr: pointer, addrlen: pointer }, { ...local, newFd: true, restart: true, doc: 'Accept a connection.' }),
  syscall(44, 'sendto', { fd, buf: input('len'), len: int, flags, dest_addr: input('addrlen'), addrlen: int }, { ...local, restart: true, doc: 'Send.' }),
  syscall(45, 'recvfrom', { fd, buf: output('len'), len: int, flags, src_addr: pointer, addrlen: pointer }, { ...local, restart: true, doc: 'Receive.' }),
  syscall(46, 'sendmsg', { fd, msg: pointer, flags }, { ...local, restart: true, doc: 'Send with control data.', errno: ['EOPNOTSUPP'], quirk: 'SCM_RIGHTS of an image file passes a read-only copy of its bytes, with an offset of its own; directories and O_PATH descriptors are EOPNOTSUPP; a file of the upper layer arrives without its name.' }),
  syscall(47, 'recvmsg', { fd, msg: pointer, flags }, { ...local, restart: true, doc: 'Receive with control data.' }),
  syscall(48, 'shutdown', { fd, how: int }, { ...direct, doc: 'Shut a connection down.' }),
  syscall(49, 'bind', { fd, addr: input('addrlen'), addrlen: int }, { ...local, doc: 'Bind an address.', errno: ['EACCES', 'EADDRINUSE'], quirk: 'An AF_UNIX path in a directory of the host (-v) is EACCES; abstract names that begin with vkernel/ are EACCES.' }),
  syscall(50, 'listen', { fd, backlog: int }, { ...direct, doc: 'Listen for connections.' }),
  syscall(51, 'getsockname', { fd, addr: pointer, addrlen: pointer }, { ...local, doc: 'Read the local address.' }),
  syscall(52, 'getpeername', { fd, addr: pointer, addrlen: pointer }, { ...local, doc: 'Read the peer\'s address.' }),
  syscall(53, 'socketpair', { domain: int, type: int, protocol: int, sv: output(8) }, { ...local, doc: 'Make a pair of connected sockets.' }),
  syscall(54, 'setsockopt', { fd, level: int, optname: int, optval: input('optlen'), optlen: int }, { ...direct, doc: 'Set a socket option.' }),
  syscall(55, 'getsockopt', { fd, level: int, optname: int, optval: pointer, optlen: int }, { ...local, doc: 'Read a socket option.' }),
  syscall(288, 'accept4', { fd, addr: pointer, addrlen: pointer, flags }, { ...local, newFd: true, restart: true, doc: 'Accept a connection with flags.' }),
  syscall(299, 'recvmmsg', { fd, msgvec: pointer, vlen: int, flags: int, timeout: pointer }, { ...local, restart: true, doc: 'Receive several messages.' }),
  syscall(307, 'sendmmsg', { fd, msgvec: pointer, vlen: int, flags: int }, { ...local, restart: true, doc: 'Send several messages.' }),
]
