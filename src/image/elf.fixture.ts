/** Small ELF files for tests, byte by byte. */

export interface TinyElf {
  readonly machine?: number
  /** 1: 32-bit. */
  readonly class?: number
  readonly type?: number
  /** p_flags of the one segment; 5: read and execute. */
  readonly flags?: number
  readonly code?: Buffer
  /** d_tag, d_val pairs of a PT_DYNAMIC. */
  readonly dynamic?: readonly (readonly [number, number])[]
}

const BASE = 0x400000

/** exit_group(0), after write(1, …): `mov $1,%eax; syscall; mov $231,%eax; xor %edi,%edi; syscall`. */
const EXIT = Buffer.from('b8010000000f05b8e700000031ff0f05', 'hex')

/** A static x86-64 program of one segment. */
export function tinyElf(e: TinyElf = {}): Buffer {
  const code = e.code ?? EXIT
  const dynamic = e.dynamic ?? []
  const headers = 64 + 56 * (dynamic.length ? 2 : 1)
  const dynamicAt = headers + code.length
  const b = Buffer.alloc(dynamicAt + (dynamic.length ? (dynamic.length + 1) * 16 : 0))
  b.writeUInt32BE(0x7f454c46, 0)
  b.set([e.class ?? 2, 1, 1], 4)
  b.writeUInt16LE(e.type ?? 2, 16)
  b.writeUInt16LE(e.machine ?? 62, 18)
  b.writeUInt32LE(1, 20)
  b.writeBigUInt64LE(BigInt(BASE + headers), 24)
  b.writeBigUInt64LE(64n, 32)
  b.writeUInt16LE(64, 52)
  b.writeUInt16LE(56, 54)
  b.writeUInt16LE(dynamic.length ? 2 : 1, 56)
  const segment = (n: number, type: number, flags: number, off: number, size: number): void => {
    const at = 64 + n * 56
    b.writeUInt32LE(type, at)
    b.writeUInt32LE(flags, at + 4)
    b.writeBigUInt64LE(BigInt(off), at + 8)
    b.writeBigUInt64LE(BigInt(BASE + off), at + 16)
    b.writeBigUInt64LE(BigInt(BASE + off), at + 24)
    b.writeBigUInt64LE(BigInt(size), at + 32)
    b.writeBigUInt64LE(BigInt(size), at + 40)
    b.writeBigUInt64LE(4096n, at + 48)
  }
  segment(0, 1, e.flags ?? 5, 0, b.length)
  if (dynamic.length) segment(1, 2, 4, dynamicAt, (dynamic.length + 1) * 16)
  code.copy(b, headers)
  for (const [n, [tag, value]] of dynamic.entries()) {
    b.writeBigUInt64LE(BigInt(tag), dynamicAt + n * 16)
    b.writeBigUInt64LE(BigInt(value), dynamicAt + n * 16 + 8)
  }
  return b
}
