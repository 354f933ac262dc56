/**
 * Many programs, one image, one container: the shell runs them one after the other, natively and in the
 * container, and each one's output and exit status are compared. Starting once is what makes hundreds
 * of small programs affordable.
 */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { cacheDirectory } from '../../src/cli/build.ts'
import { client, root, TestDaemon } from '../../src/daemon/testing.ts'
import { run } from '../native.ts'

/** Natively a program gets this long; ours gets it `SLOWER` times. */
const SECONDS = 5
const SLOWER = 20
/** `timeout` says so with SIGKILL. */
export const LATE = 'status 137'

const SCRIPT = `ulimit -c 0; seconds=$1; shift
for p; do echo "== $p"; timeout -s KILL "$seconds" "$p" 2>&1 </dev/null; s=$?; echo; echo "status $s"; done`

export const keys = join(root, 'build/test-images/keys')

/** Runs a command, and throws what it said when it fails. */
export async function must(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<void> {
  const r = await run(command, args, 600, env)
  if (r.status !== '0') throw new Error(`${command} ${args.join(' ')}: ${r.status}\n${r.stdout}${r.stderr}`)
}

/** Runs `work` on every item, two at a time. */
export async function each<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < items.length) await work(items[next++]!)
  }
  await Promise.all([worker(), worker()])
}

/** What the shell printed of each program, in their order; undefined: it did not come so far. */
function split(output: string, programs: readonly string[]): (string | undefined)[] {
  const said = new Map<string, string>()
  for (const part of output.split(/^== (?=\/)/m).slice(1)) {
    const [path = '', ...lines] = part.split('\n')
    said.set(path, lines.join('\n').trimEnd())
  }
  return programs.map((p) => said.get(p))
}

export async function natively(programs: readonly string[]): Promise<(string | undefined)[]> {
  const r = await run('bash', ['-c', SCRIPT, 'bash', `${SECONDS}`, ...programs], programs.length * SECONDS + 60)
  return split(r.stdout, programs)
}

export async function contained(d: TestDaemon, image: string, programs: readonly string[]): Promise<(string | undefined)[]> {
  const r = await run(client, ['run', '--rm', image, '/bin/bash', '-c', SCRIPT, 'bash', `${SECONDS * SLOWER}`, ...programs], 900, { VKERNEL_SOCKET: d.socket })
  const said = split(r.stdout, programs)
  // What the client says about an end of the container belongs to the program that was running.
  if (r.status !== '0') console.log(`the container ended with ${r.status}: ${(r.stdout + r.stderr).slice(-300)}`)
  return said
}

/** An image of `programs`, the shell and what they need. `more`: files that programs open by name. */
export async function pack(programs: readonly string[], image: string, more: readonly string[] = []): Promise<void> {
  rmSync(image, { recursive: true, force: true })
  await must(client, ['build', '--no-stubs', '--from-host', '/bin/bash', '/usr/bin/timeout', ...programs, ...more, '-o', image], { VKERNEL_KEYS: keys })
}

/** Takes translations that nobody asks for again out of the cache. */
export function forget(programs: readonly string[]): void {
  const cache = cacheDirectory()
  const digests = programs.map((p) => createHash('sha256').update(readFileSync(p)).digest('hex'))
  for (const f of readdirSync(cache)) if (digests.some((d) => f.startsWith(d))) rmSync(join(cache, f), { force: true })
}
