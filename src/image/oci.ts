/**
 * The output of a build: an OCI image layout. image.erofs, megabinary and the signed manifest are
 * blobs of their own, named by annotations, so the daemon opens them in place.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Config } from './manifest.ts'
import { BuildError, hashExtent } from './tree.ts'

export const MEDIA = {
  erofs: 'application/vnd.recompiler.image.erofs.v1',
  megabinary: 'application/vnd.recompiler.megabinary.v1',
  manifest: 'application/vnd.recompiler.manifest.dsse.v1+json',
} as const
export type Part = keyof typeof MEDIA

export const LAYOUT = '{"imageLayoutVersion":"1.0.0"}'

export const IMAGE_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'

export interface Descriptor { mediaType: string; digest: string; size: number; annotations?: Record<string, string> }

/** SHA-256 of a file, hex. */
export const hashFile = (path: string): string => hashExtent({ path, off: 0, size: statSync(path).size })

export const blobPath = (dir: string, digest: string): string => join(dir, 'blobs', 'sha256', digest.replace(/^sha256:/, ''))

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

/** An empty layout at `dir`, which is not there yet. */
export function createLayout(dir: string): void {
  mkdirSync(join(dir, 'blobs', 'sha256'), { recursive: true })
  writeFileSync(join(dir, 'oci-layout'), LAYOUT)
}

/** Refuses an output that would replace something else than an image. */
export function checkOutput(dir: string): void {
  const st = statSync(dir, { throwIfNoEntry: false })
  if (!st) return
  if (!st.isDirectory()) throw new BuildError(`${dir} is no directory; choose another output directory`)
  if (!existsSync(join(dir, 'oci-layout')) && readdirSync(dir).length) throw new BuildError(`${dir} exists and is no image; choose another output directory`)
}

/** Puts the finished layout `fresh` at `dir`. What was there stays open for those who have it open. */
export function publishLayout(fresh: string, dir: string): void {
  const old = `${fresh}.old`
  if (existsSync(dir)) renameSync(dir, old)
  try {
    renameSync(fresh, dir)
  } catch (e) {
    if (existsSync(old)) renameSync(old, dir)
    throw e
  }
}

/** The OCI image configuration that `config` is written as. */
export const ociConfig = (c: Config, diffIds: readonly string[]): object => ({
  architecture: 'amd64', os: 'linux',
  config: { Env: c.env, Cmd: c.cmd, Entrypoint: c.entrypoint, WorkingDir: c.cwd, User: c.user },
  rootfs: { type: 'layers', diff_ids: diffIds },
})

/** index.json for one image manifest, named `ref`. */
export const indexOf = ({ digest, size }: Descriptor, ref: string): string => JSON.stringify({
  schemaVersion: 2,
  mediaType: 'application/vnd.oci.image.index.v1+json',
  manifests: [{ mediaType: IMAGE_MANIFEST, digest, size, platform: { architecture: 'amd64', os: 'linux' }, annotations: { 'org.opencontainers.image.ref.name': ref } }],
})

export function writeIndex(dir: string, manifest: Descriptor): void {
  writeFileSync(join(dir, 'index.json'), indexOf(manifest, 'latest'))
}

export const readJson = (file: string): unknown => {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch (e) {
    throw new BuildError(`${file} cannot be read as JSON: ${(e as Error).message}`)
  }
}

/** Whether the layout in `dir` was made by a build, not by somebody else. */
export function isBuilt(dir: string): boolean {
  try {
    openLayout(dir)
    return true
  } catch {
    return false
  }
}

/** The host paths of an image's parts. */
export function openLayout(dir: string): Record<Part, { path: string; digest: string }> {
  const index = join(dir, 'index.json')
  if (!existsSync(index)) throw new BuildError(`${dir} is not an image: it has no index.json; build one with \`recompiler build -o ${dir} …\``)
  const manifest = (readJson(index) as { manifests?: Descriptor[] } | null)?.manifests?.[0]?.digest
  if (typeof manifest !== 'string' || !/^sha256:[0-9a-f]{64}$/.test(manifest)) throw new BuildError(`${index} names no image manifest; build the image again`)
  const image = readJson(blobPath(dir, manifest)) as { annotations?: Record<string, string> } | null
  const part = (name: Part): { path: string; digest: string } => {
    const digest = image?.annotations?.[`io.recompiler.${name}`]
    if (!digest || !/^sha256:[0-9a-f]{64}$/.test(digest)) throw new BuildError(`${dir} was not built by recompiler: it names no ${name}`)
    return { path: blobPath(dir, digest), digest: digest.slice(7) }
  }
  return { erofs: part('erofs'), megabinary: part('megabinary'), manifest: part('manifest') }
}
