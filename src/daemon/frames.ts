/**
 * What may arrive on a control socket: frames of at most 1 MiB, and msgpack whose shape is checked
 * before it is decoded. A decoder trusts lengths and recurses; this looks at every byte once, with a
 * depth limit and no allocation.
 */
import { Packr, unpack } from 'msgpackr'

export const MAX_FRAME = 1 << 20
const MAX_DEPTH = 8
const packr = new Packr({ useRecords: false })

/** A frame of `message`: u32 length, msgpack. */
export function frame(message: object): Buffer {
  const body = packr.pack(message)
  const out = Buffer.allocUnsafe(4 + body.length)
  out.writeUInt32LE(body.length)
  body.copy(out, 4)
  return out
}

/** End of the value at `at`; −1: it is not whole, too deep, or of a kind that is not used (extensions). */
function skip(b: Buffer, at: number, depth: number): number {
  if (at >= b.length || depth > MAX_DEPTH) return -1
  const first = b[at]!
  const sized = (width: number): number => (at + 1 + width > b.length ? -1 : b.readUIntBE(at + 1, width))
  const leaf = (len: number): number => (at + len > b.length ? -1 : at + len)
  const bytes = (width: number): number => { const n = sized(width); return n < 0 ? -1 : leaf(1 + width + n) }
  const items = (from: number, count: number): number => {
    // Every item takes a byte at least.
    if (count > b.length - from) return -1
    let end = from
    for (let n = 0; n < count && end >= 0; n++) end = skip(b, end, depth + 1)
    return end
  }
  /** Names of a map are strings: what else msgpack has, the decoder would make a name of, or throw. */
  const pairs = (from: number, count: number): number => {
    if (2 * count > b.length - from) return -1
    let end = from
    for (let n = 0; n < count && end >= 0; n++) {
      const kind = b[end] ?? 0
      const name = (kind & 0xe0) === 0xa0 || kind === 0xd9 || kind === 0xda || kind === 0xdb
      end = name ? skip(b, end, depth + 1) : -1
      if (end >= 0) end = skip(b, end, depth + 1)
    }
    return end
  }
  if (first <= 0x7f || first >= 0xe0) return at + 1
  if (first <= 0x8f) return pairs(at + 1, first & 0x0f)
  if (first <= 0x9f) return items(at + 1, first & 0x0f)
  if (first <= 0xbf) return leaf(1 + (first & 0x1f))
  switch (first) {
    case 0xc0: case 0xc2: case 0xc3: return at + 1
    case 0xc4: case 0xd9: return bytes(1)
    case 0xc5: case 0xda: return bytes(2)
    case 0xc6: case 0xdb: return bytes(4)
    case 0xcc: case 0xd0: return leaf(2)
    case 0xcd: case 0xd1: return leaf(3)
    case 0xca: case 0xce: case 0xd2: return leaf(5)
    case 0xcb: case 0xcf: case 0xd3: return leaf(9)
    case 0xdc: { const n = sized(2); return n < 0 ? -1 : items(at + 3, n) }
    case 0xdd: { const n = sized(4); return n < 0 ? -1 : items(at + 5, n) }
    case 0xde: { const n = sized(2); return n < 0 ? -1 : pairs(at + 3, n) }
    case 0xdf: { const n = sized(4); return n < 0 ? -1 : pairs(at + 5, n) }
    default: return -1
  }
}

/** The map in a frame's body; undefined: it is none. */
export function decode(body: Buffer): Record<string, unknown> | undefined {
  const map = body.length > 0 && (body[0]! & 0xf0) === 0x80 || body[0] === 0xde || body[0] === 0xdf
  if (!map || skip(body, 0, 0) !== body.length) return undefined
  const value: unknown = unpack(body)
  return typeof value === 'object' && value !== null ? value as Record<string, unknown> : undefined
}

/** A field as bytes without NUL; −: not text. */
export const textOf = (v: unknown): string | undefined => (typeof v === 'string' && v.length <= 65_536 && !v.includes('\0') ? v : undefined)

/** A list of strings or byte strings, each without NUL. */
export function listOf(v: unknown): Buffer[] | undefined {
  if (v === undefined || v === null) return []
  if (!Array.isArray(v) || v.length > 65_536) return undefined
  const out: Buffer[] = []
  for (const item of v as unknown[]) {
    const b = typeof item === 'string' ? Buffer.from(item) : item instanceof Uint8Array ? Buffer.from(item) : undefined
    if (!b || b.includes(0)) return undefined
    out.push(b)
  }
  return out
}
