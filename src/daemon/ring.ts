/**
 * Consumer side of a container's request ring (docs/abi.md). Every byte is hostile: a slot's word and
 * arguments are taken once, and only the copies are looked at.
 */
import { closeSync } from 'node:fs'
import * as R from '../abi/ring.ts'
import { EAGAIN, EIO, ENOSYS } from '../abi/errno.ts'
import { addon } from '../native/addon.ts'
import { mapShared, releaseShared } from '../native/shared.ts'
import { Call } from '../syscalls/handler.ts'
import { handlers } from '../syscalls/index.ts'
import { nrOf } from '../syscalls/table/index.ts'
import type { Container, Task } from '../task/container.ts'

const ARGS = R.SLOT_ARGS / 4
const FORK = nrOf('fork')
/** Reply of a call whose result does not fit a number. */
const HIGH = 0x1_0000_0000

/** A reply whose descriptors could not be sent yet. */
interface Deferred { readonly task: Task; readonly slot: number; readonly nr: number; readonly ret: number; readonly fds: number[]; tries: number }

/** What one call has cost so far: `below[n]` of its calls took less than 64·2^n ns, and not less than half of it. */
export interface CallStats { readonly nr: number; readonly count: number; readonly failed: number; readonly ns: number; readonly longest: number; readonly below: number[] }

/** A thread as it says itself; `nr` −1: it is in its own code. */
export interface Doing { readonly task: number; readonly tid: number; readonly nr: number; readonly word: number; readonly owner: number; readonly args: readonly bigint[] }

/** Milliseconds that a reply waits for a guest to read its connection. */
const MAX_TRIES = 5000

export class Ring {
  readonly fd: number
  readonly doorbell: number
  private readonly buffer: Buffer
  private readonly words: Int32Array
  /** Task that last used a slot, to free the slots of the dead. */
  private readonly owners = new Int32Array(R.RING_SLOTS)
  private readonly windows: Buffer[] = []
  private readonly call = new Call()
  private readonly slotNumber = Buffer.alloc(4)
  private readonly deferred: Deferred[] = []
  private timer: NodeJS.Timeout | undefined

  private readonly container: Container
  private readonly violated: (task: Task | undefined, what: string) => void
  private readonly drain: (task: Task) => void

  constructor(container: Container, violated: (task: Task | undefined, what: string) => void, drain: (task: Task) => void) {
    this.container = container
    this.violated = violated
    this.drain = drain
    this.fd = addon.createRing(R.RING_SIZE)
    this.doorbell = addon.eventfd()
    if (this.fd < 0 || this.doorbell < 0) {
      for (const fd of [this.fd, this.doorbell]) if (fd >= 0) closeSync(fd)
      throw new Error(`no descriptors for a ring (errno ${-Math.min(this.fd, this.doorbell)})`)
    }
    this.buffer = mapShared(this.fd, R.RING_SIZE)
    this.words = new Int32Array(this.buffer.buffer, this.buffer.byteOffset, R.RING_SIZE / 4)
    this.buffer.writeUInt32LE(R.RING_MAGIC, R.HDR_MAGIC)
    this.buffer.writeUInt32LE(R.RING_VERSION, R.HDR_VERSION)
    this.buffer.writeUInt32LE(R.RING_SLOTS, R.HDR_SLOTS)
    this.buffer.writeUInt32LE(R.RING_WINDOW, R.HDR_WINDOW)
  }

  /** Says that the daemon is about to sleep: guests ring the doorbell from now on. */
  sleep(): void {
    Atomics.store(this.words, R.HDR_ASLEEP / 4, 1)
  }

  awake(): void {
    Atomics.store(this.words, R.HDR_ASLEEP / 4, 0)
  }

  /** Answers what is posted; true when there was something. */
  poll(): boolean {
    let any = false
    for (let w = 0; w < R.RING_SLOTS / 32; w++) {
      if (Atomics.load(this.words, R.HDR_POSTED / 4 + w) === 0) continue
      let posted = Atomics.exchange(this.words, R.HDR_POSTED / 4 + w, 0)
      while (posted !== 0) {
        const bit = 31 - Math.clz32(posted & -posted)
        posted &= posted - 1
        any = true
        this.answer(w * 32 + bit)
      }
    }
    return any
  }

  private windowOf(slot: number): Buffer {
    const known = this.windows[slot]
    if (known) return known
    const off = R.WINDOWS_OFF + slot * R.RING_WINDOW
    return (this.windows[slot] = this.buffer.subarray(off, off + R.RING_WINDOW))
  }

  private answer(slot: number): void {
    const at = R.SLOTS_OFF + slot * R.SLOT_SIZE
    const { words, call } = this
    const word = Atomics.load(words, at / 4)
    if (!(word & R.WORD_REQUEST) || word & R.WORD_DONE) return
    const nr = word & R.WORD_NR_MASK
    const num = words[(at + R.SLOT_TASK) / 4]!
    for (let n = 0; n < 12; n++) call.args[n] = words[at / 4 + ARGS + n]!
    const task = this.container.tasks.get(num)
    if (!task) return this.violated(undefined, `a request names task ${num}`)
    this.owners[slot] = num
    call.begin(task, this.windowOf(slot))
    const handler = handlers.get(nr)
    let ret = -ENOSYS
    if (handler) {
      // What it has sent by its connection before it asked: who it is, and its child's connection.
      if (task.hostPid === 0 || nr === FORK && task.announced.length === 0) this.drain(task)
      this.container.current = task
      try {
        ret = handler(call)
      } catch (e) {
        ret = -EIO
        process.stderr.write(`vkernel: bug in call ${nr}: ${(e as Error).stack}\n`)
      }
      this.container.current = undefined
    }
    if (call.fds.length > 0) {
      const sent = this.grant(task, slot, call.fds)
      if (sent === -EAGAIN) return this.defer({ task, slot, nr, ret, fds: [...call.fds], tries: 0 })
      for (const fd of call.fds) closeSync(fd)
      this.reply(slot, nr, sent === 4 ? ret : -EIO, sent === 4)
    } else {
      this.reply(slot, nr, ret, false)
    }
  }

  /** Descriptors go before the reply, by the task's own connection. */
  private grant(task: Task, slot: number, fds: number[]): number {
    this.slotNumber.writeUInt32LE(slot)
    return addon.send(task.conn, this.slotNumber, fds)
  }

  private reply(slot: number, nr: number, ret: number, withFds: boolean): void {
    const { words } = this
    const at = R.SLOTS_OFF + slot * R.SLOT_SIZE
    words[(at + R.SLOT_RET) / 4] = ret | 0
    words[(at + R.SLOT_RET) / 4 + 1] = Math.floor(ret / HIGH)
    const old = Atomics.exchange(words, at / 4, (R.WORD_DONE | nr | (withFds ? R.WORD_FDS : 0)) | 0)
    if (old & R.WORD_WAITING) addon.futexWake(this.buffer, at)
  }

  /**
   * A connection takes only a few packets at once (unix(7) max_dgram_qlen): with many threads asking,
   * the reply waits until the first have read theirs. A guest that never reads waits for itself.
   */
  private defer(d: Deferred): void {
    this.deferred.push(d)
    this.timer ??= setTimeout(() => this.retry(), 1)
  }

  private retry(): void {
    this.timer = undefined
    for (const d of this.deferred.splice(0)) {
      const sent = this.grant(d.task, d.slot, d.fds)
      if (sent === -EAGAIN && ++d.tries < MAX_TRIES) {
        this.defer(d)
        continue
      }
      for (const fd of d.fds) closeSync(fd)
      if (sent === 4) this.reply(d.slot, d.nr, d.ret, true)
      else this.violated(d.task, 'it does not read its connection')
    }
  }

  /** Says what of the calls is watched: WATCH_ bits, bytes of a string, a bit a call. */
  watch(flags: number, bytes: number, calls: Buffer): void {
    calls.copy(this.buffer, R.HDR_WATCH_CALLS)
    Atomics.store(this.words, R.HDR_WATCH_BYTES / 4, bytes)
    Atomics.store(this.words, R.HDR_WATCH / 4, flags)
  }

  /** What was counted while somebody watched. */
  stats(): CallStats[] {
    const out: CallStats[] = []
    for (let nr = 0; nr < R.STATS_CALLS; nr++) {
      const at = R.STATS_OFF + nr * R.STATS_SIZE
      const u64 = (n: number): number => Number(this.buffer.readBigUInt64LE(at + 8 * n))
      const count = u64(0)
      if (count === 0) continue
      out.push({ nr, count, failed: u64(1), ns: u64(2), longest: u64(3), below: Array.from({ length: R.STATS_BUCKETS }, (_, n) => this.buffer.readUInt32LE(at + 32 + 4 * n)) })
    }
    return out
  }

  private * threadEntries(): Generator<[entry: number, at: number]> {
    for (let w = 0; w < R.RING_THREADS / 32; w++) {
      let bits = Atomics.load(this.words, R.HDR_THREADS / 4 + w)
      while (bits !== 0) {
        const bit = 31 - Math.clz32(bits & -bits)
        bits &= bits - 1
        yield [w * 32 + bit, R.THREADS_OFF + (w * 32 + bit) * R.THREAD_SIZE]
      }
    }
  }

  /** What the threads are doing. */
  threads(): Doing[] {
    return [...this.threadEntries()].map(([, at]) => ({
      task: this.buffer.readUInt32LE(at), tid: this.buffer.readUInt32LE(at + 4), nr: this.buffer.readUInt32LE(at + R.THREAD_CALL) - 1,
      word: this.buffer.readUInt32LE(at + R.THREAD_WORDS), owner: this.buffer.readUInt32LE(at + R.THREAD_WORDS + 4),
      args: [0, 1, 2, 3].map((n) => this.buffer.readBigUInt64LE(at + R.THREAD_ARGS + 8 * n)),
    }))
  }

  /** Frees the slots of a dead task. */
  release(task: Task): void {
    for (const d of this.deferred.filter((d) => d.task === task)) {
      this.deferred.splice(this.deferred.indexOf(d), 1)
      for (const fd of d.fds) closeSync(fd)
    }
    for (let slot = 0; slot < R.RING_SLOTS; slot++) {
      if (this.owners[slot] !== task.num) continue
      this.owners[slot] = 0
      Atomics.store(this.words, (R.SLOTS_OFF + slot * R.SLOT_SIZE) / 4, 0)
      Atomics.and(this.words, R.HDR_CLAIMED / 4 + (slot >> 5), ~(1 << (slot & 31)))
    }
    for (const [n, at] of this.threadEntries()) {
      if (this.words[at / 4] === task.num) Atomics.and(this.words, R.HDR_THREADS / 4 + (n >> 5), ~(1 << (n & 31)))
    }
  }

  /** Gives the memory and descriptors back now; the garbage collector has no part in it. */
  destroy(): void {
    clearTimeout(this.timer)
    for (const d of this.deferred.splice(0)) for (const fd of d.fds) closeSync(fd)
    releaseShared(this.buffer)
    closeSync(this.fd)
    closeSync(this.doorbell)
  }
}
