/**
 * The C programs of system calls: which there are, their one static binary, the small root file
 * system they run in, and what their output says.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { digestOf, root } from '../scripts/stamp.ts'

const here = import.meta.dirname
const out = join(root, 'build/conformance')
/** The root file system: /bin/calls and what the programs expect around it. */
export const CALLS_ROOT = join(out, 'rootfs')

/** One case of a program: `call` is the first word of its title. */
export interface Case { readonly program: string; readonly call: string; readonly title: string; readonly ok: boolean; readonly skip: string | undefined; readonly note: string }

/** What one run of all programs said: cases by title, and each program's end ("0" is well), probes answered otherwise. */
export interface Outcome { readonly cases: Map<string, Case>; readonly ends: Map<string, string>; readonly probes: Map<string, string>; readonly stray: readonly string[] }

const FLAGS = ['-O1', '-static', '-std=gnu17', '-Wall', '-Wextra', '-Wno-unused-parameter', '-Wno-format-truncation', '-Werror']

/** Names of the programs: those of the folder that include check.h. */
export const programs = (): string[] => readdirSync(join(here, 'programs'))
  .filter((f) => f.endsWith('.c') && readFileSync(join(here, 'programs', f), 'utf8').includes('#include "check.h"'))
  .map((f) => f.slice(0, -2)).sort()

function cc(args: readonly string[], what: string): void {
  const r = spawnSync('cc', [...FLAGS, ...args], { encoding: 'utf8' })
  if (r.status !== 0) throw new Error(`${what} does not compile:\n${r.error?.message ?? r.stderr}`)
}

const symbol = (name: string): string => `main_${name.replace(/\W/g, '_')}`

/**
 * Compiles what has changed and links everything into /bin/calls of the root file system. Objects are
 * kept by the digest of what they are made from. `probes`: the generated program's source.
 */
export function makeCalls(probes: string): void {
  const objects = join(out, 'objects')
  mkdirSync(objects, { recursive: true })
  const shared = readFileSync(join(here, 'programs/check.h'), 'utf8')
  const kept = new Set<string>(), wrong: string[] = []
  const object = (name: string, text: string, source: string, more: readonly string[]): string => {
    const at = join(objects, `${name}-${digestOf([], [text, shared, ...FLAGS, ...more]).slice(0, 16)}.o`)
    kept.add(at.slice(objects.length + 1))
    if (!existsSync(at)) try {
      cc(['-c', '-I', join(here, 'programs'), '-o', `${at}.new`, ...more, source], source)
      renameSync(`${at}.new`, at)
    } catch (e) {
      wrong.push((e as Error).message)
    }
    return at
  }
  const generated = (name: string, text: string): string => {
    const source = join(out, `${name}.c`)
    writeFileSync(source, text)
    return source
  }
  const names = programs()
  const all = [...names, 'probes']
  const table = `struct program { const char *name; int (*main)(int, char **); };\n${all.map((n) => `int ${symbol(n)}(int, char **);\n`).join('')}`
    + `const struct program programs[] = {\n${all.map((n) => `  {"${n}", ${symbol(n)}},\n`).join('')}  {0, 0},\n};\n`
  const from = (at: string): string => readFileSync(at, 'utf8')
  const driver = join(here, 'driver.c')
  const parts = [
    object('driver', from(driver), driver, []),
    object('table', table, generated('table', table), []),
    object('probes', probes, generated('probes', probes), [`-Dmain=${symbol('probes')}`]),
    ...names.map((n) => {
      const source = join(here, 'programs', `${n}.c`)
      return object(n, from(source), source, [`-Dmain=${symbol(n)}`])
    }),
  ]
  if (wrong.length > 0) throw new Error(wrong.join('\n'))
  for (const old of readdirSync(objects)) if (!kept.has(old)) rmSync(join(objects, old))
  const key = digestOf([], parts)
  const binary = join(out, `calls-${key.slice(0, 16)}`)
  if (!existsSync(binary)) {
    for (const old of readdirSync(out).filter((f) => f.startsWith('calls-'))) rmSync(join(out, old))
    cc(['-pthread', '-o', `${binary}.new`, ...parts], 'calls')
    renameSync(`${binary}.new`, binary)
  }
  makeRoot(binary)
}

/** Files around the programs. Natively it is the lower layer of an overlay; of ours, the image. */
const FILES: readonly (readonly [path: string, mode: number, text: string])[] = [
  ['etc/passwd', 0o644, 'root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1001::/home:/bin/sh\n'],
  ['etc/group', 0o644, 'root:x:0:\nguest:x:1001:\n'],
  ['data/hello', 0o644, 'hello, image\n'],
  ['data/secret', 0o600, 'root only\n'],
  ['data/pages', 0o644, 'page\n'.repeat(2500)],
  ['data/dir/one', 0o644, '1'],
  ['data/dir/two', 0o644, '22'],
  ['data/dir/sub/three', 0o644, '333'],
  ['data/plain-text', 0o755, 'no program\n'],
]

function makeRoot(binary: string): void {
  for (const dir of ['bin', 'dev', 'proc', 'sys', 'tmp', 'etc', 'data/dir/sub', 'root']) mkdirSync(join(CALLS_ROOT, dir), { recursive: true, mode: 0o755 })
  chmodSync(join(CALLS_ROOT, 'tmp'), 0o1777)
  for (const [path, mode, text] of FILES) {
    const at = join(CALLS_ROOT, path)
    if (existsSync(at) && readFileSync(at, 'utf8') === text) continue
    writeFileSync(at, text)
    chmodSync(at, mode)
  }
  const calls = join(CALLS_ROOT, 'bin/calls')
  if (existsSync(calls) && readFileSync(calls).equals(readFileSync(binary))) return
  copyFileSync(binary, calls)
  chmodSync(calls, 0o755)
}

/** Reads the output of `calls --all`. */
export function parse(text: string): Outcome {
  const cases = new Map<string, Case>(), ends = new Map<string, string>(), probes = new Map<string, string>(), stray: string[] = []
  let program = ''
  for (const line of text.split('\n')) {
    const head = /^== ([\w-]+)(?:: (.*))?$/.exec(line)
    if (head) {
      program = head[1]!
      if (head[2] !== undefined) ends.set(program, head[2])
      continue
    }
    const no = /^# no: (.*) # (.*)$/.exec(line)
    if (no) {
      probes.set(no[1]!, no[2]!)
      continue
    }
    const m = /^(not )?ok \d+ - ((\w+): .*?)(?: # (SKIP )?(.*))?$/.exec(line)
    if (!m) {
      if (line !== '' && !/^(1\.\.\d+|#.*)$/.test(line)) stray.push(`${program}: ${line}`)
      continue
    }
    if (cases.has(m[2]!)) stray.push(`${program}: the title "${m[2]!}" is used twice`)
    cases.set(m[2]!, { program, call: m[3]!, title: m[2]!, ok: !m[1], skip: m[4] === undefined ? undefined : m[5] ?? '', note: m[4] === undefined ? m[5] ?? '' : '' })
  }
  return { cases, ends, probes, stray }
}
