/** A hand-written file has at most 400 lines, or is listed here with the reason. */
import test from 'ava'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repositoryFiles } from './files.ts'
import { root } from './stamp.ts'

const LIMIT = 400

/** File → why it stays whole, and the length it may not pass either. */
const EXCEPTIONS: Readonly<Record<string, { readonly atMost: number; readonly why: string }>> = {
  'native/recompiler/src/lift.rs': { atMost: 790, why: 'one trait implementation, the lifter\'s backend: Rust wants it in one impl block' },
  'native/loader/src/cpu.rs': { atMost: 580, why: 'the dispatcher: its functions call each other in a circle and share one invariant' },
  'native/loader/src/mediated.rs': { atMost: 520, why: 'one match over the mediated calls, a few lines each' },
  'native/semantics/src/interp.rs': { atMost: 490, why: 'one trait implementation, the interpreter\'s backend' },
  'native/semantics/src/int.rs': { atMost: 430, why: 'one match over the integer mnemonics' },
  'native/loader/src/exec.rs': { atMost: 480, why: 'execve top to bottom: decide, point of no return, map, stack' },
}

const isHandWritten = (f: string): boolean => /\.(ts|mjs|js|rs|c|sh)$/.test(f) && !f.includes('/generated/')

const lengths = (): Map<string, number> =>
  new Map(repositoryFiles().filter(isHandWritten).map((f) => [f, readFileSync(join(root, f), 'utf8').split('\n').length - 1]))

test(`no hand-written file is longer than ${LIMIT} lines without a reason`, (t) => {
  const long = [...lengths()].filter(([f, n]) => n > (EXCEPTIONS[f]?.atMost ?? LIMIT))
  t.deepEqual(long.map(([f, n]) => `${f}: ${n} lines`), [], 'split the file, or state the reason in scripts/file-length.test.ts')
})

test('every exception is still needed', (t) => {
  const now = lengths()
  t.deepEqual(Object.keys(EXCEPTIONS).filter((f) => (now.get(f) ?? 0) <= LIMIT), [], 'these fit by now: take them off the list')
})
