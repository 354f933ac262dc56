/**
 * Who watches a container's calls: `recompiler trace` gets a record of each call it asked for, `recompiler
 * stats` the counts of all. The loader looks at the ring's header whether anybody does (docs/abi.md); what
 * it writes there is the guest's word.
 */
import * as R from '../abi/ring.ts'
import type { CallStats, Ring } from './ring.ts'

export interface WatchRequest {
  /** Calls that are recorded, a bit a number. */
  readonly calls: Buffer
  /** Bytes of each string or buffer. */
  readonly bytes: number
  readonly records: boolean
  readonly stats: boolean
}

export interface Watcher extends WatchRequest {
  /** A record, as the loader made it; hostile. */
  readonly record: (bytes: Buffer) => void
  /** The container has ended; what was counted, for who asked. */
  readonly ended: (stats: CallStats[]) => void
}

const FILTER = R.STATS_CALLS / 8
export const MAX_WATCH_BYTES = 8192

export class Watchers {
  private readonly all = new Set<Watcher>()
  private readonly ring: Ring
  /** The last counts, when the ring is gone. */
  private last: CallStats[] | undefined

  constructor(ring: Ring) {
    this.ring = ring
  }

  add(w: Watcher): void {
    this.all.add(w)
    this.tell()
  }

  remove(w: Watcher): void {
    if (this.all.delete(w) && !this.last) this.tell()
  }

  /** The ring goes. */
  close(): void {
    this.last = this.ring.stats()
    for (const w of this.all) if (w.stats) w.ended(this.last)
  }

  /** Says in the ring's header what anybody wants. */
  private tell(): void {
    const calls = Buffer.alloc(FILTER)
    let flags = 0, bytes = 0
    for (const w of this.all) {
      if (w.stats) flags |= R.WATCH_STATS
      if (!w.records) continue
      flags |= R.WATCH_RECORDS
      bytes = Math.max(bytes, w.bytes)
      for (let n = 0; n < FILTER; n++) calls[n]! |= w.calls[n] ?? 0
    }
    this.ring.watch(flags, bytes, calls)
  }

  record(nr: number, bytes: Buffer): void {
    for (const w of this.all) if (w.records && (w.calls[nr >> 3] ?? 0) & (1 << (nr & 7))) w.record(bytes)
  }

  stats(): CallStats[] {
    return this.last ?? this.ring.stats()
  }
}
