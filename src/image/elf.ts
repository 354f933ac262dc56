/** The little that packing needs to know about an ELF file. */
import { readFileSync } from 'node:fs'

export interface ElfInfo {
  /** 64-bit little-endian x86-64, executable or shared object. */
  readonly x86_64: boolean
  readonly interp?: string
  readonly needed: readonly string[]
  readonly runpath: readonly string[]
}

export const isElf = (head: Buffer): boolean => head.length >= 20 && head.readUInt32BE(0) === 0x7f454c46

/** True for what the recompiler takes: 64-bit x86-64 ET_EXEC or ET_DYN. */
export const isX86Elf = (head: Buffer): boolean =>
  isElf(head) && head[4] === 2 && head[5] === 1 && head.readUInt16LE(18) === 62 && [2, 3].includes(head.readUInt16LE(16))

const PT_LOAD = 1, PT_DYNAMIC = 2, PT_INTERP = 3
const DT_NEEDED = 1n, DT_STRTAB = 5n, DT_RPATH = 15n, DT_RUNPATH = 29n

export function readElf(path: string): ElfInfo {
  const b = readFileSync(path)
  if (!isX86Elf(b)) return { x86_64: false, needed: [], runpath: [] }
  const off = Number(b.readBigUInt64LE(32))
  const segments = Array.from({ length: b.readUInt16LE(56) }, (_, n) => {
    const at = off + n * 56
    return { type: b.readUInt32LE(at), off: Number(b.readBigUInt64LE(at + 8)), vaddr: b.readBigUInt64LE(at + 16), size: Number(b.readBigUInt64LE(at + 32)) }
  })
  const cstr = (at: number): string => b.toString('latin1', at, b.indexOf(0, at))
  const fileOff = (vaddr: bigint): number => {
    const s = segments.find((s) => s.type === PT_LOAD && vaddr >= s.vaddr && vaddr < s.vaddr + BigInt(s.size))
    return s ? s.off + Number(vaddr - s.vaddr) : 0
  }
  const interp = segments.find((s) => s.type === PT_INTERP)
  const dynamic = segments.find((s) => s.type === PT_DYNAMIC)
  const tags: [bigint, bigint][] = []
  for (let at = dynamic?.off ?? 0; dynamic && at + 16 <= dynamic.off + dynamic.size; at += 16) {
    const tag = b.readBigInt64LE(at)
    if (tag === 0n) break
    tags.push([tag, b.readBigUInt64LE(at + 8)])
  }
  const strtab = fileOff(tags.find(([t]) => t === DT_STRTAB)?.[1] ?? 0n)
  const strings = (tag: bigint): string[] => tags.filter(([t]) => t === tag).map(([, v]) => cstr(strtab + Number(v)))
  return {
    x86_64: true,
    ...(interp ? { interp: cstr(interp.off) } : {}),
    needed: strings(DT_NEEDED),
    runpath: [...strings(DT_RUNPATH), ...strings(DT_RPATH)].flatMap((p) => p.split(':')),
  }
}
