/**
 * `npm test`: every suite, one closing line `N passed, N failed`.
 * A suite is a command whose output is counted; a suite that prints no count is one test.
 */
import { spawnSync } from 'node:child_process'

interface Suite {
  readonly name: string
  readonly command: string
  readonly args: readonly string[]
  readonly cwd?: string
}

const suites: readonly Suite[] = [
  { name: 'generated files', command: 'node_modules/.bin/node', args: ['scripts/gen.ts', '--check'] },
  { name: 'rust: abi', command: 'cargo', args: ['test', '--release', '--quiet', '-p', 'vkernel-abi'], cwd: 'native' },
  { name: 'rust: instruction semantics against the host CPU', command: 'cargo', args: ['test', '--release', '--quiet', '-p', 'vkernel-difftest', '--', '--nocapture'], cwd: 'native' },
]

/** Sums cargo's and ava's counts. */
function counts(output: string): { passed: number; failed: number } | undefined {
  let passed = 0, failed = 0, seen = false
  for (const m of output.matchAll(/^test result: \w+\. (\d+) passed; (\d+) failed/gm)) {
    passed += Number(m[1]); failed += Number(m[2]); seen = true
  }
  for (const m of output.matchAll(/^\s*(\d+) tests? (passed|failed)$/gm)) {
    if (m[2] === 'passed') passed += Number(m[1]); else failed += Number(m[1])
    seen = true
  }
  for (const m of output.matchAll(/^(\d+) passed, (\d+) failed$/gm)) {
    passed += Number(m[1]); failed += Number(m[2]); seen = true
  }
  return seen ? { passed, failed } : undefined
}

/** Runs all suites; returns the exit status. */
export function runTests(root: string): number {
  let passed = 0, failed = 0
  for (const suite of suites) {
    console.log(`\n== ${suite.name}`)
    const r = spawnSync(suite.command.startsWith('node_modules') ? `${root}/${suite.command}` : suite.command, suite.args, {
      cwd: suite.cwd ? `${root}/${suite.cwd}` : root, encoding: 'utf8', maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'pipe'],
    })
    const output = `${r.stdout}${r.stderr}`
    const c = counts(output) ?? { passed: r.status === 0 ? 1 : 0, failed: r.status === 0 ? 0 : 1 }
    if (r.status !== 0 && c.failed === 0) c.failed = 1
    if (c.failed) console.log(output)
    else for (const line of output.split('\n')) if (/differences|skipped:/.test(line)) console.log(line)
    console.log(`   ${c.passed} passed, ${c.failed} failed`.replace(/^ {3}/, '-- '))
    passed += c.passed
    failed += c.failed
  }
  console.log(`\n${passed} passed, ${failed} failed`)
  return failed ? 1 : 0
}
