/**
 * Layers on top of each other, in memory: where an entry lands is decided in the tree of inodes, never
 * on this host, so that names, owners and devices of a hostile image touch nothing. Whiteouts and
 * replacement as in the OCI image specification, "Image Layer Filesystem Changeset".
 */
import { readTar, shown, type TarEntry } from './tar-reader.ts'
import { BuildError, directory, walkTo, type Extent, type Inode } from './tree.ts'

/** How much an image may hold; counted over all its layers. */
export class Budget {
  readonly maxBytes: number
  readonly maxEntries: number
  private bytes = 0
  private entries = 0

  constructor(maxBytes = 64 * 2 ** 30, maxEntries = 2_000_000) {
    this.maxBytes = maxBytes
    this.maxEntries = maxEntries
  }

  addBytes(n: number): void {
    this.bytes += n
    if (this.bytes > this.maxBytes) throw new BuildError(`the image holds more than ${this.maxBytes} bytes unpacked; allow more with --max-size`)
  }

  addEntry(): void {
    if (++this.entries > this.maxEntries) throw new BuildError(`the image holds more than ${this.maxEntries} entries`)
  }
}

/** Names of a member's path. Errors: it is absolute, goes up, or is longer than Linux allows. */
function memberParts(name: string, what: string): string[] {
  const parts = name.split('/').filter((p) => p !== '' && p !== '.')
  if (name.startsWith('/') && parts.length) throw new BuildError(`${what} is an absolute path`)
  if (parts.includes('..')) throw new BuildError(`${what} leaves the root (..)`)
  if (name.includes('\0')) throw new BuildError(`${what} holds a NUL`)
  if (name.length > 4095 || parts.some((p) => p.length > 255)) throw new BuildError(`${what} is longer than Linux allows`)
  return parts
}

const OPAQUE = '.wh..wh..opq'

/** One layer being applied; knows which entries it made itself, which its own whiteouts spare. */
class Layer {
  private readonly root: Inode
  private readonly own = new Map<Inode, Set<string>>()

  constructor(root: Inode) {
    this.root = root
  }

  private isOwn(dir: Inode, name: string): boolean {
    return this.own.get(dir)?.has(name) ?? false
  }

  private readonly touch = (dir: Inode, name: string): void => {
    const names = this.own.get(dir)
    if (names) names.add(name)
    else this.own.set(dir, new Set([name]))
  }

  /** Removes what lower layers put into `dir`. */
  private hideLower(dir: Inode): void {
    for (const [name, child] of dir.children!) {
      if (!this.isOwn(dir, name)) dir.children!.delete(name)
      else if (child.children) this.hideLower(child)
    }
  }

  private whiteout(parents: string[], base: string): void {
    const name = base.slice(4)
    if (base !== OPAQUE && (name === '' || name === '.' || name === '..')) throw new BuildError('it is a whiteout of no name')
    // AUFS keeps notes of its own under such names.
    if (base !== OPAQUE && base.startsWith('.wh..wh.')) return
    const dir = walkTo(this.root, parents, false)
    if (typeof dir === 'string') return
    if (base === OPAQUE) return this.hideLower(dir)
    const child = dir.children!.get(name)
    if (!child) return
    if (!this.isOwn(dir, name)) dir.children!.delete(name)
    else if (child.children) this.hideLower(child)
  }

  private linked(e: TarEntry): Inode {
    const parts = memberParts(e.link, `its hard link target ${shown(e.link)}`)
    const name = parts.pop()
    const dir = name === undefined ? 'the root is a directory' : walkTo(this.root, parts, false)
    const node = typeof dir === 'string' ? dir : dir.children!.get(name!) ?? `there is no ${JSON.stringify(name)}`
    if (typeof node === 'string') throw new BuildError(`its hard link target ${shown(e.link)}: ${node}`)
    if (node.children) throw new BuildError(`its hard link target ${shown(e.link)} is a directory`)
    return node
  }

  private inode(e: TarEntry): Inode {
    if (e.kind === 'hardlink') return this.linked(e)
    const node: Inode = { kind: e.kind, mode: e.mode, uid: e.uid, gid: e.gid, mtime: e.mtime, rdev: e.rdev }
    if (e.kind === 'dir') node.children = new Map()
    if (e.kind === 'file') node.source = e.data
    if (e.kind === 'symlink') {
      if (e.link === '' || e.link.includes('\0') || e.link.length > 4031) throw new BuildError(`its target has ${e.link.length} bytes; a symbolic link has 1 to 4031`)
      node.mode = 0o777
      node.target = Buffer.from(e.link, 'latin1')
    }
    return node
  }

  add(e: TarEntry): void {
    const parts = memberParts(e.name, 'its name')
    const name = parts.pop()
    if (name === undefined) {
      if (e.kind !== 'dir') throw new BuildError('it would replace the root directory')
      Object.assign(this.root, { mode: e.mode, uid: e.uid, gid: e.gid, mtime: e.mtime })
      return
    }
    if (parts[0]?.startsWith('.wh..wh.')) return
    if (parts.some((p) => p.startsWith('.wh.'))) throw new BuildError('it lies within a whiteout')
    if (name.startsWith('.wh.')) return this.whiteout(parts, name)
    const node = this.inode(e)
    const dir = walkTo(this.root, parts, true, this.touch)
    if (typeof dir === 'string') throw new BuildError(dir)
    const old = dir.children!.get(name)
    this.touch(dir, name)
    if (old?.children && node.children) Object.assign(old, { mode: node.mode, uid: node.uid, gid: node.gid, mtime: node.mtime })
    else dir.children!.set(name, node)
  }
}

/** Applies one uncompressed layer to `root`. Errors name the layer and the entry. */
export function applyLayer(root: Inode, layer: Extent, label: string, budget: Budget): void {
  const applied = new Layer(root)
  for (const e of readTar(layer, label)) {
    try {
      budget.addEntry()
      applied.add(e)
    } catch (err) {
      if (!(err instanceof BuildError)) throw err
      throw new BuildError(`${label}: entry ${shown(e.name)}: ${err.message}`)
    }
  }
}

export const emptyRoot = (): Inode => directory()
