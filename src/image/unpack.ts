/** A layer blob → an uncompressed tar in the build's temporary directory, its digests checked on the way. */
import { createHash, type Hash } from 'node:crypto'
import { closeSync, createReadStream, openSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import type { Budget } from './layers.ts'
import { BuildError, eachChunk, readExtent, writeAll, type Extent } from './tree.ts'

const DIGEST = /^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/

/** Checks that `digest` is one, so that it may be part of a path; returns [algorithm, hex]. */
export function parseDigest(digest: unknown, what: string): [string, string] {
  if (typeof digest !== 'string' || !DIGEST.test(digest)) throw new BuildError(`${what} is named by no sha256 or sha512 digest`)
  return digest.split(':') as [string, string]
}

const hasher = (digest: string, what: string): Hash => createHash(parseDigest(digest, what)[0])

function compare(hash: Hash, digest: string, what: string): void {
  const seen = hash.digest('hex')
  if (seen !== digest.split(':')[1]) throw new BuildError(`${what} does not match its digest: the bytes are ${digest.split(':')[0]}:${seen}, not ${digest}; fetch the image again`)
}

/** Checks an extent's bytes against a digest. */
export function checkDigest(extent: Extent, digest: string, what: string): void {
  const hash = hasher(digest, what)
  eachChunk(extent, (chunk) => hash.update(chunk))
  compare(hash, digest, what)
}

type Compression = 'none' | 'gzip' | 'zstd'

/** What the bytes say; media types are wrong often enough that nobody goes by them. */
function compressionOf(extent: Extent, what: string): Compression {
  const magic = readExtent(extent, 6).toString('hex')
  if (magic.startsWith('1f8b')) return 'gzip'
  if (magic.startsWith('28b52ffd')) return 'zstd'
  if (/^184d2a5/.test(Buffer.from(magic.slice(0, 8), 'hex').reverse().toString('hex'))) return 'zstd'
  if (magic === 'fd377a585a00' || magic.startsWith('425a68')) throw new BuildError(`${what} is compressed with ${magic.startsWith('42') ? 'bzip2' : 'xz'}, which images are not; recompress it with gzip or zstd`)
  return 'none'
}

/**
 * The frames of a zstd stream (RFC 8878 section 3.1), skippable ones left out. Node's decompressor
 * stops after one frame, and layers of several frames are common (zstd:chunked, pzstd).
 */
function* zstdFrames({ path, off, size }: Extent): Generator<Extent> {
  const end = off + size
  const at = (pos: number, len: number): Buffer => {
    if (pos + len > end) throw new BuildError('its last zstd frame is truncated')
    return readExtent({ path, off: pos, size: len })
  }
  for (let pos = off; pos < end;) {
    const start = pos
    const magic = at(pos, 4).readUInt32LE(0)
    if (magic >>> 4 === 0x184d2a5) {
      pos += 8 + at(pos + 4, 4).readUInt32LE(0)
      continue
    }
    if (magic !== 0xfd2fb528) throw new BuildError('there is something after its zstd frames')
    const flags = at(pos + 4, 1)[0]!
    const single = (flags >> 5) & 1
    pos += 5 + (single ? 0 : 1) + [0, 1, 2, 4][flags & 3]! + [single, 2, 4, 8][flags >> 6]!
    for (let last = 0; !last;) {
      const header = at(pos, 3).readUIntLE(0, 3)
      last = header & 1
      pos += 3 + (((header >> 1) & 3) === 1 ? 1 : header >> 3)
    }
    pos += flags & 4 ? 4 : 0
    if (pos > end) throw new BuildError('its last zstd frame is truncated')
    yield { path, off: start, size: pos - start }
  }
}

/** `consumed` is told how many stored bytes each piece took. */
async function* decompressed(blob: Extent, compression: Compression, consumed: (bytes: number) => void): AsyncGenerator<Buffer> {
  for (const part of compression === 'zstd' ? zstdFrames(blob) : [blob]) {
    const from = createReadStream(part.path, { start: part.off, end: part.off + part.size - 1, highWaterMark: 1 << 18 })
    const through = compression === 'zstd' ? createZstdDecompress({ chunkSize: 1 << 18 }) : createGunzip({ chunkSize: 1 << 18 })
    // A failure of either ends `through`, whose reader below sees it.
    pipeline(from, through, () => undefined)
    let seen = 0
    for await (const chunk of through) {
      consumed(from.bytesRead - seen)
      seen = from.bytesRead
      yield chunk as Buffer
    }
    consumed(part.size - seen)
  }
}

let serial = 0

/**
 * The uncompressed bytes of `blob`. `digest`: of the blob as it is, checked before anything is read from
 * it; `diffId`: of the uncompressed bytes. What is not compressed stays where it is.
 * `consumed`: is told of the stored bytes as they are done.
 * Errors: a digest differs, the stream is damaged, or the budget is exceeded (before more is written).
 */
export async function unpack(blob: Extent, temp: string, what: string, expect: { digest?: string; diffId?: string }, budget: Budget, consumed: (bytes: number) => void = () => undefined): Promise<Extent> {
  if (expect.digest !== undefined) checkDigest(blob, expect.digest, what)
  const compression = compressionOf(blob, what)
  if (compression === 'none') {
    budget.addBytes(blob.size)
    if (expect.diffId !== undefined && expect.diffId !== expect.digest) checkDigest(blob, expect.diffId, `${what} (diff_id)`)
    consumed(blob.size)
    return blob
  }
  const inner = expect.diffId === undefined ? undefined : hasher(expect.diffId, `${what} (diff_id)`)
  const out = join(temp, `layer-${serial++}.tar`)
  const fd = openSync(out, 'wx', 0o600)
  try {
    for await (const chunk of decompressed(blob, compression, consumed)) {
      budget.addBytes(chunk.length)
      inner?.update(chunk)
      writeAll(fd, chunk)
    }
  } catch (e) {
    if ((e as { syscall?: string }).syscall) throw e
    const why = (e as Error).message
    throw e instanceof BuildError ? new BuildError(`${what}: ${why}`) : new BuildError(`${what}: the ${compression} stream is damaged or truncated: ${why}; fetch the image again`)
  } finally {
    closeSync(fd)
  }
  if (inner) compare(inner, expect.diffId!, `${what} (diff_id)`)
  return { path: out, off: 0, size: statSync(out).size }
}
