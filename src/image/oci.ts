/**
 * The output of a build: an OCI image layout. image.erofs, megabinary and the signed manifest are
 * blobs of their own, named by annotations, so the daemon opens them in place.
 */
import { createHash } from 'node:crypto'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, readSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { BuildError } from './tree.ts'

export const MEDIA = {
  erofs: 'application/vnd.recompiler.image.erofs.v1',
  megabinary: 'application/vnd.recompiler.megabinary.v1',
  manifest: 'application/vnd.recompiler.manifest.dsse.v1+json',
} as const
export type Part = keyof typeof MEDIA

export interface Descriptor { mediaType: string; digest: string; size: number; annotations?: Record<string, string> }

/** SHA-256 of a file, hex. */
export function hashFile(path: string): string {
  const hash = createHash('sha256')
  const buf = Buffer.alloc(1 << 20)
  const fd = openSync(path, 'r')
  try {
    for (;;) {
      const n = readSync(fd, buf, 0, buf.length, null)
      if (n === 0) return hash.digest('hex')
      hash.update(buf.subarray(0, n))
    }
  } finally {
    closeSync(fd)
  }
}

const blobPath = (dir: string, digest: string): string => join(dir, 'blobs', 'sha256', digest.replace(/^sha256:/, ''))

/** Moves a finished file into the layout. */
export function addFile(dir: string, path: string, mediaType: string): Descriptor {
  const digest = `sha256:${hashFile(path)}`
  const size = statSync(path).size
  renameSync(path, blobPath(dir, digest))
  return { mediaType, digest, size }
}

export function addBytes(dir: string, bytes: Buffer, mediaType: string): Descriptor {
  const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
  writeFileSync(blobPath(dir, digest), bytes)
  return { mediaType, digest, size: bytes.length }
}

/** An empty layout at `dir`, replacing a layout that is there but nothing else. */
export function createLayout(dir: string): void {
  if (existsSync(dir) && !existsSync(join(dir, 'oci-layout'))) {
    throw new BuildError(`${dir} exists and is no OCI layout; choose another output directory`)
  }
  rmSync(dir, { recursive: true, force: true })
  mkdirSync(join(dir, 'blobs', 'sha256'), { recursive: true })
  writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
}

export function writeIndex(dir: string, manifest: Descriptor): void {
  writeFileSync(join(dir, 'index.json'), JSON.stringify({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [{ ...manifest, platform: { architecture: 'amd64', os: 'linux' }, annotations: { 'org.opencontainers.image.ref.name': 'latest' } }],
  }))
}

export const readJson = (file: string): unknown => JSON.parse(readFileSync(file, 'utf8'))

/** The host paths of an image's parts. */
export function openLayout(dir: string): Record<Part, { path: string; digest: string }> {
  const index = join(dir, 'index.json')
  if (!existsSync(index)) throw new BuildError(`${dir} is not an image: it has no index.json; build one with \`recompiler build -o ${dir} …\``)
  const { manifests } = readJson(index) as { manifests: Descriptor[] }
  const image = readJson(blobPath(dir, manifests[0]!.digest)) as { annotations?: Record<string, string> }
  const part = (name: Part): { path: string; digest: string } => {
    const digest = image.annotations?.[`io.recompiler.${name}`]
    if (!digest || !/^sha256:[0-9a-f]{64}$/.test(digest)) throw new BuildError(`${dir} was not built by recompiler: it names no ${name}`)
    return { path: blobPath(dir, digest), digest: digest.slice(7) }
  }
  return { erofs: part('erofs'), megabinary: part('megabinary'), manifest: part('manifest') }
}
