/**
 * Reads a tar archive where it lies: entries with the offset of their data, nothing written anywhere.
 * pax(1) "pax Interchange Format" and GNU long names; strict, because archives come from strangers: a
 * header that does not say one thing only is refused. What the names mean is src/image/layers.ts's.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { BuildError, type Extent, type Kind } from './tree.ts'

export interface TarEntry {
  /** As in the archive, one character a byte. */
  readonly name: string
  readonly kind: Kind | 'hardlink'
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Seconds since the epoch. */
  readonly mtime: number
  readonly rdev: number
  /** Target of a symbolic or hard link. */
  readonly link: string
  /** The data; of size 0 for everything but regular files. */
  readonly data: Extent
}

const BLOCK = 512
/** Longest record of long names or pax headers that is read: PATH_MAX twice and extended attributes fit well. */
const MAX_META = 1 << 20

const KINDS: Readonly<Record<string, TarEntry['kind']>> = {
  '0': 'file', '\0': 'file', '7': 'file', '1': 'hardlink', '2': 'symlink', '3': 'char', '4': 'block', '5': 'dir', '6': 'fifo',
}

export const shown = (name: string): string => JSON.stringify(name.length > 120 ? `${name.slice(0, 120)}…` : name)

/** glibc's makedev(3). */
const makedev = (major: number, minor: number): number =>
  ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0

const text = (b: Buffer, from: number, len: number): string => {
  const field = b.toString('latin1', from, from + len)
  const nul = field.indexOf('\0')
  return nul < 0 ? field : field.slice(0, nul)
}

/** A number: octal digits, or base 256 when the first bit is set (negative ones start with 0xff). */
function number(b: Buffer, from: number, len: number, what: string): number {
  const first = b[from]!
  if (first & 0x80) {
    let v = first === 0xff ? -1n : BigInt(first & 0x7f)
    for (let n = 1; n < len; n++) v = (v << 8n) | BigInt(b[from + n]!)
    if (v > BigInt(Number.MAX_SAFE_INTEGER) || v < BigInt(Number.MIN_SAFE_INTEGER)) throw new BuildError(`its ${what} is out of range`)
    return Number(v)
  }
  const digits = text(b, from, len).trim()
  if (!/^[0-7]*$/.test(digits)) throw new BuildError(`its ${what} is no number`)
  return digits === '' ? 0 : parseInt(digits, 8)
}

const unsigned = (v: number, max: number, what: string): number => {
  if (!Number.isSafeInteger(v) || v < 0 || v > max) throw new BuildError(`its ${what} is ${v < 0 ? 'negative' : 'out of range'}`)
  return v
}

/** Records of a pax header: `len key=value\n`, len counting itself. */
function paxRecords(data: Buffer): Map<string, string> {
  const records = new Map<string, string>()
  for (let at = 0; at < data.length;) {
    const space = data.indexOf(0x20, at)
    const digits = space < 0 ? '' : data.toString('latin1', at, space)
    const end = at + Number(digits)
    if (!/^[1-9][0-9]{0,8}$/.test(digits) || end > data.length || end <= space + 1 || data[end - 1] !== 0x0a) throw new BuildError('its pax header is malformed')
    const body = data.toString('latin1', space + 1, end - 1)
    const eq = body.indexOf('=')
    if (eq <= 0) throw new BuildError('its pax header is malformed')
    records.set(body.slice(0, eq), body.slice(eq + 1))
    at = end
  }
  return records
}

/** The records that name and place an entry; values that could be read in two ways are refused. */
class Overrides {
  path: string | undefined
  link: string | undefined
  private records = new Map<string, string>()

  pax(data: Buffer): void {
    for (const [key, value] of paxRecords(data)) {
      if (key.startsWith('GNU.sparse')) throw new BuildError('it is a sparse file (pax), which layers do not have; pack it without --sparse')
      if (/^(path|linkpath|size|uid|gid|mtime)$/.test(key) && value.includes('\0')) throw new BuildError(`its pax ${key} holds a NUL`)
      if (value !== '') this.records.set(key, value)
    }
    this.path = this.records.get('path') ?? this.path
    this.link = this.records.get('linkpath') ?? this.link
  }

  number(key: 'size' | 'uid' | 'gid', otherwise: () => number): number {
    const v = this.records.get(key)
    if (v === undefined) return otherwise()
    if (!/^-?[0-9]{1,20}$/.test(v)) throw new BuildError(`its pax ${key} is no number`)
    return Number(v)
  }

  mtime(otherwise: () => number): number {
    const v = this.records.get('mtime')
    if (v === undefined) return otherwise()
    if (!/^-?[0-9]{1,15}(\.[0-9]*)?$/.test(v)) throw new BuildError('its pax mtime is no time')
    return Math.floor(Number(v))
  }
}

/** Sum over the header with its own field as spaces; old writers summed signed bytes. */
function checksumFits(h: Buffer): boolean {
  let plain = 0, signed = 0
  for (let n = 0; n < BLOCK; n++) {
    const byte = n >= 148 && n < 156 ? 0x20 : h[n]!
    plain += byte
    signed += byte > 127 ? byte - 256 : byte
  }
  const stated = number(h, 148, 8, 'checksum')
  return stated === plain || stated === signed
}

function headerName(h: Buffer): string {
  const name = text(h, 0, 100)
  if (h.toString('latin1', 257, 263) !== 'ustar\0') return name
  const prefix = text(h, 345, h.toString('latin1', 508, 512) === 'tar\0' ? 131 : 155)
  return prefix ? `${prefix}/${name}` : name
}

/**
 * Every entry of the archive in `archive`, in order. `label` names it in errors.
 * Errors (BuildError): truncated; a bad checksum; names, sizes, owners or times out of range; sparse
 * files; an entry type that is none of tar's.
 */
export function* readTar(archive: Extent, label: string): Generator<TarEntry> {
  const end = archive.off + archive.size
  const fd = openSync(archive.path, 'r')
  const header = Buffer.alloc(BLOCK)
  const fill = (b: Buffer, at: number): void => {
    for (let done = 0; done < b.length;) {
      const n = readSync(fd, b, done, b.length - done, at + done)
      if (n === 0) throw new BuildError('the archive became shorter while it was read')
      done += n
    }
  }
  let name = ''
  try {
    let over = new Overrides()
    let pending = false
    for (let at = archive.off; at < end;) {
      if (at + BLOCK > end) throw new BuildError('the archive is truncated within a header')
      fill(header, at)
      if (header[0] === 0 && header.every((byte) => byte === 0)) {
        if (pending) throw new BuildError('the archive ends after an extended header')
        return
      }
      name = over.path ?? headerName(header)
      if (!checksumFits(header)) throw new BuildError('the header has a wrong checksum: the archive is damaged or no tar archive')
      const type = String.fromCharCode(header[156]!)
      const meta = 'xgLK'.includes(type)
      const kind = type === '\0' && name.endsWith('/') ? 'dir' : KINDS[type]
      if (type === 'S') throw new BuildError('it is a sparse file (GNU), which layers do not have; pack it without --sparse')
      if (!meta && !kind) throw new BuildError(`its type ${shown(type)} is not one of tar's`)
      // Only these have data; others may state a size that nobody wrote (archive/tar does the same).
      const holdsData = meta || kind === 'file'
      const stated = meta ? number(header, 124, 12, 'size') : over.number('size', () => number(header, 124, 12, 'size'))
      const size = holdsData ? unsigned(stated, Number.MAX_SAFE_INTEGER, 'size') : Math.max(0, stated) * 0
      const off = at + BLOCK
      at = off + Math.ceil(size / BLOCK) * BLOCK
      if (at > end) throw new BuildError('the archive is truncated within the data')
      if (meta) {
        if (size > MAX_META) throw new BuildError(`its extended header has ${size} bytes, more than ${MAX_META}`)
        const data = Buffer.alloc(size)
        fill(data, off)
        if (type === 'x') over.pax(data)
        else if (type === 'L') over.path = text(data, 0, size)
        else if (type === 'K') over.link = text(data, 0, size)
        // 'g' holds for all entries: comments of git archive, in practice. archive/tar ignores it too.
        pending = type !== 'g' || pending
        continue
      }
      const device = kind === 'char' || kind === 'block'
      yield {
        name, kind: kind!,
        mode: number(header, 100, 8, 'mode') & 0o7777,
        uid: unsigned(over.number('uid', () => number(header, 108, 8, 'owner')), 0xffff_fffe, 'owner'),
        gid: unsigned(over.number('gid', () => number(header, 116, 8, 'group')), 0xffff_fffe, 'group'),
        mtime: over.mtime(() => number(header, 136, 12, 'time')),
        rdev: device ? makedev(unsigned(number(header, 329, 8, 'major number'), 0xfff, 'major number'), unsigned(number(header, 337, 8, 'minor number'), 0xfffff, 'minor number')) : 0,
        link: over.link ?? text(header, 157, 100),
        data: { path: archive.path, off, size },
      }
      over = new Overrides()
      pending = false
      name = ''
    }
    if (pending) throw new BuildError('the archive ends after an extended header')
  } catch (e) {
    if (!(e instanceof BuildError)) throw e
    throw new BuildError(`${label}: ${name ? `entry ${shown(name)}: ` : ''}${e.message}`)
  } finally {
    closeSync(fd)
  }
}
