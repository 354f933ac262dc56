/**
 * The images a build can start from: an OCI image layout (a directory or a tar of one) and a docker
 * archive. Everything read is checked against the digest it is named by.
 */
import { existsSync, statSync } from 'node:fs'
import { join, posix } from 'node:path'
import { applyLayer, Budget, emptyRoot } from './layers.ts'
import type { Config } from './manifest.ts'
import type { Progress } from './progress.ts'
import { readTar } from './tar-reader.ts'
import { BuildError, readExtent, type Extent, type Inode } from './tree.ts'
import { checkDigest, parseDigest, unpack } from './unpack.ts'

export interface SourceImage { readonly root: Inode; readonly config: Config }
export type SourceKind = 'oci' | 'docker-archive' | 'auto'

/** Largest JSON document that is read; registries allow 4 MiB for a manifest. */
const MAX_JSON = 8 << 20

/** Files of a layout or an archive by their name in it. */
interface Store { readonly name: string; get(name: string): Extent | undefined }

function directoryStore(dir: string): Store {
  return {
    name: dir,
    get(name) {
      const path = join(dir, name)
      const st = statSync(path, { throwIfNoEntry: false })
      return st?.isFile() ? { path, off: 0, size: st.size } : undefined
    },
  }
}

/** A tar as a store: members stay where they are; links among them are followed (docker before 25 has some). */
async function tarStore(file: string, temp: string, budget: Budget): Promise<Store> {
  const st = statSync(file)
  const archive = await unpack({ path: file, off: 0, size: st.size }, temp, file, {}, new Budget(budget.maxBytes))
  const members = new Map<string, Extent | string>()
  const clean = (name: string): string => name.split('/').filter((p) => p !== '' && p !== '.').join('/')
  for (const e of readTar(archive, file)) {
    budget.addEntry()
    const name = clean(e.name)
    if (e.kind === 'file') members.set(name, e.data)
    else if (e.kind === 'hardlink') members.set(name, clean(e.link))
    else if (e.kind === 'symlink') members.set(name, clean(posix.join('/', posix.dirname(name), e.link)))
  }
  return {
    name: file,
    get(name) {
      let found = members.get(clean(name))
      for (let hops = 0; typeof found === 'string' && hops < 8; hops++) found = members.get(found)
      return typeof found === 'string' ? undefined : found
    },
  }
}

/** A JSON object of the store. `digest`: what it must hash to. */
function json(store: Store, name: string, what: string, digest?: string): Record<string, unknown> {
  const extent = store.get(name)
  if (!extent) throw new BuildError(`${store.name}: ${what} is missing (${name})`)
  if (extent.size > MAX_JSON) throw new BuildError(`${store.name}: ${what} has ${extent.size} bytes, which is no JSON document of an image`)
  if (digest !== undefined) checkDigest(extent, digest, `${store.name}: ${what}`)
  let value: unknown
  try {
    value = JSON.parse(readExtent(extent).toString('utf8'))
  } catch (e) {
    throw new BuildError(`${store.name}: ${what} is not JSON: ${(e as Error).message}`)
  }
  if (typeof value !== 'object' || value === null) throw new BuildError(`${store.name}: ${what} is no JSON object`)
  return value as Record<string, unknown>
}

const list = (v: unknown, what: string): Record<string, unknown>[] => {
  if (!Array.isArray(v) || v.some((e) => typeof e !== 'object' || e === null)) throw new BuildError(`${what} is no list`)
  return v as Record<string, unknown>[]
}
const strings = (v: unknown, what: string): string[] => {
  if (v === null || v === undefined) return []
  if (!Array.isArray(v) || v.some((e) => typeof e !== 'string' || e.includes('\0'))) throw new BuildError(`the image's ${what} is no list of strings`)
  return v as string[]
}
const string = (v: unknown, what: string): string => {
  if (v === null || v === undefined) return ''
  if (typeof v !== 'string' || v.includes('\0')) throw new BuildError(`the image's ${what} is no string`)
  return v
}

const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** The part of an image configuration that a container starts from (OCI image config, docker's the same). */
export function readConfig(image: Record<string, unknown>): Config {
  const arch = image['architecture'], os = image['os']
  if (arch !== 'amd64' || os !== 'linux') throw new BuildError(`the image is for ${string(os, 'os') || '?'}/${string(arch, 'architecture') || '?'}; only linux/amd64 can be recompiled`)
  const c = (image['config'] ?? {}) as Record<string, unknown>
  const env = strings(c['Env'], 'Env')
  return {
    env: env.some((e) => e.startsWith('PATH=')) ? env : [DEFAULT_PATH, ...env],
    cmd: strings(c['Cmd'], 'Cmd'), entrypoint: strings(c['Entrypoint'], 'Entrypoint'),
    cwd: string(c['WorkingDir'], 'WorkingDir') || '/', user: string(c['User'], 'User') || '0',
  }
}

export const defaultConfig: Config = { env: [DEFAULT_PATH], cwd: '/', user: '0', cmd: [], entrypoint: [] }

interface Blob { readonly extent: Extent; readonly digest?: string; readonly name: string }

async function applyAll(layers: readonly Blob[], config: Record<string, unknown>, temp: string, budget: Budget, progress: Progress): Promise<SourceImage> {
  const started = readConfig(config)
  const diffIds = strings((config['rootfs'] as Record<string, unknown> | undefined)?.['diff_ids'], 'diff_ids')
  if (diffIds.length !== layers.length) throw new BuildError(`the image has ${layers.length} layers and ${diffIds.length} diff_ids; fetch it again`)
  const root = emptyRoot()
  progress.stage('layers', layers.reduce((sum, l) => sum + l.extent.size, 0), 'bytes')
  for (const [n, layer] of layers.entries()) {
    const label = `layer ${n + 1} (${layer.name})`
    const tar = await unpack(layer.extent, temp, label, { diffId: diffIds[n]!, ...(layer.digest ? { digest: layer.digest } : {}) }, budget, (n) => progress.step(n))
    applyLayer(root, tar, label, budget)
  }
  return { root, config: started }
}

const blobName = (digest: unknown, what: string): string => `blobs/${parseDigest(digest, what).join('/')}`

/** The image manifest for linux/amd64 that `ref` names in an index; indexes may nest. */
function pickManifest(store: Store, index: Record<string, unknown>, ref: string | undefined, depth = 0): Record<string, unknown> {
  if (depth > 4) throw new BuildError(`${store.name}: its indexes nest too deeply`)
  const all = list(index['manifests'], `${store.name}: the index's manifests`)
  const name = (d: Record<string, unknown>): string | undefined => (d['annotations'] as Record<string, string> | undefined)?.['org.opencontainers.image.ref.name']
  const names = all.map(name).filter((n) => n !== undefined)
  const fits = all.filter((d) => {
    const p = d['platform'] as { architecture?: string; os?: string } | undefined
    return (ref === undefined || name(d) === ref) && (p?.architecture === undefined || (p.architecture === 'amd64' && p.os === 'linux'))
  })
  const tagged = fits.length > 1 && ref === undefined ? fits.filter((d) => name(d) === 'latest') : fits
  const chosen = tagged.length === 1 ? tagged[0]! : undefined
  if (!chosen) {
    const why = fits.length ? `holds ${fits.length} images` : ref === undefined ? 'holds no image for linux/amd64' : `holds no image ${ref}`
    throw new BuildError(`${store.name} ${why}${names.length ? `; name one: ${names.map((n) => `${store.name}:${n}`).join(', ')}` : ''}`)
  }
  const digest = chosen['digest'] as string
  const blob = json(store, blobName(digest, 'the image manifest'), 'the image manifest', digest)
  return Array.isArray(blob['manifests']) ? pickManifest(store, blob, undefined, depth + 1) : blob
}

async function fromOci(store: Store, ref: string | undefined, temp: string, budget: Budget, progress: Progress): Promise<SourceImage> {
  const manifest = pickManifest(store, json(store, 'index.json', 'the index'), ref)
  if (Object.keys(manifest['annotations'] ?? {}).some((k) => k.startsWith('io.recompiler.'))) throw new BuildError(`${store.name} was built by recompiler: its programs are stubs; build from the original image`)
  const config = (manifest['config'] ?? {}) as Record<string, unknown>
  const document = json(store, blobName(config['digest'], 'the configuration'), 'the configuration', config['digest'] as string)
  const layers = list(manifest['layers'], 'the list of layers').map((d, n): Blob => {
    const name = blobName(d['digest'], `layer ${n + 1}`)
    if (String(d['mediaType']).includes('encrypted')) throw new BuildError(`layer ${n + 1} is encrypted; decrypt the image first`)
    const extent = store.get(name)
    if (!extent) throw new BuildError(`${store.name}: layer ${n + 1} is missing (${name}); fetch the image again`)
    if (extent.size !== d['size']) throw new BuildError(`${store.name}: layer ${n + 1} has ${extent.size} bytes, not ${String(d['size'])}; fetch the image again`)
    return { extent, digest: d['digest'] as string, name: d['digest'] as string }
  })
  return applyAll(layers, document, temp, budget, progress)
}

async function fromDocker(store: Store, ref: string | undefined, temp: string, budget: Budget, progress: Progress): Promise<SourceImage> {
  const images = list(json(store, 'manifest.json', 'manifest.json'), `${store.name}: manifest.json`)
  const tags = (i: Record<string, unknown>): string[] => strings(i['RepoTags'], 'RepoTags')
  const fits = ref === undefined ? images : images.filter((i) => tags(i).some((t) => t === ref || t === `${ref}:latest`))
  if (fits.length !== 1) {
    const names = images.flatMap(tags)
    throw new BuildError(`${store.name} holds ${fits.length ? `${fits.length} images` : `no image ${ref ?? ''}`}${names.length ? `; name one: ${names.map((t) => `${store.name}:${t}`).join(', ')}` : ''}`)
  }
  const name = string(fits[0]!['Config'], 'Config')
  // The file is named by the digest of its bytes.
  const hex = /(?:^|\/)([0-9a-f]{64})(?:\.json)?$/.exec(name)?.[1]
  const config = json(store, name, 'the configuration', hex ? `sha256:${hex}` : undefined)
  const layers = strings(fits[0]!['Layers'], 'Layers').map((layer): Blob => {
    const extent = store.get(layer)
    if (!extent) throw new BuildError(`${store.name}: ${layer} is missing; save the image again`)
    return { extent, name: layer }
  })
  return applyAll(layers, config, temp, budget, progress)
}

/** `PATH` or `PATH:REF`; a path that exists as a whole has no reference. */
export function splitReference(arg: string): { path: string; ref?: string } {
  if (existsSync(arg)) return { path: arg }
  for (let at = arg.indexOf(':'); at > 0; at = arg.indexOf(':', at + 1)) {
    if (existsSync(arg.slice(0, at))) return { path: arg.slice(0, at), ref: arg.slice(at + 1) }
  }
  throw new BuildError(`${arg}: no such file or directory; get an image with \`skopeo copy docker://NAME oci:DIR\` or \`docker save -o FILE NAME\``)
}

/** Reads the image that `arg` names. `temp`: where layers are unpacked; it must outlive the tree. */
export async function readImage(arg: string, kind: SourceKind, temp: string, budget: Budget, progress: Progress): Promise<SourceImage> {
  const { path, ref } = splitReference(arg)
  const dir = statSync(path).isDirectory()
  if (dir && kind === 'docker-archive') throw new BuildError(`${path} is a directory, not a docker archive; an OCI layout is given with --oci`)
  const store = dir ? directoryStore(path) : await tarStore(path, temp, budget)
  const isDocker = store.get('manifest.json') !== undefined, isOci = store.get('index.json') !== undefined && store.get('oci-layout') !== undefined
  // docker writes archives that are both; its own half has the names that people know.
  if (isDocker && !dir && kind !== 'oci') return fromDocker(store, ref, temp, budget, progress)
  if (isOci && kind !== 'docker-archive') return fromOci(store, ref, temp, budget, progress)
  if (dir) throw new BuildError(`${path} is no OCI layout: it has no ${store.get('oci-layout') ? 'index.json' : 'oci-layout'}; a root file system is given with --rootfs`)
  throw new BuildError(`${path} is ${kind === 'oci' ? 'no OCI archive' : kind === 'docker-archive' ? 'no docker archive: it has no manifest.json' : 'neither a docker archive nor an OCI archive'}; make one with \`docker save -o FILE NAME\``)
}
