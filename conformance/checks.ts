/** What a runner finds out, said line by line and counted. */
export class Checks {
  private passed = 0
  private failed = 0

  check(title: string, ok: boolean, why = ''): void {
    if (ok) this.passed++
    else this.failed++
    console.log(`${ok ? 'ok' : 'not ok'} - ${title}${ok ? '' : `: ${why}`}`)
  }

  /** Says the sum; returns the exit status. */
  end(): number {
    console.log(`${this.passed} passed, ${this.failed} failed`)
    return this.failed ? 1 : 0
  }
}
