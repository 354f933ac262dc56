/** What packing and analysis need to know about an ELF file (elf(5)); the recompiler reads them itself. */
import { readFileSync } from 'node:fs'

export interface ElfInfo {
  /** 64-bit little-endian x86-64, executable or shared object. */
  readonly x86_64: boolean
  readonly interp?: string
  readonly soname?: string
  readonly needed: readonly string[]
  readonly runpath: readonly string[]
  /** Undefined dynamic symbols: what it takes from its libraries. */
  readonly imports: readonly string[]
  /** x86-64-v2, -v3, -v4 when the file says that it needs them (psABI, GNU_PROPERTY_X86_ISA_1_NEEDED). */
  readonly isaNeeded: readonly string[]
  /** Why it cannot be translated; undefined: nothing is known against it. */
  readonly unsupported?: string
  /** Executable bytes: file offset and size of each executable segment. */
  readonly text: readonly { readonly off: number; readonly size: number }[]
}

const MACHINES: Readonly<Record<number, string>> = { 3: '32-bit x86', 8: 'MIPS', 20: 'PowerPC', 21: 'PowerPC64', 22: 's390', 40: '32-bit ARM', 62: 'x86-64', 183: 'ARM64', 243: 'RISC-V', 258: 'LoongArch' }
const PT_LOAD = 1, PT_DYNAMIC = 2, PT_INTERP = 3, PT_GNU_PROPERTY = 0x6474e553
const PF_X = 1, PF_W = 2
const DT_NEEDED = 1, DT_STRTAB = 5, DT_SYMTAB = 6, DT_SONAME = 14, DT_RPATH = 15, DT_TEXTREL = 22, DT_RUNPATH = 29, DT_FLAGS = 30
const DF_TEXTREL = 4
const SHT_DYNSYM = 11
const GNU_PROPERTY_X86_ISA_1_NEEDED = 0xc000_8002

export const isElf = (head: Buffer): boolean => head.length >= 20 && head.readUInt32BE(0) === 0x7f454c46

/** True for what the recompiler takes: 64-bit x86-64 ET_EXEC or ET_DYN. */
export const isX86Elf = (head: Buffer): boolean =>
  isElf(head) && head[4] === 2 && head[5] === 1 && head.readUInt16LE(18) === 62 && [2, 3].includes(head.readUInt16LE(16))

/** Why an ELF executable or shared object is of no use here, by its first bytes; undefined for ours and for other ELF files. */
export function foreign(head: Buffer): string | undefined {
  if (!isElf(head) || isX86Elf(head)) return undefined
  const u16 = (at: number): number => (head[5] === 2 ? head.readUInt16BE(at) : head.readUInt16LE(at))
  if (![2, 3].includes(u16(16))) return undefined
  const machine = u16(18)
  if (machine === 62) return 'an x32 program (32-bit pointers); rebuild it for x86-64'
  return `built for ${MACHINES[machine] ?? `machine ${machine}`}; rebuild it for x86-64`
}

const none: ElfInfo = { x86_64: false, needed: [], runpath: [], imports: [], isaNeeded: [], text: [] }

interface Segment { readonly type: number; readonly flags: number; readonly off: number; readonly vaddr: number; readonly size: number }

/** A file's bytes with reads that fail as a damaged file. */
class View {
  readonly b: Buffer
  constructor(b: Buffer) { this.b = b }
  u64(at: number): number { return Number(this.b.readBigUInt64LE(at)) }
  cstr(at: number): string {
    const end = this.b.indexOf(0, at)
    return at < 0 || at >= this.b.length || end < 0 ? '' : this.b.toString('latin1', at, end)
  }
}

/** x86 ISA levels of .note.gnu.property (System V psABI, "Program Property"). */
function isaLevels(v: View, segments: readonly Segment[]): string[] {
  const note = segments.find((s) => s.type === PT_GNU_PROPERTY)
  if (!note) return []
  const end = Math.min(note.off + note.size, v.b.length)
  for (let at = note.off + 16; at + 12 <= end;) {
    const type = v.b.readUInt32LE(at), size = v.b.readUInt32LE(at + 4)
    if (type === GNU_PROPERTY_X86_ISA_1_NEEDED) return [2, 4, 8].flatMap((bit, n) => (v.b.readUInt32LE(at + 8) & bit ? [`x86-64-v${n + 2}`] : []))
    at += 8 + Math.ceil(size / 8) * 8
  }
  return []
}

/** Undefined names of .dynsym; without section headers its end is the string table, which linkers put behind it. */
function undefinedSymbols(v: View, symtab: number, strtab: number): string[] {
  const shoff = v.u64(40), shnum = v.b.readUInt16LE(60)
  let size = Math.max(0, strtab - symtab)
  for (let n = 0; shoff > 0 && n < shnum && shoff + (n + 1) * 64 <= v.b.length; n++) {
    const at = shoff + n * 64
    if (v.b.readUInt32LE(at + 4) === SHT_DYNSYM) size = v.u64(at + 32)
  }
  const out: string[] = []
  for (let at = symtab + 24; symtab > 0 && at + 24 <= Math.min(symtab + size, v.b.length); at += 24) {
    const name = v.b.readUInt16LE(at + 6) === 0 ? v.cstr(strtab + v.b.readUInt32LE(at)) : ''
    if (name) out.push(name)
  }
  return out
}

/** Errors: none; a damaged file is `unsupported`. */
export function parseElf(bytes: Buffer): ElfInfo {
  if (!isX86Elf(bytes)) return { ...none, ...(foreign(bytes) ? { unsupported: foreign(bytes)! } : {}) }
  try {
    return parse(new View(bytes))
  } catch (e) {
    if (!(e instanceof RangeError)) throw e
    return { ...none, x86_64: true, unsupported: 'the ELF file is damaged: a header points outside it' }
  }
}

function parse(v: View): ElfInfo {
  const off = v.u64(32)
  const segments = Array.from({ length: v.b.readUInt16LE(56) }, (_, n): Segment => {
    const at = off + n * 56
    return { type: v.b.readUInt32LE(at), flags: v.b.readUInt32LE(at + 4), off: v.u64(at + 8), vaddr: v.u64(at + 16), size: v.u64(at + 32) }
  })
  const loads = segments.filter((s) => s.type === PT_LOAD)
  const fileOff = (vaddr: number): number => {
    const s = loads.find((s) => vaddr >= s.vaddr && vaddr < s.vaddr + s.size)
    return s ? s.off + (vaddr - s.vaddr) : 0
  }
  const interp = segments.find((s) => s.type === PT_INTERP)
  const dynamic = segments.find((s) => s.type === PT_DYNAMIC)
  const tags: [number, number][] = []
  for (let at = dynamic?.off ?? 0; dynamic && at + 16 <= dynamic.off + dynamic.size; at += 16) {
    const tag = v.u64(at)
    if (tag === 0) break
    tags.push([tag, v.u64(at + 8)])
  }
  const value = (tag: number): number | undefined => tags.find(([t]) => t === tag)?.[1]
  const strtab = fileOff(value(DT_STRTAB) ?? 0)
  const strings = (tag: number): string[] => tags.filter(([t]) => t === tag).map(([, at]) => v.cstr(strtab + at))
  const soname = strings(DT_SONAME)[0]
  const textrel = value(DT_TEXTREL) !== undefined || ((value(DT_FLAGS) ?? 0) & DF_TEXTREL) !== 0
  const writable = loads.some((s) => (s.flags & (PF_W | PF_X)) === (PF_W | PF_X))
  const unsupported = textrel ? 'it relocates its own code (DT_TEXTREL); rebuild it as position-independent code (-fPIC)'
    : writable ? 'a segment is writable and executable (self-modifying code)' : undefined
  return {
    x86_64: true,
    ...(interp ? { interp: v.cstr(interp.off) } : {}),
    ...(soname ? { soname } : {}),
    needed: strings(DT_NEEDED),
    runpath: [...strings(DT_RUNPATH), ...strings(DT_RPATH)].flatMap((p) => p.split(':')),
    imports: undefinedSymbols(v, fileOff(value(DT_SYMTAB) ?? 0), strtab),
    isaNeeded: isaLevels(v, segments),
    ...(unsupported ? { unsupported } : {}),
    text: loads.filter((s) => s.flags & PF_X).map((s) => ({ off: s.off, size: s.size })),
  }
}

export const readElf = (path: string): ElfInfo => parseElf(readFileSync(path))

/** Numbers of `mov $nr, %eax` (or `xor %eax, %eax`) closely followed by `syscall`: what is plainly visible, not all. */
export function visibleSyscalls(bytes: Buffer, text: ElfInfo['text']): Set<number> {
  const found = new Set<number>()
  const pattern = Buffer.from([0x0f, 0x05])
  for (const { off, size } of text) {
    const code = bytes.subarray(off, off + size)
    for (let at = code.indexOf(pattern); at >= 0; at = code.indexOf(pattern, at + 2)) {
      for (let p = at - 2; p >= Math.max(0, at - 24); p--) {
        if (code[p] === 0x31 && code[p + 1] === 0xc0 && p === at - 2) found.add(0)
        if (p > at - 5 || code[p] !== 0xb8) continue
        const nr = code.readUInt32LE(p + 1)
        if (nr < 1024) {
          found.add(nr)
          break
        }
      }
    }
  }
  return found
}
