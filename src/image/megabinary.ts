/** Reads the megabinary's index (native/abi/src/megabinary.rs) and checks that it fits together. */
import { createHash } from 'node:crypto'
import { statSync } from 'node:fs'
import { BuildError, eachChunk, readExtent } from './tree.ts'

/** Names this layout; the header's version is the loader's contract with the code inside, and its business. */
const MAGIC = 'VKMEGA01', PAGE = 4096
const HEADER = 96, ENTRY = 112, NID = 16
/** `Entry.kind`, from 1. */
const KINDS = ['exec', 'pie', 'lib'] as const

export interface MegaEntry {
  readonly sha256: string
  readonly base: number
  readonly kind: (typeof KINDS)[number] | undefined
  readonly slotBase: number
  /** Functions translated. */
  readonly slotCount: number
  /** Guest addresses the dispatch map covers. */
  readonly textStart: number
  readonly textEnd: number
  readonly mapOff: number
  readonly codeOff: number
  /** 0: nothing was translated. */
  readonly codeLen: number
}

export interface Megabinary {
  readonly path: string
  readonly size: number
  readonly abiVersion: number
  readonly slots: number
  readonly indexOff: number
  readonly nidsOff: number
  readonly maps: { readonly off: number; readonly len: number }
  readonly code: { readonly off: number; readonly len: number }
  readonly entries: readonly MegaEntry[]
  /** Which entry an inode of image.erofs is. */
  readonly nids: ReadonlyMap<number, number>
}

/** Errors: it is none, of another layout, or its tables do not lie in it. */
export function readMegabinary(path: string): Megabinary {
  const { size } = statSync(path)
  const table = (off: number, len: number): Buffer => {
    if (off + len > size) throw new BuildError('a table of the megabinary lies outside it')
    return readExtent({ path, off, size: len })
  }
  if (size < HEADER) throw new BuildError('the megabinary is shorter than its header')
  const h = table(0, HEADER)
  const u64 = (b: Buffer, at: number): number => Number(b.readBigUInt64LE(at))
  if (h.toString('latin1', 0, 8) !== MAGIC) throw new BuildError(`the megabinary has no ${MAGIC} header; build the image again`)
  const abiVersion = h.readUInt32LE(8)
  const count = h.readUInt32LE(12), indexOff = u64(h, 16), nidsOff = u64(h, 24), nidCount = u64(h, 32)
  const index = table(indexOff, count * ENTRY), nidTable = table(nidsOff, nidCount * NID)
  const entries = Array.from({ length: count }, (_, n): MegaEntry => {
    const b = index.subarray(n * ENTRY, (n + 1) * ENTRY)
    return {
      sha256: b.toString('hex', 0, 32), base: u64(b, 32), kind: KINDS[b.readUInt32LE(40) - 1],
      slotBase: b.readUInt32LE(44), slotCount: b.readUInt32LE(48), textStart: u64(b, 56), textEnd: u64(b, 64),
      mapOff: u64(b, 72), codeOff: u64(b, 80), codeLen: u64(b, 88),
    }
  })
  const nids = new Map(Array.from({ length: nidCount }, (_, n) => [u64(nidTable, n * NID), nidTable.readUInt32LE(n * NID + 8)]))
  return {
    path, size, abiVersion, slots: u64(h, 88), indexOff, nidsOff, entries, nids,
    maps: { off: u64(h, 40), len: u64(h, 48) }, code: { off: u64(h, 56), len: u64(h, 64) },
  }
}

/** SHA-256 over an ELF's dispatch map and native code, hex: what the manifest's `native` signs. */
export function hashNative(m: Megabinary, e: MegaEntry): string {
  const hash = createHash('sha256')
  if (e.codeLen > 0) {
    const take = (chunk: Buffer): void => { hash.update(chunk) }
    eachChunk({ path: m.path, off: e.mapOff, size: e.textEnd - e.textStart }, take)
    eachChunk({ path: m.path, off: e.codeOff, size: e.codeLen }, take)
  }
  return hash.digest('hex')
}

/** What does not fit together, in words; empty: all does. */
export function checkMegabinary(m: Megabinary): string[] {
  const wrong: string[] = []
  const check = (ok: boolean, what: string): void => { if (!ok) wrong.push(what) }
  const aligned = (v: number): boolean => v % PAGE === 0
  const inside = (off: number, len: number, outer: { off: number; len: number }): boolean => len >= 0 && off >= outer.off && off + len <= outer.off + outer.len
  const whole = { off: 0, len: m.size }
  check([m.indexOff, m.nidsOff, m.maps.off, m.code.off, m.size].every(aligned), 'a section does not start at a page')
  check(inside(m.maps.off, m.maps.len, whole) && inside(m.code.off, m.code.len, whole), 'a section lies outside the file')
  let slots = 1, last = ''
  for (const e of m.entries) {
    const name = `ELF ${e.sha256.slice(0, 12)}`
    check(e.sha256 > last, `${name}: the index is not sorted`)
    last = e.sha256
    check(e.kind !== undefined && aligned(e.base), `${name}: no such placement`)
    check(aligned(e.textStart) && aligned(e.textEnd) && e.textEnd >= e.textStart && e.textEnd <= 2 ** 32, `${name}: its text is no range of pages below 4 GiB`)
    check(e.slotBase === slots, `${name}: its functions do not follow the ones before`)
    slots += e.slotCount
    if (e.codeLen === 0) continue
    check(aligned(e.mapOff) && inside(e.mapOff, e.textEnd - e.textStart, m.maps), `${name}: its dispatch map lies outside the maps`)
    check(aligned(e.codeOff) && inside(e.codeOff, e.codeLen, m.code), `${name}: its code lies outside the code section`)
  }
  check(slots === m.slots, `${m.slots} functions are stated, ${slots} are there`)
  for (const [nid, n] of m.nids) check(n < m.entries.length, `inode ${nid} is said to be ELF ${n} of ${m.entries.length}`)
  return wrong
}
