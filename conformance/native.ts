/** Commands of the comparisons: run to their end, and run natively in a root file system that nothing of it changes. */
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** `status`: the exit status, the signal's name, or "timeout". */
export interface Ended { readonly stdout: string; readonly stderr: string; readonly status: string }

/** Runs a command to its end; one that takes longer than `seconds` is ended, and killed 2 s later. */
export function run(command: string, args: readonly string[], seconds: number, env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  return new Promise((done, failed) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } })
    let stdout = '', stderr = '', late = false
    child.stdout.setEncoding('latin1').on('data', (d: string) => { stdout += d })
    child.stderr.setEncoding('latin1').on('data', (d: string) => { stderr += d })
    const timer = setTimeout(() => { late = true; child.kill('SIGTERM'); setTimeout(() => child.kill('SIGKILL'), 2000) }, seconds * 1000)
    child.on('error', failed)
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      done({ stdout, stderr, status: late ? 'timeout' : String(code ?? signal) })
    })
  })
}

/**
 * Runs bubblewrap with `args` behind its root: an overlay of `lower` that is thrown away, so that
 * directories, modes and errors are those of a real root. `before`: a command that bubblewrap is run by.
 */
export async function overlaid(lower: string, args: readonly string[], seconds: number, before = ''): Promise<Ended> {
  const dir = mkdtempSync(join(tmpdir(), 'vkernel-native-'))
  try {
    const [upper, work, merged] = ['upper', 'work', 'merged'].map((name) => {
      mkdirSync(join(dir, name), { mode: 0o755 })
      return join(dir, name)
    })
    const mount = `mount -t overlay overlay -o lowerdir="$1",upperdir="$2",workdir="$3" "$4" && shift 3 && exec ${before} bwrap --bind "$@"`
    return await run('unshare', [
      ...(process.getuid!() === 0 ? [] : ['--map-root-user']), '--mount', 'sh', '-c', mount, 'sh', lower, upper!, work!, merged!,
      '/', '--dev', '/dev', '--proc', '/proc', ...args,
    ], seconds)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}
