/** Runs native/recompiler over an image's ELF files: a plan in, a megabinary and one JSON line an ELF out. */
import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseElf } from './elf.ts'
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
}

export interface Translation {
  readonly elfs: number
  readonly totals: Totals
  /** By the digest of an ELF that was refused: its path and why. */
  readonly refused: ReadonlyMap<string, string>
}

/** A line of `vkernel-recompiler batch`. */
type Event =
  | { readonly total: number }
  | { readonly done: string; readonly text: number; readonly functions: number; readonly code: number; readonly cached: boolean }
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
  const { out, temp, cache, progress } = options
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
    .map(([sha256, e]) => ({ path: hostFile(e.first.node.source!, sha256, temp), sha256, nids: [...e.nids].sort((a, b) => a - b) }))
  if (cache) mkdirSync(cache, { recursive: true })
  const plan = join(temp, 'plan.json')
  writeFileSync(plan, JSON.stringify({ out, cache: cache ?? null, translate: options.translate, elfs }))

  progress.stage('translate', 0, 'bytes')
  const child = spawn(RECOMPILER, ['batch', plan], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise<string | undefined>((resolve) => {
    child.once('error', (e) => resolve(`cannot start the recompiler: ${e.message}; run \`npm run build\``))
    child.once('close', (status, signal) => resolve(status === 0 ? undefined : `the recompiler failed (${signal ?? status})`))
  })
  const interrupt = (): void => { child.kill('SIGTERM') }
  process.once('exit', interrupt)
  const totals = { cached: 0, functions: 0, text: 0, native: 0 }
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      const event = JSON.parse(line) as Event
      if ('total' in event) progress.expect(event.total)
      else if ('done' in event) {
        progress.step(event.text)
        totals.cached += Number(event.cached)
        totals.functions += event.functions
        totals.text += event.text
        totals.native += event.code
      }
      else refused.set(event.refused, `${bySha.get(event.refused)?.first.path ?? event.path}: ${event.reason}`)
    }
    const failure = await ended
    if (failure) throw new BuildError(failure)
  } finally {
    process.removeListener('exit', interrupt)
    child.kill('SIGTERM')
  }
  return { elfs: elfs.length, totals, refused }
}
