/**
 * `npm run bench -- start`: a program that does nothing, from request to exit: `recompiler run` of a
 * prepared image with a daemon awake, against posix_spawn of the native program and, where it is
 * installed, runc with the same root; and the private memory of an idle container.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import type { Row } from './report.ts'

const root = join(import.meta.dirname, '..')
const recompiler = join(root, 'bin/recompiler')

function time(command: string, args: readonly string[]): number {
  const t = performance.now()
  const r = spawnSync(command, args, { stdio: 'ignore' })
  if (r.status !== 0) throw new Error(`${command} ${args.join(' ')}: status ${r.status ?? r.signal}`)
  return (performance.now() - t) * 1e6
}

const median = (v: number[]): number => v.sort((a, b) => a - b)[v.length >> 1]!

/** A bundle that runs /bin/true of `rootfs`; undefined without runc. */
function bundle(dir: string, rootfs: string): string | undefined {
  if (process.getuid!() !== 0 || spawnSync('runc', ['--version']).status !== 0) return undefined
  mkdirSync(dir)
  execFileSync('runc', ['spec', '-b', dir])
  const file = join(dir, 'config.json')
  const spec = JSON.parse(readFileSync(file, 'utf8')) as { process: { terminal: boolean; args: string[] }; root: { path: string } }
  spec.process.terminal = false
  spec.process.args = ['/bin/true']
  spec.root.path = rootfs
  writeFileSync(file, JSON.stringify(spec))
  return dir
}

export async function start(rootfs: string, image: string, rounds: number): Promise<Row[]> {
  const dir = mkdtempSync(join(tmpdir(), 'vkernel-bench-'))
  try {
    const runc = bundle(join(dir, 'runc'), rootfs)
    const run = ['run', '--rm', image, '/bin/true']
    time(recompiler, run)
    const native: number[] = [], ours: number[] = [], theirs: number[] = []
    for (let n = 0; n < rounds; n++) {
      native.push(time('/bin/true', []))
      ours.push(time(recompiler, run))
      if (runc && n % 5 === 0) theirs.push(time('runc', ['run', '-b', runc, `bench-${process.pid}-${n}`]))
    }
    const rows: Row[] = [{ name: 'run /bin/true, against posix_spawn', native: median(native), ours: median(ours), unit: 'ns' }]
    if (theirs.length) rows.push({ name: 'run /bin/true, against runc', native: median(theirs), ours: median(ours), unit: 'ns' })
    rows.push(await idle(image))
    return rows
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** Private memory of `sleep`, natively and as a guest process (Private_Dirty of smaps_rollup: clean pages are the page cache's). */
async function idle(image: string): Promise<Row> {
  const own = spawn('sleep', ['3'], { stdio: 'ignore' })
  const child = spawn(recompiler, ['run', '--rm', image, '/bin/sleep', '3'], { stdio: 'ignore' })
  await new Promise((r) => setTimeout(r, 1500))
  const ps = execFileSync(recompiler, ['ps'], { encoding: 'utf8' }).trim().split('\n').slice(1).map((l) => Number(l.trim().split(/\s+/)[1]))
  const ended = new Promise((r) => child.on('close', r))
  const row = { name: 'private memory of an idle process', native: privateKib(own.pid!), ours: privateKib(ps.at(-1)!), unit: 'KiB' }
  await ended
  return row
}

function privateKib(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  return Number(/^Private_Dirty:\s+(\d+) kB$/m.exec(text)?.[1] ?? NaN)
}
