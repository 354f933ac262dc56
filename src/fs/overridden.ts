/**
 * Which inodes of the image a container overrides, published to its processes: a page set that they
 * map read-only, so that the loader answers for everything else itself (docs/adr/0010).
 *
 *   @0   generation u32: changes with every bit that is set
 *   @4   st_dev of the overlay u32, count of the bytes that follow u32
 *   @64  one byte an inode, by nid: OVERRIDDEN_* bits
 *
 * Bits are only ever set, and before the call that made the change is answered. What a name of the
 * image leads to is found by `directory` and `named`, wherever it is now: the loader asks when it needs
 * a node id.
 */
import { closeSync } from 'node:fs'
import { OVERRIDDEN_BYTES, OVERRIDDEN_CHANGED, OVERRIDDEN_COVERED, OVERRIDDEN_COUNT, OVERRIDDEN_DEV, OVERRIDDEN_LISTING, OVERRIDDEN_NAMES } from '../abi/ring.ts'
import { addon } from '../native/addon.ts'
import { mapShared, releaseShared } from '../native/shared.ts'
import type { ImageFs } from './imagefs.ts'
import { isDir, type Dentry, type FileSystem, type Inode } from './inode.ts'

/** Deeper than any path of PATH_MAX bytes. */
const MAX_DEPTH = 2048

export class Overridden {
  /** Descriptor for the processes; it can be mapped for reading only. */
  readonly fd: number
  private readonly pages: Buffer
  private readonly generation: Int32Array
  private readonly image: ImageFs
  private readonly overlay: FileSystem
  /** Dentries of the image's directories, by nid; one each, wherever it is moved. */
  private readonly directories = new Map<number, Dentry>()
  /** Names of the image that were taken away, by the nid of their directory. */
  private readonly taken = new Map<number, Map<string, Dentry>>()

  constructor(image: ImageFs, overlay: FileSystem) {
    this.image = image
    this.overlay = overlay
    const size = Math.ceil((OVERRIDDEN_BYTES + image.nids) / 4096) * 4096
    this.fd = addon.createPages(size)
    if (this.fd < 0) throw new Error(`no memory for what a container overrides (errno ${-this.fd})`)
    this.pages = mapShared(this.fd, size)
    this.generation = new Int32Array(this.pages.buffer, this.pages.byteOffset, 1)
    const sealed = addon.sealReadOnly(this.fd)
    if (sealed < 0) throw new Error(`what a container overrides cannot be made read-only (errno ${-sealed})`)
    this.pages.writeUInt32LE(overlay.dev, OVERRIDDEN_DEV)
    this.pages.writeUInt32LE(image.nids, OVERRIDDEN_COUNT)
  }

  destroy(): void {
    releaseShared(this.pages)
    closeSync(this.fd)
  }

  /** The nid of an inode that came from the image; 0: it did not. */
  nid(i: Inode): number {
    return i.fs === this.overlay && i.ino < this.image.nids ? i.ino : 0
  }

  private mark(i: Inode, bits: number): void {
    const nid = this.nid(i)
    if (nid === 0) return
    const at = OVERRIDDEN_BYTES + nid
    if ((this.pages[at]! & bits) === bits) return
    this.pages[at]! |= bits
    Atomics.add(this.generation, 0, 1)
  }

  /** Contents, times or link count are no longer the image's. */
  changed(i: Inode): void {
    this.mark(i, OVERRIDDEN_CHANGED)
  }

  /** Owner or mode are no longer the image's: a walk through it is the daemon's. */
  covered(i: Inode): void {
    this.mark(i, OVERRIDDEN_COVERED)
  }

  /** `dir` has a name that the image does not have there. */
  added(dir: Dentry): void {
    this.mark(dir.inode, OVERRIDDEN_NAMES | OVERRIDDEN_LISTING | OVERRIDDEN_CHANGED)
  }

  /** The name `d` no longer leads where it led in the image: removed, moved, or mounted over. */
  removed(d: Dentry): void {
    if (d.imageDir !== undefined) {
      const names = this.taken.get(d.imageDir)
      if (names) names.set(d.name, d)
      else this.taken.set(d.imageDir, new Map([[d.name, d]]))
      d.imageDir = undefined
    }
    this.mark(d.inode, OVERRIDDEN_COVERED)
    this.mark(d.parent.inode, OVERRIDDEN_LISTING | OVERRIDDEN_CHANGED)
  }

  /** A name as the image has it was looked at first. */
  loaded(d: Dentry, dir: number): void {
    d.imageDir = dir
    if (isDir(d.inode)) this.directories.set(d.inode.ino, d)
  }

  /** The dentry of the image's directory `nid`. Errors: undefined, when it is none. */
  directory(nid: number, root: Dentry, children: (d: Dentry) => Map<string, Dentry>, depth = 0): Dentry | undefined {
    if (nid === this.image.root) return root
    const known = this.directories.get(nid)
    if (known) return known
    const parent = this.image.parent(nid)
    if (parent === undefined || depth > MAX_DEPTH) return undefined
    const above = this.directory(parent, root, children, depth + 1)
    if (above) children(above)
    return this.directories.get(nid)
  }

  /** The dentry that the image has as `name` in its directory `dir`. */
  named(dir: Dentry, name: string, children: (d: Dentry) => Map<string, Dentry>): Dentry | undefined {
    const nid = dir.inode.ino
    const taken = this.taken.get(nid)?.get(name)
    if (taken) return taken
    const there = children(dir).get(name)
    return there?.imageDir === nid ? there : undefined
  }
}
