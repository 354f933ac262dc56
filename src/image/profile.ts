/** What `recompiler run --profile` recorded, by `vkernel-recompiler profile`; several files are one profile. */
import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ErofsReader } from './erofs-reader.ts'
import type { Hints } from './hints.ts'
import { readMegabinary } from './megabinary.ts'
import { openLayout } from './oci.ts'
import { RECOMPILER } from './translate.ts'
import { BuildError, entries, type Inode } from './tree.ts'
import { withWorkspace } from './workspace.ts'

/** Interpretation that began at one address. */
export interface Place {
  /** Path in the image; none: outside of all ELF files. */
  readonly path?: string
  readonly sha256?: string
  /** As in the file. */
  readonly vaddr: number
  readonly symbol: string
  readonly cause: string
  /** A function at this address would run translated. */
  readonly hint: boolean
  times: number
  instructions: number
}

export interface Profile {
  /** Samples, in milliseconds of processor time: in translated code, the interpreter, the loader and host calls. */
  readonly code: number
  readonly interpreter: number
  readonly host: number
  /** Instructions that ran translated; none: the image does not count them. */
  readonly translated?: number
  readonly interpreted: number
  /** Interpreted instructions by cause, most first. */
  readonly causes: readonly { readonly cause: string; readonly times: number; readonly instructions: number }[]
  readonly places: readonly Place[]
  /** Functions by samples of their own, most first. */
  readonly hot: readonly (readonly [string, number])[]
}

/** What the recompiler says of one file. */
interface Read {
  readonly code: number; readonly interpreter: number; readonly host: number
  readonly translated: number | null; readonly interpreted: number
  readonly places: readonly (Omit<Place, 'path' | 'sha256'> & { readonly elf: number | null })[]
  readonly hot: readonly [string, number][]
}

/** Kind of the first record (native/abi/src/profile.rs), and how long its name may be. */
const IMAGE = 1n, MAX_NAME = 8192

/** The directory of the image that a profile is of. */
export function imageOf(file: string): string {
  const b = Buffer.alloc(8 + MAX_NAME)
  const fd = openSync(file, 'r')
  const n = readSync(fd, b, 0, b.length, 0)
  closeSync(fd)
  const head = n >= 8 ? b.readBigUInt64LE(0) : 0n
  const end = 8 + 8 * Number(head >> 8n)
  if ((head & 0xffn) !== IMAGE || end > n) throw new BuildError(`${file} is no profile; \`recompiler run --profile FILE IMAGE …\` writes one`)
  return b.toString('utf8', 8, end).replace(/\0.*$/s, '')
}

/** Reads profiles. `svg`: where to draw a flame graph of the only one. `causes`: find out why code was interpreted. */
export async function readProfiles(files: readonly string[], options: { readonly svg?: string | undefined; readonly causes: boolean }): Promise<Profile> {
  const sum = { code: 0, interpreter: 0, host: 0, interpreted: 0 }
  let translated: number | undefined
  const places = new Map<string, Place>(), hot = new Map<string, number>(), causes = new Map<string, { cause: string; times: number; instructions: number }>()
  for (const file of files) {
    const { read, elfs } = await readOne(file, options)
    for (const key of ['code', 'interpreter', 'host', 'interpreted'] as const) sum[key] += read[key]
    if (read.translated !== null) translated = (translated ?? 0) + read.translated
    for (const [name, n] of read.hot) hot.set(name, (hot.get(name) ?? 0) + n)
    for (const { elf, ...p } of read.places) {
      const of = elf === null ? {} : elfs[elf]!
      const key = `${of.sha256 ?? ''} ${p.vaddr} ${p.cause}`
      const known = places.get(key)
      if (known) {
        known.times += p.times
        known.instructions += p.instructions
      } else places.set(key, { ...of, ...p })
      const c = causes.get(p.cause) ?? { cause: p.cause, times: 0, instructions: 0 }
      c.times += p.times
      c.instructions += p.instructions
      causes.set(p.cause, c)
    }
  }
  const most = <T extends { instructions: number }>(list: Iterable<T>): T[] => [...list].sort((a, b) => b.instructions - a.instructions)
  return { ...sum, ...(translated === undefined ? {} : { translated }), causes: most(causes.values()), places: most(places.values()), hot: [...hot].sort((a, b) => b[1] - a[1]) }
}

function readOne(file: string, options: { readonly svg?: string | undefined; readonly causes: boolean }): Promise<{ read: Read; elfs: readonly { path?: string; sha256?: string }[] }> {
  return withWorkspace(tmpdir(), (temp) => {
    const image = imageOf(file)
    const parts = openLayout(image)
    const mega = readMegabinary(parts.megabinary.path)
    const reader = new ErofsReader(parts.erofs.path)
    const byEntry = new Map<number, number>()
    for (const [nid, n] of mega.nids) if (!byEntry.has(n)) byEntry.set(n, nid)
    const paths = new Map<Inode, string>()
    const tree = reader.tree()
    for (const { path, node } of entries(tree)) if (!paths.has(node)) paths.set(node, path)
    // Inodes of a second reading are other objects: the data's place tells them apart.
    const byPlace = new Map([...paths].flatMap(([node, path]) => (node.source ? [[node.source.off, path] as const] : [])))
    const elfs = mega.entries.map((e, n) => {
      const nid = byEntry.get(n)
      const data = nid === undefined ? undefined : reader.inode(nid).data
      return { sha256: e.sha256, data, path: data ? byPlace.get(data.off) ?? `inode ${nid}` : 'a file that is not in the image' }
    })
    const plan = join(temp, 'plan.json')
    writeFileSync(plan, JSON.stringify({
      profile: file, megabinary: parts.megabinary.path, causes: options.causes, svg: options.svg ?? null, title: image,
      elfs: elfs.map((e) => ({ path: e.path, file: parts.erofs.path, off: e.data?.off ?? 0, size: e.data?.size ?? 0 })),
    }))
    const r = spawnSync(RECOMPILER, ['profile', plan], { encoding: 'utf8', maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'pipe'] })
    if (r.status !== 0) throw new BuildError(`${file}: ${r.error?.message ?? (r.stderr.trim().replace(/^recompiler: /, '') || `the recompiler failed (${r.signal ?? r.status})`)}; is the image still the one that was run? build it again, and run again`)
    return Promise.resolve({ read: JSON.parse(r.stdout) as Read, elfs: elfs.map(({ path, sha256 }) => ({ path, sha256 })) })
  })
}

/** What a next build shall translate as well. */
export function hintsOf(p: Profile): Hints {
  const hints = new Map<string, number[]>()
  for (const { sha256, vaddr, hint } of p.places) if (hint && sha256) hints.set(sha256, [...(hints.get(sha256) ?? []), vaddr])
  return new Map([...hints].map(([sha256, list]) => [sha256, [...new Set(list)].sort((a, b) => a - b)]))
}
