/** Commands of the comparisons: run to their end, and run natively in a root file system that nothing of it changes. */
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from '../scripts/stamp.ts'

/** `status`: the exit status, the signal's name, or "timeout". */
export interface Ended { readonly stdout: string; readonly stderr: string; readonly status: string }

/** Runs a command to its end; one that takes longer than `seconds`, or says nothing for `silent`, is ended, and killed 2 s later. */
export function run(command: string, args: readonly string[], seconds: number, env: NodeJS.ProcessEnv = {}, silent = seconds): Promise<Ended> {
  return new Promise((done, failed) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } })
    let stdout = '', stderr = '', late = false
    const end = (): void => { late = true; child.kill('SIGTERM'); setTimeout(() => child.kill('SIGKILL'), 2000) }
    const timer = setTimeout(end, seconds * 1000), silence = setTimeout(end, silent * 1000)
    child.stdout.setEncoding('latin1').on('data', (d: string) => { stdout += d; silence.refresh() })
    child.stderr.setEncoding('latin1').on('data', (d: string) => { stderr += d; silence.refresh() })
    child.on('error', failed)
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      clearTimeout(silence)
      done({ stdout, stderr, status: late ? 'timeout' : String(code ?? signal) })
    })
  })
}

/**
 * Runs bubblewrap with `args` behind its root: an overlay of `lower` that is thrown away, so that
 * directories, modes and errors are those of a real root. `before`: a command that bubblewrap is run by.
 */
export async function overlaid(lower: string, args: readonly string[], seconds: number, before = '', silent = seconds): Promise<Ended> {
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
    ], seconds, {}, silent)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** The environment of compared commands, NAME=VALUE. */
export const ENV = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'HOME=/root', 'LANG=C.UTF-8', 'TZ=UTC']

/** Arguments of bubblewrap for `env` and nothing else. */
export const cleared = (env: readonly string[]): string[] => ['--clearenv', ...env.flatMap((e) => ['--setenv', ...e.split(/=(.*)/s).slice(0, 2)])]

/** Runs `command` in directory `dir` of a container of `image`. `env`: NAME=VALUE, beside the image's own. */
export const contained = (image: string, dir: string, env: readonly string[], command: readonly string[], seconds: number, silent = seconds): Promise<Ended> =>
  run(join(root, 'bin/recompiler'), ['run', '--rm', '-w', dir, ...env.flatMap((e) => ['-e', e]), image, ...command], seconds, {}, silent)

/** The OCI default set, which container engines leave to root. */
const CAPABILITIES = ['CHOWN', 'DAC_OVERRIDE', 'FSETID', 'FOWNER', 'MKNOD', 'NET_RAW', 'SETGID', 'SETUID', 'SETFCAP', 'SETPCAP', 'NET_BIND_SERVICE', 'SYS_CHROOT', 'KILL', 'AUDIT_WRITE']

/**
 * Runs `command` in directory `dir` of `lower` as root of a container that an engine has made: namespaces
 * of its own with every user in them, the default capabilities. By root only. `env`: NAME=VALUE.
 */
export const asContainer = (lower: string, dir: string, env: readonly string[], command: readonly string[], seconds: number, silent = seconds): Promise<Ended> => overlaid(lower, [
  '--dir', dir, '--chdir', dir,
  '--unshare-ipc', '--unshare-pid', '--unshare-net', '--unshare-uts', '--unshare-cgroup', '--cap-drop', 'ALL', ...CAPABILITIES.flatMap((c) => ['--cap-add', `CAP_${c}`]),
  '--die-with-parent', '--new-session', ...cleared(env), ...command,
], seconds, 'prlimit --nofile=1024:4064 setpriv --groups=0', silent)
