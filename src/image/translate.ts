/** Runs native/recompiler over an image's ELF files: a plan in, a megabinary and one JSON line an ELF out. */
import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseElf } from './elf.ts'
import type { Hints } from './hints.ts'
import type { Found } from './programs.ts'
import type { Progress } from './progress.ts'
import { BuildError, eachChunk, readExtent, writeAll, type Extent, type Inode } from './tree.ts'

export const RECOMPILER = join(import.meta.dirname, '../../native/target/release/vkernel-recompiler')

export interface TranslateOptions {
  /** The megabinary to write. */
  readonly out: string
  readonly temp: string
  /** Reuses translations; none: no cache. */
  readonly cache?: string
  /** False: everything is interpreted. */
  readonly translate: boolean
  /** Translated code counts the instructions it executes, for profiles. */
  readonly count?: boolean
  /** Addresses that shall be functions as well. */
  readonly hints?: Hints
  readonly progress: Progress
}

/** What a translation came to; sizes in bytes. */
export interface Totals {
  /** Taken from the cache instead of translated. */
  readonly cached: number
  readonly functions: number
  /** x86 text. */
  readonly text: number
  /** Native artefacts. */
  readonly native: number
  /** Bytes of text in translated functions, and instructions there; what is not covered is padding, data, and code that was not found. */
  readonly covered: number
  readonly instructions: number
  /** Instructions that the interpreter runs one by one, and those that it does not know (SIGILL), by mnemonic. */
  readonly stepped: Readonly<Record<string, number>>
  readonly unknown: Readonly<Record<string, number>>
}

/** What became of one ELF file. */
export interface FileReport extends Omit<Totals, 'cached'> { readonly path: string; readonly sha256: string; readonly cached: boolean }

export interface Translation {
  readonly elfs: number
  readonly totals: Totals
  readonly files: readonly FileReport[]
  /** By the digest of an ELF that was refused: its path and why. */
  readonly refused: ReadonlyMap<string, string>
}

/** A line of `vkernel-recompiler batch`. */
type Event =
  | { readonly total: number }
  | { readonly done: string; readonly text: number; readonly functions?: number; readonly code?: number; readonly cached?: boolean; readonly report?: Pick<Totals, 'covered' | 'instructions' | 'stepped' | 'unknown'> }
  | { readonly refused: string; readonly path: string; readonly reason: string }

/** A host path of just these bytes: the file itself, or a copy when it is a part of one. */
function hostFile({ path, off, size }: Extent, name: string, temp: string): string {
  if (typeof path === 'string' && off === 0 && statSync(path).size === size) return path
  const copy = join(temp, `elf-${name}`)
  const fd = openSync(copy, 'wx', 0o600)
  try {
    eachChunk({ path, off, size }, (chunk) => writeAll(fd, chunk))
  } finally {
    closeSync(fd)
  }
  return copy
}

export async function translate(found: readonly Found[], nids: ReadonlyMap<Inode, number>, options: TranslateOptions): Promise<Translation> {
  const { out, temp, progress, hints } = options
  const cache = options.cache ?? join(temp, 'translations')
  const bySha = new Map<string, { first: Found; nids: Set<number> }>()
  const refused = new Map<string, string>()
  for (const f of found) {
    if (f.kind !== 'elf' || refused.has(f.sha256)) continue
    const why = bySha.has(f.sha256) ? undefined : parseElf(readExtent(f.node.source!)).unsupported
    if (why) {
      refused.set(f.sha256, `${f.path}: ${why}`)
      continue
    }
    const e = bySha.get(f.sha256) ?? { first: f, nids: new Set<number>() }
    e.nids.add(nids.get(f.node)!)
    bySha.set(f.sha256, e)
  }
  const elfs = [...bySha].sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([sha256, e]) => ({ path: hostFile(e.first.node.source!, sha256, temp), sha256, nids: [...e.nids].sort((a, b) => a - b), hints: hints?.get(sha256) ?? [] }))
  mkdirSync(cache, { recursive: true })
  const plan = join(temp, 'plan.json')
  writeFileSync(plan, JSON.stringify({ out, cache, translate: options.translate, count: options.count === true, elfs }))

  progress.stage('translate', 0, 'bytes')
  const child = spawn(RECOMPILER, ['batch', plan], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise<string | undefined>((resolve) => {
    child.once('error', (e) => resolve(`cannot start the recompiler: ${e.message}; run \`npm run build\``))
    child.once('close', (status, signal) => resolve(status === 0 ? undefined : `the recompiler failed (${signal ?? status})`))
  })
  const interrupt = (): void => { child.kill('SIGTERM') }
  process.once('exit', interrupt)
  const files: FileReport[] = []
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      const event = JSON.parse(line) as Event
      if ('total' in event) progress.expect(event.total)
      else if ('done' in event) {
        progress.step(event.text)
        files.push({
          path: bySha.get(event.done)!.first.path, sha256: event.done, text: event.text, functions: event.functions ?? 0, native: event.code ?? 0, cached: event.cached ?? false,
          ...(event.report ?? { covered: 0, instructions: 0, stepped: {}, unknown: {} }),
        })
      }
      else refused.set(event.refused, `${bySha.get(event.refused)?.first.path ?? event.path}: ${event.reason}`)
    }
    const failure = await ended
    if (failure) throw new BuildError(failure)
  } finally {
    process.removeListener('exit', interrupt)
    child.kill('SIGTERM')
  }
  files.sort((a, b) => (a.path < b.path ? -1 : 1))
  return { elfs: elfs.length, totals: totalOf(files), files, refused }
}

function totalOf(files: readonly FileReport[]): Totals {
  const sum = (of: (f: FileReport) => number): number => files.reduce((s, f) => s + of(f), 0)
  const counts = (of: (f: FileReport) => Readonly<Record<string, number>>): Record<string, number> => {
    const all: Record<string, number> = {}
    for (const f of files) for (const [name, n] of Object.entries(of(f))) all[name] = (all[name] ?? 0) + n
    return Object.fromEntries(Object.entries(all).sort((a, b) => b[1] - a[1]))
  }
  return {
    cached: sum((f) => Number(f.cached)), functions: sum((f) => f.functions), text: sum((f) => f.text), native: sum((f) => f.native),
    covered: sum((f) => f.covered), instructions: sum((f) => f.instructions), stepped: counts((f) => f.stepped), unknown: counts((f) => f.unknown),
  }
}
