/** The audit log: one JSON line per decision against the guest, chained by hash so that a cut shows. */
import { createHash } from 'node:crypto'
import { mkdirSync, openSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'

export interface AuditEvent {
  readonly container: string
  readonly event: 'exec' | 'mmap' | 'syscall' | 'egress' | 'instruction' | 'protocol'
  readonly decision: 'denied' | 'reported'
  readonly path?: string
  /** SHA-256 seen, hex. */
  readonly digest?: string
  /** The rule that decided. */
  readonly rule: string
}

export class Audit {
  private readonly fd: number
  private seq = 0
  private last = '0'.repeat(64)
  readonly recent: (AuditEvent & { seq: number; time: string })[] = []

  readonly file: string

  constructor(file: string) {
    this.file = file
    mkdirSync(dirname(file), { recursive: true })
    this.fd = openSync(file, 'a', 0o600)
  }

  /** Writes one record; throws when it cannot, and then nothing is allowed to depend on it. */
  record(event: AuditEvent): void {
    const body = { seq: ++this.seq, time: new Date().toISOString(), ...event, prev: this.last }
    const line = JSON.stringify(body)
    this.last = createHash('sha256').update(line).digest('hex')
    writeSync(this.fd, line + '\n')
    this.recent.push(body)
    if (this.recent.length > 1000) this.recent.shift()
  }
}
