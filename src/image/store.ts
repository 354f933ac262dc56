/**
 * Images by name. The store is a directory of OCI layouts, or of links to layouts elsewhere:
 *
 *   root          /var/lib/vkernel/images/NAME
 *   anyone else   ${XDG_DATA_HOME:-~/.local/share}/vkernel/images/NAME
 *   $VKERNEL_IMAGES/NAME when that is set
 *
 * A `/` of a name is a `+` of the file's; the tag `latest` is left out. The client resolves names by
 * the same rule (native/client/src/store.rs).
 */
import { existsSync, lstatSync, mkdirSync, readdirSync, readlinkSync, realpathSync, renameSync, rmSync, statSync, symlinkSync, unlinkSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { openLayout } from './oci.ts'
import { BuildError } from './tree.ts'

export function storeDirectory(): string {
  if (process.env['VKERNEL_IMAGES']) return process.env['VKERNEL_IMAGES']
  if (process.getuid!() === 0) return '/var/lib/vkernel/images'
  return join(process.env['XDG_DATA_HOME'] || join(homedir(), '.local/share'), 'vkernel', 'images')
}

/** docker's reference grammar without digests: a/b.c:tag. */
const NAME = /^[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?::[0-9]+)?(?:\/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$/

/** Where the image `name` is, or would be. Errors: it is no name. */
export function storePath(name: string, store = storeDirectory()): string {
  if (name.length > 200 || !NAME.test(name)) throw new BuildError(`${JSON.stringify(name)} is no image name; names are like debian, app:v2 or example.org/team/app:v2`)
  return join(store, name.replace(/:latest$/, '').replaceAll('/', '+'))
}

/** The layout that `nameOrDir` means: a directory that exists, otherwise a name in the store. */
export function resolveImage(nameOrDir: string, store = storeDirectory()): string {
  if (statSync(nameOrDir, { throwIfNoEntry: false })?.isDirectory()) return resolve(nameOrDir)
  const path = NAME.test(nameOrDir) ? storePath(nameOrDir, store) : undefined
  if (path && existsSync(path)) return realpathSync(path)
  throw new BuildError(`there is no image ${nameOrDir}: no such directory, and no such name in ${store}; \`recompiler images\` lists the names, \`recompiler build -t NAME …\` makes one`)
}

export interface StoredImage {
  readonly name: string
  /** Where the layout is; the store's own, or the target of the name's link. */
  readonly dir: string
  readonly linked: boolean
  /** SHA-256 of the signed manifest; undefined: what the name stands for is gone or damaged. */
  readonly digest?: string
  /** Bytes of all blobs. */
  readonly size: number
}

function layoutSize(dir: string): number {
  const blobs = join(dir, 'blobs/sha256')
  return existsSync(blobs) ? readdirSync(blobs).reduce((sum, f) => sum + (statSync(join(blobs, f), { throwIfNoEntry: false })?.size ?? 0), 0) : 0
}

/** Every name, sorted. */
export function listImages(store = storeDirectory()): StoredImage[] {
  if (!existsSync(store)) return []
  return readdirSync(store).filter((f) => !f.startsWith('.')).sort().map((f) => {
    const path = join(store, f)
    const linked = lstatSync(path).isSymbolicLink()
    const there = existsSync(path)
    let digest: string | undefined
    try {
      digest = openLayout(path).manifest.digest
    } catch { /* shown without one */ }
    return { name: f.replaceAll('+', '/'), dir: there ? realpathSync(path) : path, linked, size: layoutSize(path), ...(digest ? { digest } : {}) }
  })
}

/** Where the store's own image `name` is to be built. Errors: the name stands for a layout elsewhere. */
export function ownPath(name: string, store = storeDirectory()): string {
  const path = storePath(name, store)
  if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink()) throw new BuildError(`${name} stands for ${readlinkSync(path)}; \`recompiler rmi ${name}\` frees the name`)
  return path
}

/** Errors: the name cannot be made to stand for a layout elsewhere, because the store holds it. */
export function checkName(name: string, store = storeDirectory()): void {
  const there = lstatSync(storePath(name, store), { throwIfNoEntry: false })
  if (there && !there.isSymbolicLink()) throw new BuildError(`${name} is an image of the store already; \`recompiler rmi ${name}\` removes it`)
}

/** The named image whose signed manifest has this SHA-256 (hex), if any: what a stub asks for. */
export function findImage(digest: string, store = storeDirectory()): string | undefined {
  return listImages(store).find((i) => i.digest === digest)?.dir
}

/** Makes `name` stand for the layout in `dir`. */
export function nameImage(name: string, dir: string, store = storeDirectory()): void {
  checkName(name, store)
  const path = storePath(name, store)
  mkdirSync(store, { recursive: true })
  const fresh = join(store, `.${process.pid}.link`)
  symlinkSync(realpathSync(dir), fresh)
  renameSync(fresh, path)
}

/** Removes the name, and the image itself when the store holds it. Containers that run it go on. */
export function removeImage(name: string, store = storeDirectory()): void {
  const path = storePath(name, store)
  const there = lstatSync(path, { throwIfNoEntry: false })
  if (!there) throw new BuildError(`there is no image ${name}; \`recompiler images\` lists what there is`)
  if (there.isSymbolicLink()) unlinkSync(path)
  else rmSync(path, { recursive: true })
}
