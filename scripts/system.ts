/** Programs of the host: running them, finding them, and installing Debian's packages as root. */
import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { root } from './stamp.ts'

export const say = (line: string): void => { process.stderr.write(`vkernel: ${line}\n`) }

/** Ends with what went wrong and the next command. */
export function fail(message: string, next?: string): never {
  say(message)
  if (next) say(`next: ${next}`)
  process.exit(1)
}

/** Runs a command with our stdio; ends when it fails. */
export function must(what: string, command: string, args: readonly string[], cwd = root): void {
  say(what)
  const r = spawnSync(command, args, { cwd, stdio: 'inherit' })
  if (r.error) fail(`${what}: cannot run ${command}: ${r.error.message}`)
  if (r.status !== 0) {
    say(`${what} failed (${r.signal ?? r.status}): ${command} ${args.join(' ')}`)
    process.exit(r.status ?? 1)
  }
}

/** Where `program` is on PATH (and in the sbin folders), if anywhere; an absolute path is a file that has to be there. */
export function find(program: string): string | undefined {
  if (program.startsWith('/')) return existsSync(program) ? program : undefined
  const dirs = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin']
  return dirs.map((d) => join(d, program)).find((p) => {
    try {
      accessSync(p, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

export const isRoot = process.getuid!() === 0

let listsRead = false

/**
 * Makes the host programs and files `programs` (as `find` takes them → Debian package) available. As
 * root on Debian it installs what is missing. Returns why that was not possible, or undefined.
 */
export function need(programs: Readonly<Record<string, string>>): string | undefined {
  const missing = Object.entries(programs).filter(([p]) => !find(p))
  if (missing.length === 0) return undefined
  const packages = missing.map(([, p]) => p)
  const what = `missing: ${missing.map(([p]) => p).join(', ')}; as root: apt-get install ${packages.join(' ')}`
  if (!isRoot || !existsSync('/usr/bin/apt-get')) return what
  say(`installing ${packages.join(' ')}`)
  const apt = (args: string[]): boolean => spawnSync('apt-get', args, {
    stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }, timeout: 600_000,
  }).status === 0
  const install = (): boolean => apt(['install', '-y', '-qq', '--no-install-recommends', ...packages])
  if (!listsRead) {
    apt(['update', '-qq'])
    listsRead = true
  }
  install()
  return Object.keys(programs).every((p) => find(p)) ? undefined : what
}
