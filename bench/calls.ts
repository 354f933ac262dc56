/** `npm run bench -- calls`: bench/programs/calls.c natively and in a container, interleaved. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Row } from './report.ts'

const root = join(import.meta.dirname, '..')

/** Of the directory that the program finds in the image: a file, a link to it, and others (bench/programs/calls.c). */
const OTHERS = 8

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
    const files = join(dir, 'files')
    execFileSync('cc', ['-O2', '-pthread', '-o', program, join(root, 'bench/programs/calls.c')])
    mkdirSync(files)
    writeFileSync(join(files, 'file'), Buffer.alloc(65_536, 'x'))
    symlinkSync('file', join(files, 'link'))
    const others = Array.from({ length: OTHERS }, (_, n) => join(files, String(n)))
    for (const f of others) writeFileSync(f, '')
    execFileSync(join(root, 'bin/recompiler'), ['build', '--from-host', program, join(files, 'link'), ...others, '-o', join(dir, 'image')], { stdio: 'ignore' })
    const best = [new Map<string, number>(), new Map<string, number>()] as const
    for (let n = 0; n < rounds; n++) {
      for (const [side, run] of [
        () => execFileSync(program, [dir, files], { encoding: 'utf8' }),
        () => execFileSync(join(root, 'bin/recompiler'), ['run', '--rm', join(dir, 'image'), program, '/tmp', files], { encoding: 'utf8' }),
      ].entries()) {
        for (const [name, ns] of parse(run())) best[side]!.set(name, Math.min(ns, best[side]!.get(name) ?? Infinity))
      }
    }
    return [...best[0]].map(([name, native]) => ({ name, native, ours: best[1].get(name) ?? NaN, unit: 'ns' }))
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}
