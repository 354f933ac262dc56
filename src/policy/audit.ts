/**
 * The audit log: one JSON line per decision, numbered, chained by hash so that a change, a gap or a
 * repetition shows, over restarts of the daemon too. One daemon at a time has a file.
 *
 * The chain alone cannot show a cut at the end: that takes a checkpoint (`head`) kept elsewhere.
 */
import { createHash } from 'node:crypto'
import { closeSync, fstatSync, ftruncateSync, mkdirSync, openSync, readSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { addon } from '../native/addon.ts'

export interface AuditEvent {
  readonly container: string
  readonly event: 'exec' | 'mmap' | 'syscall' | 'egress' | 'instruction' | 'protocol' | 'policy' | 'audit'
  readonly decision: 'allowed' | 'denied' | 'reported'
  readonly path?: string
  /** SHA-256 seen, hex. */
  readonly digest?: string
  /** The rule that decided. */
  readonly rule: string
}

export interface Checkpoint { readonly seq: number; readonly hash: string }

const FIRST: Checkpoint = { seq: 0, hash: '0'.repeat(64) }
const CHUNK = 1 << 16
const MAX_LINE = 1 << 20

const hashOf = (line: string | Buffer): string => createHash('sha256').update(line).digest('hex')

export class Audit {
  private readonly fd: number
  private head: Checkpoint = FIRST
  /** Bytes of whole records. */
  private size = 0
  readonly recent: (AuditEvent & { seq: number; time: string })[] = []

  readonly file: string

  /** Throws when the file cannot be written, is another daemon's, or does not end in a record. */
  constructor(file: string) {
    this.file = file
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
    // O_APPEND would leave half a record where a write failed; positions are kept here instead.
    this.fd = openSync(file, 0o102, 0o600)
    if (addon.lockFile(this.fd) < 0) throw new Error(`the audit log ${file} is in use by another daemon; give this one another: --audit FILE`)
    this.resume()
  }

  /** Continues the chain where the last daemon left it; half a record of a killed one is cut off and reported. */
  private resume(): void {
    const { size } = fstatSync(this.fd)
    const tail = Buffer.alloc(Math.min(size, MAX_LINE))
    readSync(this.fd, tail, 0, tail.length, size - tail.length)
    const end = tail.lastIndexOf(10)
    const half = tail.length - (end + 1)
    if (size > 0 && end < 0) throw new Error(`${this.file} is no audit log: it has no line; move it away`)
    if (end >= 0) {
      const line = tail.subarray(tail.lastIndexOf(10, end - 1) + 1, end)
      const seq = readRecord(line)?.seq
      if (seq === undefined) throw new Error(`the last record of ${this.file} is damaged; look with \`recompiler audit verify ${this.file}\`, then move the file away`)
      this.head = { seq, hash: hashOf(line) }
    }
    this.size = size - half
    if (half > 0) {
      ftruncateSync(this.fd, this.size)
      this.record({ container: '', event: 'audit', decision: 'reported', rule: `${half} bytes of an unfinished record were cut off` })
    }
  }

  /** Where the log is now: kept elsewhere, it shows a cut. */
  get checkpoint(): Checkpoint {
    return this.head
  }

  /** Writes one record; throws when it cannot, and then nothing is allowed to depend on it. */
  record(event: AuditEvent): void {
    const body = { seq: this.head.seq + 1, time: new Date().toISOString(), ...event, prev: this.head.hash }
    const line = JSON.stringify(body)
    const bytes = Buffer.from(line + '\n')
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(this.fd, bytes, done, bytes.length - done, this.size + done)
    } catch (e) {
      // Whatever part was written must not stay behind the last whole record.
      try { ftruncateSync(this.fd, this.size) } catch { /* the next record overwrites it */ }
      throw e
    }
    this.size += bytes.length
    this.head = { seq: body.seq, hash: hashOf(line) }
    this.recent.push(body)
    if (this.recent.length > 1000) this.recent.shift()
  }

  close(): void {
    closeSync(this.fd)
  }
}

function readRecord(line: Buffer): { seq: number; prev: string } | undefined {
  try {
    const v = JSON.parse(line.toString('utf8')) as { seq?: unknown; prev?: unknown }
    return Number.isSafeInteger(v.seq) && typeof v.prev === 'string' ? { seq: v.seq as number, prev: v.prev } : undefined
  } catch {
    return undefined
  }
}

export interface AuditVerdict {
  readonly ok: boolean
  readonly records: number
  /** Line, from 1, of the first fault. */
  readonly line?: number
  readonly why?: string
  readonly head: Checkpoint
}

/**
 * Checks every record of a log: whole lines, numbers without gaps from 1 on, each the hash of the one
 * before. `checkpoint`: a record that must be there (what a cut at the end would take away).
 */
export function verifyAudit(file: string, checkpoint?: Checkpoint): AuditVerdict {
  const fd = openSync(file, 'r')
  let head = FIRST
  let line = 0
  let reached = !checkpoint || checkpoint.seq === 0
  const fault = (why: string): AuditVerdict => ({ ok: false, records: head.seq, line, why, head })
  try {
    let rest: Buffer = Buffer.alloc(0)
    const chunk = Buffer.alloc(CHUNK)
    for (let at = 0; ;) {
      const n = readSync(fd, chunk, 0, CHUNK, at)
      at += n
      rest = Buffer.concat([rest, chunk.subarray(0, n)])
      let from = 0
      for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10, from)) {
        const bytes = rest.subarray(from, end)
        from = end + 1
        line++
        const r = readRecord(bytes)
        if (!r) return fault('not a record')
        if (r.seq !== head.seq + 1) return fault(`record ${r.seq} where ${head.seq + 1} is due`)
        if (r.prev !== head.hash) return fault('it does not continue the record before it: that one, or this one, was changed')
        head = { seq: r.seq, hash: hashOf(bytes) }
        if (checkpoint?.seq === r.seq) {
          if (checkpoint.hash !== head.hash) return fault('it is not the record of the checkpoint')
          reached = true
        }
      }
      rest = rest.subarray(from)
      if (n === 0) break
      if (rest.length > MAX_LINE) { line++; return fault('a line without an end') }
    }
    if (rest.length > 0) { line++; return fault('an unfinished record') }
    if (!reached) return fault(`the log ends at record ${head.seq}, the checkpoint is ${checkpoint!.seq}`)
    return { ok: true, records: head.seq, head }
  } finally {
    closeSync(fd)
  }
}
