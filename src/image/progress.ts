/**
 * Progress of a build on stderr: a bar per stage on a terminal; otherwise JSON lines: one when a stage
 * starts, one a second while it runs, one when it ends.
 *
 *   {"stage":"translate","done":1048576,"total":4194304,"unit":"bytes","ms":2100}
 */
const REDRAW_MS = 80, LINE_MS = 1000, WIDTH = 30

/** Where progress goes: process.stderr, or a test's. */
export interface Sink { readonly isTTY?: boolean; readonly columns?: number; write(text: string): unknown }

export type Unit = 'items' | 'bytes'

const amount = (n: number, unit: Unit): string => (unit === 'items' ? String(n) : n < 2 ** 20 ? `${(n / 2 ** 10).toFixed(0)} kB` : `${(n / 2 ** 20).toFixed(1)} MB`)

export class Progress {
  private name = ''
  private total = 0
  private done = 0
  private unit: Unit = 'items'
  private shown = 0
  private started = 0
  private readonly sink: Sink

  constructor(sink: Sink = process.stderr) {
    this.sink = sink
  }

  /** Starts a stage of `total` (0: not known yet, see expect); ends the one before. */
  stage(name: string, total: number, unit: Unit = 'items'): void {
    this.end()
    this.name = name
    this.total = total
    this.unit = unit
    this.done = 0
    this.started = this.shown = Date.now()
    this.show()
  }

  /** Says how much the running stage is. */
  expect(total: number): void {
    this.total = total
    this.show()
  }

  step(by = 1): void {
    this.done += by
    if (Date.now() - this.shown < (this.sink.isTTY ? REDRAW_MS : LINE_MS)) return
    this.shown = Date.now()
    this.show()
  }

  /** Ends the running stage. */
  end(): void {
    if (!this.name) return
    const ms = Date.now() - this.started
    if (this.sink.isTTY) this.sink.write(`\r\x1b[K${this.name}: ${amount(this.done, this.unit)} in ${(ms / 1000).toFixed(1)} s\n`)
    else this.line(true)
    this.name = ''
  }

  /** Leaves the line of a bar whose stage failed, so that what is said next has a line of its own. */
  abort(): void {
    if (this.name && this.sink.isTTY) this.sink.write('\n')
    this.name = ''
  }

  private line(ended: boolean): void {
    this.sink.write(`${JSON.stringify({ stage: this.name, done: this.done, total: ended ? this.done : this.total, unit: this.unit, ms: Date.now() - this.started, ...(ended ? { ended } : {}) })}\n`)
  }

  private show(): void {
    if (!this.sink.isTTY) return this.line(false)
    const part = this.total ? Math.min(1, this.done / this.total) : 0
    const full = Math.floor(part * WIDTH)
    const text = `${this.name} [${'#'.repeat(full)}${'.'.repeat(WIDTH - full)}] ${amount(this.done, this.unit)}${this.total ? `/${amount(this.total, this.unit)}` : ''}`
    this.sink.write(`\r\x1b[K${text.slice(0, (this.sink.columns || 80) - 1)}`)
  }
}
