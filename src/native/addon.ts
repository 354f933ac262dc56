/** The native half of the daemon (native/seccomp-notify): typed, loaded once. */
import { createRequire } from 'node:module'
import { join } from 'node:path'

export interface Packet { readonly data: Buffer; readonly fds: number[]; readonly pid: number; readonly error: number }

interface Addon {
  createRing(size: number): number
  createPages(size: number): number
  mapShared(fd: number, size: number): Buffer
  sealReadOnly(fd: number): number
  futexWake(buffer: Buffer, off: number): number
  eventfd(): number
  epollCreate(): number
  epollAdd(ep: number, fd: number, id: number): number
  epollDel(ep: number, fd: number): number
  epollWait(ep: number, timeoutMs: number, ids: Int32Array): number
  loopFd(): number
  loopTimeout(): number
  seqpacketPair(): number[]
  receiveCredentials(fd: number): void
  listenUnix(path: string): number
  acceptUnix(listener: number): { fd: number; pid: number; uid: number }
  receive(fd: number, max: number): Packet
  send(fd: number, data: Buffer, fds: number[]): number
  memoryFile(data: Buffer, sealed: boolean): number
  sealedCopy(from: number): number
  guestMemfd(name: string, flags: number): number
  duplicate(fd: number): number
  setTimes(path: Buffer, times: number[]): number
  makeFifo(path: Buffer, mode: number): number
  makeFile(path: Buffer, mode: number): number
  pipe(nonblock: boolean): number[]
  drainPipe(write: number): void
  inotifyInit(): number
  inotifyAdd(fd: number, path: Buffer, mask: number): number
  inotifyRemove(fd: number, wd: number): number
  pidfdOpen(pid: number): number
  pidfdSignal(pidfd: number, signo: number): number
  openBeneath(dir: number, path: Buffer, flags: number, mode: number): number
  reopen(fd: number, flags: number): number
  mkdirAt(dir: number, name: Buffer, mode: number): number
  fifoAt(dir: number, name: Buffer, mode: number): number
  unlinkAt(dir: number, name: Buffer, flags: number): number
  symlinkAt(target: Buffer, dir: number, name: Buffer): number
  linkAt(from: number, name: Buffer, to: number, newName: Buffer): number
  renameAt(from: number, name: Buffer, to: number, newName: Buffer, flags: number): number
  readlinkFd(fd: number): Buffer
  chownFd(fd: number, uid: number, gid: number): number
  timesFd(fd: number, times: number[]): number
  openPty(flags: number): number
  ptyNumber(fd: number): number
  lockFile(fd: number): number
  forgetShared(buffer: Buffer): number
  remapShared(buffer: Buffer, fd: number): number
  connectOut(kind: number, address: Buffer): number
  listenInet(kind: number, address: Buffer): number
  acceptInet(listener: number): { readonly fd: number; readonly address: Buffer }
  socketAddress(fd: number): Buffer
  bindInside(fd: number, address: Buffer, hold: boolean): number
  connectInside(fd: number, address: Buffer): number
  receiveFrom(fd: number, max: number): { readonly data: Buffer; readonly address: Buffer; readonly error: number }
  sendTo(fd: number, data: Buffer, address: Buffer): number
  waitReadable(fd: number, timeoutMs: number): number
  relayStart(): number
  relayLimit(group: number, bytes: number): void
  relayBytes(group: number): number
  relayPair(id: number, group: number, host: number, inner: number, then: Buffer): void
  relayPort(id: number, group: number, socket: number, to: Buffer, inside: boolean, standIn: Buffer): void
  relaySpares(id: number, fds: number[]): void
  relaySpeaks(group: number, address: Buffer): boolean
  relayClose(id: number): void
  relayDrop(group: number): void
  relayEvents(): { readonly id: number; readonly kind: number; readonly errno: number }[]
}

const file = join(import.meta.dirname, '../../build/addon.node')
export const addon = createRequire(import.meta.url)(file) as Addon
