/** Progress of a build on stderr: a bar per stage on a terminal, one JSON line per stage otherwise. */
export class Progress {
  private name = ''
  private total = 0
  private done = 0
  private shown = 0
  private readonly tty = process.stderr.isTTY
  private started = 0

  stage(name: string, total: number): void {
    this.finish()
    this.name = name
    this.total = total
    this.done = 0
    this.started = Date.now()
    this.draw(true)
  }

  step(): void {
    this.done++
    this.draw(false)
  }

  end(): void {
    this.finish()
    this.name = ''
  }

  private finish(): void {
    if (!this.name) return
    if (this.tty) process.stderr.write(`\r\x1b[K${this.name}: ${this.total} in ${((Date.now() - this.started) / 1000).toFixed(1)} s\n`)
    else process.stderr.write(JSON.stringify({ stage: this.name, count: this.total, ms: Date.now() - this.started }) + '\n')
  }

  private draw(always: boolean): void {
    if (!this.tty || (!always && Date.now() - this.shown < 80)) return
    this.shown = Date.now()
    const width = 30
    const full = this.total ? Math.floor((this.done / this.total) * width) : 0
    process.stderr.write(`\r\x1b[K${this.name} [${'#'.repeat(full)}${'.'.repeat(width - full)}] ${this.done}/${this.total}`)
  }
}
