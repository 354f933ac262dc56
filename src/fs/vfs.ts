/**
 * One container's tree: the image below, what the container wrote above it, devices and procfs
 * mounted in. Every operation is synchronous, and returns −errno or a value.
 */
import { closeSync, mkdirSync, openSync, rmSync, statSync, unlinkSync, writeSync, type BigIntStats } from 'node:fs'
import { join } from 'node:path'
import * as E from '../abi/errno.ts'
import { O_CREAT, O_EXCL, O_RDWR, S_IFDIR, S_IFMT, S_IFREG } from '../abi/fcntl.ts'
import { addon } from '../native/addon.ts'
import type { ImageFs } from './imagefs.ts'
import { isDir, now, type Dentry, type Inode } from './inode.ts'

export class Vfs {
  readonly root: Dentry
  private readonly byId = new Map<number, Dentry>()
  private nextId = 1
  /** Inode numbers above the image's nids. */
  private nextIno = 0x4000_0000
  private readonly images = new Map<number, Inode>()

  /** `upper`: an empty directory of the host for file contents. */
  readonly image: ImageFs
  readonly upper: string

  constructor(image: ImageFs, upper: string) {
    this.image = image
    this.upper = upper
    mkdirSync(upper, { recursive: true, mode: 0o700 })
    const inode = this.fromImage(image.root)
    this.root = { id: this.nextId++, name: '', inode, deleted: false } as Dentry
    this.root.parent = this.root
    this.byId.set(this.root.id, this.root)
  }

  /** Releases the host's files. */
  destroy(): void {
    rmSync(this.upper, { recursive: true, force: true })
  }

  dentry(id: number): Dentry | undefined {
    return this.byId.get(id)
  }

  private fromImage(nid: number): Inode {
    const known = this.images.get(nid)
    if (known) return known
    const inode = this.image.toInode(nid)
    // Hard links of the image are one inode; directories are loaded when looked at.
    this.images.set(nid, inode)
    if (inode.children) {
      inode.load = () => {
        delete inode.load
        for (const [name, child] of this.image.entries(this.image.inode(nid))) {
          if (!inode.children!.has(name)) this.attach(inode, name, this.fromImage(child), this.dentryOfDir.get(inode))
        }
      }
    }
    return inode
  }

  private readonly dentryOfDir = new Map<Inode, Dentry>()

  /** Names `inode` in a directory without touching times. */
  attach(dir: Inode, name: string, inode: Inode, parent?: Dentry): Dentry {
    const d: Dentry = { id: this.nextId++, name, parent: parent ?? this.root, inode, deleted: false }
    this.byId.set(d.id, d)
    if (isDir(inode)) this.dentryOfDir.set(inode, d)
    dir.children!.set(name, d)
    return d
  }

  /** Entries of a directory, loaded. */
  children(d: Dentry): Map<string, Dentry> {
    this.dentryOfDir.set(d.inode, d)
    d.inode.load?.()
    return d.inode.children!
  }

  child(d: Dentry, name: string): Dentry | undefined {
    const special = d.inode.special
    if (special?.kind === 'dynamic') {
      const known = d.inode.children!.get(name)
      const inode = special.find(name)
      if (!inode) return undefined
      if (known) {
        known.inode = inode
        return known
      }
      return this.attach(d.inode, name, inode, d)
    }
    return this.children(d).get(name)
  }

  newInode(mode: number, uid: number, gid: number, fs: Inode['fs'] = 'overlay'): Inode {
    const t = now()
    const inode: Inode = { ino: this.nextIno++, mode, uid, gid, nlink: 1, rdev: 0, atime: t, mtime: t, ctime: t, fs }
    if ((mode & S_IFMT) === S_IFDIR) {
      inode.children = new Map()
      inode.nlink = 2
    }
    return inode
  }

  upperPath(inode: Inode): string {
    return join(this.upper, String(inode.ino))
  }

  /** A new empty regular file's contents on the host. */
  createContents(inode: Inode): E.Errno {
    const path = this.upperPath(inode)
    try {
      closeSync(openSync(path, O_CREAT | O_EXCL | O_RDWR, 0o600))
    } catch (e) {
      return E.errnoOf(e)
    }
    inode.backing = { kind: 'upper', path }
    return 0
  }

  /** Moves a regular file's bytes from the image to the upper directory, before its first change. */
  copyUp(inode: Inode, truncate: boolean): E.Errno {
    const from = inode.backing
    if (from?.kind !== 'image') return 0
    const r = this.createContents(inode)
    if (r < 0) return r
    const to = inode.backing!
    if (to.kind !== 'upper' || truncate) return 0
    try {
      const fd = openSync(to.path, 'r+')
      try {
        const source = this.image.inode(from.nid)
        for (let at = 0; at < from.size; at += 1 << 20) {
          const chunk = this.image.read(source, at, 1 << 20)
          let done = 0
          while (done < chunk.length) done += writeSync(fd, chunk, done, chunk.length - done, at + done)
        }
      } finally {
        closeSync(fd)
      }
      this.setHostTimes(inode)
    } catch (e) {
      unlinkSync(to.path)
      inode.backing = from
      return E.errnoOf(e)
    }
    return 0
  }

  /** Writes an inode's times to its host file. */
  private setHostTimes(inode: Inode): void {
    const b = inode.backing
    if (b && b.kind !== 'image') addon.setTimes(Buffer.from(b.path), [inode.atime.sec, inode.atime.nsec, inode.mtime.sec, inode.mtime.nsec])
  }

  /** The host's view of a file's contents; undefined for what has none. */
  hostStat(inode: Inode): BigIntStats | undefined {
    const b = inode.backing
    if (!b || b.kind === 'image') return undefined
    try {
      return statSync(b.path, { bigint: true })
    } catch {
      return undefined
    }
  }

  size(inode: Inode): number {
    const b = inode.backing
    if (b?.kind === 'image') return b.size
    if (b) return Number(this.hostStat(inode)?.size ?? 0n)
    if (inode.target !== undefined) return inode.target.length
    if (isDir(inode)) return inode.fs === 'overlay' ? 4096 : 0
    return 0
  }

  touch(d: Dentry): void {
    const t = now()
    d.inode.mtime = t
    d.inode.ctime = t
  }

  /** Adds a name and counts the link. */
  link(dir: Dentry, name: string, inode: Inode): Dentry {
    const d = this.attach(dir.inode, name, inode, dir)
    if (isDir(inode)) dir.inode.nlink++
    this.touch(dir)
    return d
  }

  /** Removes a name; the last one releases the contents (open descriptors keep them on the host). */
  unlink(d: Dentry): void {
    d.parent.inode.children!.delete(d.name)
    d.deleted = true
    this.touch(d.parent)
    d.inode.ctime = now()
    if (isDir(d.inode)) {
      d.parent.inode.nlink--
      d.inode.nlink = 0
    } else {
      d.inode.nlink--
      const b = d.inode.backing
      if (d.inode.nlink <= 0 && b?.kind === 'upper') {
        try { unlinkSync(b.path) } catch { /* already gone */ }
      }
    }
  }

  /** Moves a name; what is at the target has been checked and removed. */
  rename(d: Dentry, dir: Dentry, name: string): void {
    const from = d.parent
    from.inode.children!.delete(d.name)
    if (isDir(d.inode) && from !== dir) {
      from.inode.nlink--
      dir.inode.nlink++
    }
    d.name = name
    d.parent = dir
    dir.inode.children!.set(name, d)
    this.touch(from)
    this.touch(dir)
    d.inode.ctime = now()
  }

  isEmpty(d: Dentry): boolean {
    return this.children(d).size === 0
  }

  isRegular(inode: Inode): boolean {
    return (inode.mode & S_IFMT) === S_IFREG
  }
}
