/**
 * `npm test`, `npm run test:long`, `npm run check`: runs suites, counts what they say, and closes
 * with `N passed, N failed`. What could not run here is a line `skipped: …` and is counted as
 * skipped, never as passed. A suite that prints no count is one test.
 */
import { spawn } from 'node:child_process'
import { createWriteStream, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './stamp.ts'
import { suites, type Run, type Suite } from './suites.ts'

export interface Counts { passed: number; failed: number; skipped: number }

/** Sums what cargo, ava and our own runners print; undefined when there is no count. */
export function counts(output: string): Counts | undefined {
  const sum: Counts = { passed: 0, failed: 0, skipped: 0 }
  let seen = false
  for (const m of output.matchAll(/^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/gm)) {
    sum.passed += Number(m[1]); sum.failed += Number(m[2]); sum.skipped += Number(m[3]); seen = true
  }
  // ava; an uncaught exception or a file that cannot be loaded is a failure of its own.
  for (const m of output.matchAll(/^\s*(\d+) (?:(?:tests?|known) (passed|failed|skipped|todo|failures?)|(uncaught exception|unhandled rejection)s?)$/gm)) {
    const kind = m[3] ?? m[2]!
    const key = kind === 'passed' || kind.startsWith('failure') ? 'passed' : kind === 'skipped' || kind === 'todo' ? 'skipped' : 'failed'
    sum[key] += Number(m[1]); seen = true
  }
  // With failures ava's summary leaves out what passed.
  if (seen && !/^\s*\d+ tests? passed$/m.test(output)) sum.passed += output.match(/^\s+✔ /gm)?.length ?? 0
  for (const m of output.matchAll(/^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/gm)) {
    sum.passed += Number(m[1]); sum.failed += Number(m[2]); sum.skipped += Number(m[3] ?? 0); seen = true
  }
  return seen ? sum : undefined
}

/** A line that is redrawn while a suite runs, on a terminal only. */
function status(text: string): void {
  if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${text.slice(0, process.stdout.columns - 1)}`)
}

/** Runs a suite's command; its whole output goes to build/logs and is returned with its exit status. */
function execute(suite: Suite): Promise<{ output: string; status: number | undefined; late: boolean }> {
  const logs = join(root, 'build/logs')
  mkdirSync(logs, { recursive: true })
  const log = createWriteStream(join(logs, `${suite.name.replace(/[^a-z]+/g, '-')}.log`))
  return new Promise((done) => {
    // A process group of its own, so that a late suite ends with all it has started.
    const child = spawn(suite.command, suite.args, { cwd: join(root, suite.cwd ?? '.'), stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    let output = '', late = false
    const started = Date.now()
    const take = (text: string): void => {
      output += text
      log.write(text)
    }
    child.stdout.setEncoding('utf8').on('data', take)
    child.stderr.setEncoding('utf8').on('data', take)
    const group = (signal: 'SIGTERM' | 'SIGKILL'): void => { try { process.kill(-child.pid!, signal) } catch { /* it has ended */ } }
    const timer = setTimeout(() => { late = true; group('SIGTERM'); setTimeout(() => group('SIGKILL'), 5000).unref() }, suite.timeoutMinutes * 60_000)
    const ticker = setInterval(() => {
      const line = output.trimEnd().slice(-400).split('\n').at(-1) ?? ''
      status(`   ${Math.round((Date.now() - started) / 1000)} s  ${line.trim()}`)
    }, 500)
    const end = (code: number | undefined, what = ''): void => {
      clearTimeout(timer)
      clearInterval(ticker)
      status('')
      log.end(what)
      done({ output: output + what, status: code, late })
    }
    child.on('error', (e) => end(undefined, `cannot run ${suite.command}: ${e.message}\n`))
    child.on('close', (code) => end(code ?? undefined))
  })
}

/** The end of a failed suite's output: enough to see why. The whole is in build/logs. */
const tail = (output: string): string => {
  const lines = output.trimEnd().split('\n')
  return lines.length > 250 ? [`… ${lines.length - 250} lines more in build/logs`, ...lines.slice(-250)].join('\n') : lines.join('\n')
}

async function one(suite: Suite): Promise<Counts> {
  console.log(`\n== ${suite.name}`)
  let why: string | undefined
  try {
    why = suite.prepare?.()
  } catch (e) {
    console.log(`${(e as Error).message}\n-- 0 passed, 1 failed`)
    return { passed: 0, failed: 1, skipped: 0 }
  }
  if (why) {
    console.log(`skipped: ${why}`)
    return { passed: 0, failed: 0, skipped: 1 }
  }
  const started = Date.now()
  const r = await execute(suite)
  const c = counts(r.output) ?? { passed: r.status === 0 ? 1 : 0, failed: 0, skipped: 0 }
  // A suite that ends badly has failed, whatever it counted.
  if (r.status !== 0 && c.failed === 0) c.failed = 1
  if (c.failed) console.log(tail(r.output))
  else for (const line of r.output.split('\n')) if (/^\s*(?:skipped:|[\d,]+ cases)|differences/.test(line)) console.log(line)
  if (r.late) console.log(`ended: it took longer than ${suite.timeoutMinutes} minutes`)
  console.log(`-- ${c.passed} passed, ${c.failed} failed${c.skipped ? `, ${c.skipped} skipped` : ''} (${((Date.now() - started) / 1000).toFixed(1)} s)`)
  return c
}

/** Runs the suites of `run`; returns the exit status. */
export async function runTests(run: Run): Promise<number> {
  const sum: Counts = { passed: 0, failed: 0, skipped: 0 }
  for (const suite of suites().filter((s) => s.in.includes(run))) {
    const c = await one(suite)
    sum.passed += c.passed
    sum.failed += c.failed
    sum.skipped += c.skipped
  }
  if (sum.skipped) console.log(`\n${sum.skipped} skipped`)
  console.log(`${sum.skipped ? '' : '\n'}${sum.passed} passed, ${sum.failed} failed`)
  return sum.failed ? 1 : 0
}
