/**
 * Random C programs by csmith, compiled by gcc and clang at every level, run natively and translated:
 * the same checksum and exit status.
 *
 *   node conformance/translation/csmith.ts [--count N] [--seed FIRST] [--batch N] [--keep]
 *
 * A program is decided by its seed, compiler and flags too, so that `--seed N --count 1 --keep` makes
 * the one that differed again (build/csmith). Without --seed they are new ones each time.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { root, TestDaemon } from '../../src/daemon/testing.ts'
import { contained, each, forget, LATE, must, natively, pack } from './batch.ts'

const dir = join(root, 'build/csmith')
const LEVELS = ['-O0', '-O1', '-O2', '-O3', '-Os']

interface Made { readonly seed: number; readonly path: string; readonly how: readonly string[] }

/** The program of a seed: which compiler, level and kind of executable follows from it. */
export function recipe(seed: number): Made {
  const how = [
    seed % 2 ? 'clang' : 'gcc', LEVELS[(seed >> 1) % LEVELS.length]!,
    ...((seed >> 2) % 3 === 0 ? ['-fno-pic', '-no-pie'] : []),
  ]
  return { seed, path: join(dir, `${seed}`), how }
}

/** Every third program has floating point. */
const choices = (seed: number): string[] => (seed % 3 === 0 ? ['--float'] : [])

async function make({ seed, path, how }: Made): Promise<void> {
  // csmith leaves a file in its working directory.
  await must('env', ['-C', dir, 'csmith', '--seed', `${seed}`, ...choices(seed), '-o', `${path}.c`])
  const [compiler, ...flags] = how
  await must(compiler!, ['-w', ...flags, '-I/usr/include/csmith', '-o', path, `${path}.c`, '-lm'])
}

/** Runs the programs of `seeds`; returns how many were as natively, were not, and did not end. */
export async function csmith(seeds: readonly number[], d: TestDaemon, keep = false): Promise<{ passed: number; failed: number; endless: number }> {
  mkdirSync(dir, { recursive: true })
  const made = seeds.map(recipe)
  await each(made, make)
  const want = await natively(made.map((m) => m.path))
  const lost = made.find((_, n) => want[n] === undefined)
  if (lost) throw new Error(`seed ${lost.seed}: the native run did not come to it`)
  const ended = made.filter((_, n) => !want[n]!.endsWith(LATE))
  if (ended.length === 0) return { passed: 0, failed: 0, endless: made.length }
  const wanted = new Map(made.map((m, n) => [m, want[n]]))
  const paths = ended.map((m) => m.path)
  const image = join(dir, 'image')
  await pack(paths, image)
  const got = await contained(d, image, paths)
  let failed = 0
  for (const [n, m] of ended.entries()) {
    if (got[n] !== undefined && got[n] === wanted.get(m)) continue
    failed++
    console.log(`not ok - seed ${m.seed}: ${m.how.join(' ')}\n  native ${JSON.stringify(wanted.get(m))}\n  ours   ${JSON.stringify(got[n])}`)
  }
  forget(paths)
  if (!keep) for (const m of made) for (const f of [m.path, `${m.path}.c`]) rmSync(f, { force: true })
  return { passed: ended.length - failed, failed, endless: made.length - ended.length }
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { count: { type: 'string', default: '50' }, seed: { type: 'string' }, batch: { type: 'string', default: '50' }, keep: { type: 'boolean', default: false } } })
  const first = Number(values.seed ?? Math.floor(Date.now() / 1000) % 1_000_000_000)
  const count = Number(values.count), batch = Number(values.batch)
  const sum = { passed: 0, failed: 0, endless: 0 }
  console.log(`seeds from ${first} on`)
  const d = await TestDaemon.start()
  try {
    for (let at = first; at < first + count; at += batch) {
      const r = await csmith(Array.from({ length: Math.min(batch, first + count - at) }, (_, n) => at + n), d, values.keep)
      for (const key of ['passed', 'failed', 'endless'] as const) sum[key] += r[key]
      console.log(`seeds ${at} to ${Math.min(at + batch, first + count) - 1}: ${r.passed} as natively, ${r.failed} differ, ${r.endless} do not end natively`)
    }
  } finally {
    await d.remove()
  }
  console.log(`${sum.passed} passed, ${sum.failed} failed`)
  process.exitCode = sum.failed || sum.passed === 0 ? 1 : 0
}
