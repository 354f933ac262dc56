/** The native half of the daemon (native/seccomp-notify): typed, loaded once. */
import { createRequire } from 'node:module'
import { join } from 'node:path'

export interface Packet { readonly data: Buffer; readonly fds: number[]; readonly pid: number; readonly error: number }

interface Addon {
  createRing(size: number): number
  mapShared(fd: number, size: number): Buffer
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
  rename2(from: Buffer, to: Buffer, flags: number): number
  pidfdOpen(pid: number): number
}

const file = join(import.meta.dirname, '../../build/addon.node')
export const addon = createRequire(import.meta.url)(file) as Addon
