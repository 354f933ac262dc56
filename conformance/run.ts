/**
 * Runs the C programs of system calls natively and in one container, and compares case by case:
 * natively every case passes; here it does too, or conformance/expect.toml says why not. An
 * unexpected pass is a failure.
 *
 *   npm run conformance:calls -- [--only TEXT] [--interpret] [--write] [--verbose]
 *
 * `--only`: programs whose name contains TEXT. `--interpret`: an image without translation. `--write`:
 * writes docs/conformance.md, which a full run otherwise compares with what it saw.
 *
 * Native is this host's kernel as a container has it: namespaces of its own, an overlay as root, the
 * capabilities that container engines leave.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { makeImage } from '../scripts/images.ts'
import { digestOf, root } from '../scripts/stamp.ts'
import { table } from '../src/syscalls/table/index.ts'
import { CALLS_ROOT, makeCalls, parse, type Outcome } from './calls.ts'
import { asContainer, contained as inContainer, type Ended } from './native.ts'
import { probesC } from './probes.ts'
import { readExpected, report, type Result } from './report.ts'

const SECONDS = 240
const DOC = join(root, 'docs/conformance.md')

/** What a run of the programs has said. Errors: it did not end well, or said something on standard error. */
function said(what: string, { stdout, stderr, status }: Ended): Outcome {
  if (status !== '0' || stderr !== '') throw new Error(`${what} ended with ${status}: ${stderr}${stdout.slice(-2000)}`)
  return parse(stdout)
}

const native = async (args: readonly string[]): Promise<Outcome> => said('the native run', await asContainer(
  CALLS_ROOT, '/tmp/calls', [], ['/bin/calls', '--all', '/tmp/calls', ...args], SECONDS))

const contained = async (image: string, args: readonly string[]): Promise<Outcome> => said('the container', await inContainer(
  image, '/tmp/calls', [], ['/bin/calls', '--all', '/tmp/calls', ...args], SECONDS))

/** Compares the two; every line that is not "ok" is a failure. */
function compare(linux: Outcome, ours: Outcome, whole: boolean): Result[] {
  const expected = readExpected('differs')
  const results: Result[] = []
  const add = (title: string, program: string, call: string, wrong: string | undefined, known?: string): void => {
    results.push({ title, program, call, wrong, ...(known === undefined ? {} : { known }) })
  }
  for (const line of linux.stray) add(`natively: ${line}`, '', '', 'not a line of TAP')
  for (const line of ours.stray) add(`here: ${line}`, '', '', 'not a line of TAP')
  const calls = new Set(table.map((e) => e.name))
  for (const [program, end] of linux.ends) if (end !== '0') add(`${program} ends`, program, '', `natively: ${end}`)
  for (const [title, want] of linux.cases) {
    const known = expected.get(title)
    const got = ours.cases.get(title)
    if (!calls.has(want.call)) add(title, want.program, want.call, `no call is named ${want.call}`)
    else if (!want.ok) add(title, want.program, want.call, `natively: ${want.note}`)
    else if (want.skip !== undefined) add(title, want.program, want.call, undefined, `not asked: ${want.skip}`)
    else if (got?.ok && got.skip === undefined) add(title, want.program, want.call, known === undefined ? undefined : 'passes now: take it out of conformance/expect.toml', known)
    else if (known !== undefined) add(title, want.program, want.call, undefined, known)
    else add(title, want.program, want.call, got ? got.note || got.skip || 'fails' : ours.probes.get(title) ?? `not reached: ${want.program} ended with ${ours.ends.get(want.program) ?? 'the container'}`)
  }
  for (const [title, c] of ours.cases) {
    const known = expected.get(title)
    // A probe that Linux answers by another error: its order of checks differs.
    if (linux.cases.has(title)) continue
    if (known !== undefined) add(title, c.program, c.call, undefined, known)
    else add(title, c.program, c.call, linux.probes.has(title) ? `natively: ${linux.probes.get(title)!}` : 'is not there natively')
  }
  if (whole) for (const title of expected.keys()) if (!linux.cases.has(title) && !ours.cases.has(title)) add(title, '', '', 'in conformance/expect.toml, but no such case')
  return results
}

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { only: { type: 'string' }, interpret: { type: 'boolean' }, write: { type: 'boolean' }, verbose: { type: 'boolean' } } })
  makeCalls(probesC())
  const image = makeImage(values.interpret ? 'calls-interpreted' : 'calls', 'building the image of the programs of system calls',
    ['--rootfs', CALLS_ROOT, ...(values.interpret ? ['--no-translate'] : [])], [digestOf([CALLS_ROOT])])
  const only = values.only === undefined ? [] : [values.only]
  const results = compare(await native(only), await contained(image, only), only.length === 0)
  let failed = 0, skipped = 0
  for (const r of results) {
    if (r.wrong !== undefined) failed++
    else if (r.known?.startsWith('not asked')) skipped++
    if (r.wrong !== undefined || values.verbose) console.log(`${r.wrong === undefined ? 'ok' : 'not ok'} - ${r.title}${r.wrong ?? r.known ? ` # ${r.wrong ?? r.known}` : ''}`)
  }
  if (only.length === 0 && failed === 0) {
    const text = report(results)
    if (values.write) writeFileSync(DOC, text)
    else if (skipped === 0 && readFileSync(DOC, 'utf8') !== text) {
      console.log('not ok - docs/conformance.md is not what was seen: npm run conformance:calls -- --write')
      failed++
    }
  }
  console.log(`${results.length - failed - skipped} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}`)
  return failed ? 1 : 0
}

process.exit(await main())
