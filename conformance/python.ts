/**
 * CPython's own tests of what a kernel does (Debian's libpython3.11-testsuite), natively and in a
 * container: the outcome of every test method is the same, or [[python]] of conformance/expect.toml
 * says why not. An unexpected pass fails.
 *
 *   node conformance/python.ts --rootfs DIR --image DIR [--only TEXT] [--jobs N] [--kept FILE] [--verbose]
 *
 * `--only`: modules whose name contains TEXT. `--kept`: a file of native outcomes; what it lacks is run
 * and added. `--verbose`: all that a test that differs has said.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { asContainer, contained as inContainer, ENV, type Ended } from './native.ts'
import { readExpected } from './report.ts'

const SCRIPT = readFileSync(join(import.meta.dirname, 'python/outcomes.py'), 'utf8')

const MODULES = [
  'os', 'posix', 'subprocess', 'signal', 'threadsignals', 'threading', 'thread', 'socket', 'socketserver', 'select', 'selectors', 'poll', 'epoll',
  'mmap', 'fcntl', 'pty', 'openpty', 'ioctl', 'resource', 'time', 'tempfile', 'threadedtempfile', 'shutil', 'pathlib', 'glob', 'posixpath', 'genericpath',
  'stat', 'fileutils', 'io', 'file', 'fileio', 'file_eintr', 'bufio', 'largefile', 'fork1', 'wait3', 'wait4', 'popen', 'pipes', 'eintr', 'timeout',
  'pwd', 'grp', 'uuid', 'getpass', 'faulthandler', 'atexit', 'mailbox', 'filecmp', 'fileinput', 'tarfile', 'asyncore', 'asynchat', 'httpservers', 'ftplib',
  'concurrent_futures', 'multiprocessing_fork', 'multiprocessing_forkserver', 'multiprocessing_spawn', 'multiprocessing_main_handling',
  ...['base_events', 'events', 'runners', 'selector_events', 'sendfile', 'server', 'sock_lowlevel', 'streams', 'subprocess', 'threads', 'unix_events'].map((m) => `asyncio.test_${m}`),
].map((m) => `test.test_${m}`)

/** A module has this long in all, and every test this long before the next line of output. */
const SECONDS = 1800
const SILENT_SECONDS = 150
/** A module is begun anew, without the test that ended it, this often. */
const RESTARTS = 12

interface Outcome { readonly outcome: string; readonly detail: string }
type Outcomes = Record<string, Outcome>
type Runner = (args: readonly string[]) => Promise<Ended>

const python = (args: readonly string[]): string[] => ['/usr/bin/python3', '-c', SCRIPT, ...args]

const native = (rootfs: string): Runner => (args) => asContainer(rootfs, '/tmp/case', ENV, python(args), SECONDS, SILENT_SECONDS)

const contained = (image: string): Runner => (args) => inContainer(image, '/tmp/case', ENV, python(args), SECONDS, SILENT_SECONDS)

/** All outcomes of a module. A test during which the process ended, or was ended, has that as its outcome. */
async function outcomes(module: string, runner: Runner): Promise<Outcomes> {
  const all: Outcomes = {}
  for (let n = 0; n <= RESTARTS; n++) {
    const { stdout, stderr, status } = await runner([module, ...Object.keys(all)])
    let running = module, ended = false
    for (const line of stdout.split('\n').filter((l) => l.startsWith('{') && l.endsWith('}'))) {
      const said = JSON.parse(line) as { begins?: string; test?: string; outcome?: string; detail?: string; ended?: true }
      if (said.begins !== undefined) running = said.begins
      if (said.test !== undefined) {
        all[said.test] = { outcome: said.outcome!, detail: said.detail! }
        running = module
      }
      ended ||= said.ended === true
    }
    if (ended) return all
    const detail = stderr.slice(-4000)
    all[running] = { outcome: status === 'timeout' ? 'does not end' : `ends the process: ${status}`, detail }
    if (running === module) return all
  }
  all[module] = { outcome: `begun anew more than ${RESTARTS} times`, detail: '' }
  return all
}

async function main(): Promise<number> {
  const { values } = parseArgs({ options: {
    rootfs: { type: 'string' }, image: { type: 'string' }, only: { type: 'string' }, jobs: { type: 'string', default: '2' }, kept: { type: 'string' }, verbose: { type: 'boolean' },
  } })
  if (!values.rootfs || !values.image) {
    console.error('usage: node conformance/python.ts --rootfs DIR --image DIR [--only TEXT] [--jobs N] [--kept FILE] [--verbose]')
    return 2
  }
  const modules = MODULES.filter((m) => !values.only || m.includes(values.only))
  const expected = readExpected('python')
  const kept = (values.kept && existsSync(values.kept) ? JSON.parse(readFileSync(values.kept, 'utf8')) : {}) as Record<string, Outcomes>
  let passed = 0, failed = 0, next = 0
  const check = (id: string, want: string, got: Outcome | undefined): void => {
    const known = expected.get(id)
    const same = got?.outcome === want
    if (same !== (known !== undefined)) {
      passed++
      return
    }
    failed++
    console.log(`not ok - ${id}: ${same ? 'passes now: take it out of conformance/expect.toml' : `natively ${want}, here ${got?.outcome ?? 'not reached'}`}`)
    if (!same && got) console.log((values.verbose ? got.detail : got.detail.trimEnd().split('\n').slice(-3).join('\n')).replace(/^/gm, '    '))
  }
  const worker = async (): Promise<void> => {
    while (next < modules.length) {
      const module = modules[next++]!
      const started = Date.now()
      const want = kept[module] ??= await outcomes(module, native(values.rootfs!))
      if (values.kept) writeFileSync(values.kept, JSON.stringify(kept))
      const nativeMs = Date.now() - started
      const got = await outcomes(module, contained(values.image!))
      const before = failed
      for (const id of new Set([...Object.keys(want), ...Object.keys(got)])) check(id, want[id]?.outcome ?? 'not there', got[id])
      console.log(`# ${module}: ${Object.keys(want).length} tests, ${failed - before} differ (${Date.now() - started - nativeMs} ms, native ${nativeMs} ms)`)
    }
  }
  await Promise.all(Array.from({ length: Number(values.jobs) }, worker))
  console.log(`${passed} passed, ${failed} failed`)
  return failed ? 1 : 0
}

process.exit(await main())
