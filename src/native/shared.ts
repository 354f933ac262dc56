/**
 * Memory shared with guests. The buffers outlive the mappings and are used for the next ones of their size: a new
 * one of a ring's size makes the garbage collector run, for milliseconds.
 */
import { addon } from './addon.ts'

const KEPT = 8
const free = new Map<number, Buffer[]>()

/** Maps `size` bytes of `fd`, shared. Throws when there is no memory. */
export function mapShared(fd: number, size: number): Buffer {
  const known = free.get(size)?.pop()
  return known && addon.remapShared(known, fd) === 0 ? known : addon.mapShared(fd, size)
}

/** Gives the memory back at once. The caller looks at the buffer no more. */
export function releaseShared(buffer: Buffer): void {
  addon.forgetShared(buffer)
  const list = free.get(buffer.length)
  if (!list) free.set(buffer.length, [buffer])
  else if (list.length < KEPT) list.push(buffer)
}
