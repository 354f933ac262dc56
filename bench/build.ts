/**
 * `npm run bench -- build`: what a translation costs: seconds a MB of x86 text from nothing and from the cache,
 * memory, and the size of what comes out. Of a bounded set of programs and libraries of the Debian image.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { save } from './report.ts'

const root = join(import.meta.dirname, '..')

/** Compilers' and people's code, small and large, C and assembly. */
const FILES = ['/usr/bin/bash', '/usr/bin/ls', '/usr/bin/gawk', '/usr/bin/python3.11', '/usr/lib/x86_64-linux-gnu/libc.so.6', '/usr/lib/x86_64-linux-gnu/libcrypto.so.3',
  '/usr/lib/x86_64-linux-gnu/libsqlite3.so.0.8.6', '/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30']

interface Totals { readonly cached: number; readonly functions: number; readonly text: number; readonly native: number; readonly covered: number; readonly instructions: number; readonly stepped: Record<string, number>; readonly unknown: Record<string, number> }
interface Built { readonly seconds: number; readonly translateS: number; readonly peakMib: number; readonly totals: Totals; readonly files: readonly (Omit<Totals, 'cached'> & { readonly path: string })[] }

/** Pids of a process and all below it. */
function family(pid: number): number[] {
  const all = [pid]
  for (const p of all) {
    try {
      for (const task of readdirSync(`/proc/${p}/task`)) all.push(...readFileSync(`/proc/${p}/task/${task}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number))
    } catch { /* it has just ended */ }
  }
  return all
}

/** One build; the peak is the sum over its processes of each one's largest resident size. */
async function buildOnce(rootfs: string, out: string, cache: string): Promise<Built> {
  const t = performance.now()
  const child = spawn(join(root, 'bin/recompiler'), ['build', '--rootfs', rootfs, '-o', out, '--json'], { env: { ...process.env, XDG_CACHE_HOME: cache }, stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = '', stderr = ''
  child.stdout.on('data', (d) => { stdout += String(d) })
  child.stderr.on('data', (d) => { stderr += String(d) })
  const largest = new Map<number, number>()
  const look = setInterval(() => {
    for (const pid of family(child.pid!)) {
      try {
        // None for one that has ended and is not waited for yet.
        const hwm = Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0)
        largest.set(pid, Math.max(hwm, largest.get(pid) ?? 0))
      } catch { /* it has just ended */ }
    }
  }, 20)
  const [status] = await once(child, 'close') as [number | null]
  clearInterval(look)
  if (status !== 0) throw new Error(`recompiler build: status ${status}: ${stderr.slice(-500)}`)
  const stages = stderr.trim().split('\n').map((l) => JSON.parse(l) as { stage: string; ms: number; ended?: boolean })
  const result = JSON.parse(stdout) as Pick<Built, 'totals' | 'files'>
  return { seconds: (performance.now() - t) / 1e3, translateS: stages.find((s) => s.ended && s.stage === 'translate')!.ms / 1e3, peakMib: [...largest.values()].reduce((s, v) => s + v, 0) / 1024, ...result }
}

export async function build(rootfs: string): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'vkernel-bench-build-'))
  try {
    const tree = join(dir, 'rootfs')
    mkdirSync(tree)
    for (const f of FILES) copyFileSync(join(rootfs, f), join(tree, basename(f)))
    const cold = await buildOnce(tree, join(dir, 'cold'), join(dir, 'cache'))
    const warm = await buildOnce(tree, join(dir, 'warm'), join(dir, 'cache'))
    if (cold.totals.cached !== 0 || warm.totals.cached !== FILES.length) throw new Error('the cache is not what it should be: another cold build?')
    save('build', lines(cold, warm))
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

function lines(cold: Built, warm: Built): string[] {
  const mb = (n: number): number => n / 2 ** 20
  const text = mb(cold.totals.text)
  const count = (of: Record<string, number>): number => Object.values(of).reduce((s, n) => s + n, 0)
  const share = (n: number, of: number, digits = 2): string => `${(100 * n / of).toFixed(digits)} %`
  const row = (name: string, t: Omit<Totals, 'cached'>): string =>
    `| ${name} | ${mb(t.text).toFixed(2)} | ${t.functions} | ${share(t.covered, t.text, 1)} | ${share(t.instructions - count(t.stepped) - count(t.unknown), t.instructions, 3)} | ${share(count(t.stepped), t.instructions, 3)} | ${share(count(t.unknown), t.instructions, 3)} | ${(t.native / t.text).toFixed(1)} |`
  return [
    `| build of ${FILES.length} files, ${text.toFixed(1)} MB of x86 text, ${availableParallelism()} cores | from nothing | from the cache |`,
    '|---|---|---|',
    `| translation, s | ${cold.translateS.toFixed(1)} | ${warm.translateS.toFixed(2)} |`,
    `| translation, s a MB of text | ${(cold.translateS / text).toFixed(2)} | ${(warm.translateS / text).toFixed(3)} |`,
    `| the whole build, s | ${cold.seconds.toFixed(1)} | ${warm.seconds.toFixed(1)} |`,
    `| peak memory of all processes, MiB | ${cold.peakMib.toFixed(0)} | ${warm.peakMib.toFixed(0)} |`,
    '',
    '| file | MB of text | functions | covered | translated | left to the interpreter | unsupported | native / x86 |',
    '|---|---|---|---|---|---|---|---|',
    ...cold.files.map((f) => row(f.path, f)),
    row('all', cold.totals),
    '',
    `Covered: of the text's bytes, the rest being padding, data and code that was not found; the other shares are of the instructions that were found. Unsupported are instructions of extensions that the guest's CPU does not show: ${Object.keys(cold.totals.unknown).slice(0, 6).join(', ')}, … Peak memory is the sum of the processes' own peaks (VmHWM).`,
  ]
}
