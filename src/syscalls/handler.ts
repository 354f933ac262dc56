/** What a mediated call's handler gets: the task, the request's arguments, and the slot's window. */
import { RING_WINDOW } from '../abi/ring.ts'
import type { Errno } from '../abi/errno.ts'
import type { Dentry } from '../fs/inode.ts'
import type { Task } from '../task/container.ts'
import * as E from '../abi/errno.ts'

/** A place in the window; `undefined`: the guest passed a null pointer. */
export interface Place { readonly off: number; readonly len: number }

/**
 * One request. The window is the daemon's copy of its used part: it was taken once, and what is
 * written goes back with the reply.
 */
export class Call {
  /** Descriptors that go with the reply; closed after sending. */
  readonly fds: number[] = []
  private readonly writes: { off: number; bytes: Buffer }[] = []

  readonly task: Task
  readonly args: readonly bigint[]
  private readonly window: Buffer

  constructor(task: Task, args: readonly bigint[], window: Buffer) {
    this.task = task
    this.args = args
    this.window = window
  }

  int(n: number): number {
    return Number(BigInt.asIntN(32, this.args[n]!))
  }

  /** A 64-bit signed value, exact up to 2^53. */
  long(n: number): number {
    return Number(BigInt.asIntN(64, this.args[n]!))
  }

  place(n: number): Place | undefined {
    const v = this.args[n]!
    if (v === 0xffff_ffff_ffff_ffffn) return undefined
    const off = Number(v & 0xffff_ffffn)
    const len = Number(v >> 32n)
    return off <= RING_WINDOW && len <= RING_WINDOW - off ? { off, len } : { off: 0, len: 0 }
  }

  bytes(n: number): Buffer | undefined {
    const p = this.place(n)
    return p && Buffer.from(this.window.subarray(p.off, p.off + p.len))
  }

  /** A path or name, one character a byte. */
  text(n: number): string {
    return this.bytes(n)?.toString('latin1') ?? ''
  }

  /** The dentry behind a node-id argument. */
  node(n: number): Dentry | Errno {
    return this.task.container.vfs.dentry(Number(this.args[n]! & 0xffff_ffffn)) ?? -E.ENOENT
  }

  /** Writes an out buffer, cut to its capacity; returns the bytes written. */
  out(n: number, bytes: Buffer): number {
    const p = this.place(n)
    if (!p) return 0
    return this.write(p.off, bytes.subarray(0, p.len))
  }

  write(off: number, bytes: Buffer): number {
    this.writes.push({ off, bytes })
    return bytes.length
  }

  /** Copies what was written into the shared window. */
  flush(window: Buffer): void {
    for (const w of this.writes) w.bytes.copy(window, w.off)
  }
}

export type Handler = (call: Call) => number
