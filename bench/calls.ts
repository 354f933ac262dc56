/** `npm run bench -- calls`: bench/programs/calls.c natively and in a container, interleaved. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Row } from './report.ts'

const root = join(import.meta.dirname, '..')

function parse(text: string): Map<string, number> {
  return new Map(text.trim().split('\n').map((l) => {
    const at = l.lastIndexOf(' ')
    return [l.slice(0, at), Number(l.slice(at + 1))]
  }))
}

export function calls(rounds: number): Row[] {
  const dir = mkdtempSync(join(tmpdir(), 'vkernel-bench-'))
  try {
    const program = join(dir, 'calls')
    execFileSync('cc', ['-O2', '-pthread', '-o', program, join(root, 'bench/programs/calls.c')])
    execFileSync(join(root, 'bin/recompiler'), ['build', '--from-host', program, '-o', join(dir, 'image')], { stdio: 'ignore' })
    const best = [new Map<string, number>(), new Map<string, number>()] as const
    for (let n = 0; n < rounds; n++) {
      for (const [side, run] of [
        () => execFileSync(program, { encoding: 'utf8' }),
        () => execFileSync(join(root, 'bin/recompiler'), ['run', '--rm', join(dir, 'image'), program], { encoding: 'utf8' }),
      ].entries()) {
        for (const [name, ns] of parse(run())) best[side]!.set(name, Math.min(ns, best[side]!.get(name) ?? Infinity))
      }
    }
    return [...best[0]].map(([name, native]) => ({ name, native, ours: best[1].get(name) ?? NaN, unit: 'ns' }))
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}
