/** What a mediated call's handler gets: the task, the request's arguments, and the slot's window. */
import { RING_WINDOW } from '../abi/ring.ts'
import type { Errno } from '../abi/errno.ts'
import type { Dentry } from '../fs/inode.ts'
import type { Task } from '../task/container.ts'
import * as E from '../abi/errno.ts'

/** A place in the window; `undefined`: the guest passed a null pointer. */
export interface Place { readonly off: number; readonly len: number }

const NULL = 0xffff_ffff

/**
 * One request. Handlers are synchronous, so a ring has one of these and fills it anew for each call.
 *
 * The arguments are the daemon's copy, taken once. The window is shared with the guest, which may
 * change it at any time: a handler reads an argument's bytes once and looks at that copy only.
 */
export class Call {
  /** Descriptors that go with the reply; closed after sending. */
  readonly fds: number[] = []
  task!: Task
  /** Low and high half of each argument. */
  readonly args = new Uint32Array(12)
  private window!: Buffer

  /** Starts over for another request, whose arguments are in `args` already. */
  begin(task: Task, window: Buffer): void {
    this.task = task
    this.window = window
    this.fds.length = 0
  }

  int(n: number): number {
    return this.args[2 * n]! | 0
  }

  /** A 64-bit signed value, exact up to 2^53. */
  long(n: number): number {
    return (this.args[2 * n + 1]! | 0) * 0x1_0000_0000 + this.args[2 * n]!
  }

  place(n: number): Place | undefined {
    const off = this.args[2 * n]!, len = this.args[2 * n + 1]!
    if (off === NULL && len === NULL) return undefined
    return off <= RING_WINDOW && len <= RING_WINDOW - off ? { off, len } : { off: 0, len: 0 }
  }

  /** A copy of the bytes that an argument points to. */
  bytes(n: number): Buffer | undefined {
    const p = this.place(n)
    return p && Buffer.from(this.window.subarray(p.off, p.off + p.len))
  }

  /** A path or name, one character a byte. */
  text(n: number): string {
    const p = this.place(n)
    return p ? this.window.toString('latin1', p.off, p.off + p.len) : ''
  }

  /** The dentry behind a node-id argument. */
  node(n: number): Dentry | Errno {
    return this.task.container.vfs.dentry(this.args[2 * n]!) ?? -E.ENOENT
  }

  /** Writes an out buffer, cut to its capacity; returns the bytes written. */
  out(n: number, bytes: Buffer): number {
    const p = this.place(n)
    return p ? bytes.copy(this.window, p.off, 0, p.len) : 0
  }

  write(off: number, bytes: Buffer): number {
    return bytes.copy(this.window, off)
  }
}

export type Handler = (call: Call) => number
