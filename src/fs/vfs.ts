/**
 * One container's tree: the image below, what the container wrote above it, devices, procfs and the
 * host's directories mounted in. Every operation is synchronous, and returns −errno or a value.
 */
import { mkdirSync, rmdirSync, rmSync, statSync, unlinkSync, type BigIntStats } from 'node:fs'
import { join } from 'node:path'
import * as E from '../abi/errno.ts'
import { RENAME_EXCHANGE, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from '../abi/fcntl.ts'
import { addon } from '../native/addon.ts'
import { HostFs } from './hostfs.ts'
import { Inotify, type Follow } from './inotify.ts'
import type { ImageFs } from './imagefs.ts'
import { isDir, now, type Dentry, type FileSystem, type Inode } from './inode.ts'
import { Overridden } from './overridden.ts'
import { ROOT, walk } from './path.ts'
import { copyUp, createContents } from './upper.ts'

/** So many removed names are remembered, for descriptors that are still open on them. */
const GONE = 65_536
/** Entries of one generated directory that are remembered. */
const DYNAMIC = 4096

export class Vfs {
  readonly root: Dentry
  readonly overlay: FileSystem
  readonly overridden: Overridden
  readonly inotify: Inotify
  /** In the order of mounting. */
  readonly mounts: { readonly at: Dentry; readonly fs: FileSystem }[] = []
  private readonly byId = new Map<number, Dentry>()
  private readonly gone: number[] = []
  private nextId = 1
  /** Inode numbers above the image's nids. */
  private nextIno = 0x4000_0000
  private nextDev = 0x2a
  private readonly images = new Map<number, Inode>()
  private readonly dentryOfDir = new Map<Inode, Dentry>()

  /** `upper`: an empty directory of the host for file contents. */
  readonly image: ImageFs
  readonly upper: string

  constructor(image: ImageFs, upper: string, follow: Follow) {
    this.image = image
    this.upper = upper
    mkdirSync(upper, { recursive: true, mode: 0o700 })
    this.overlay = this.fileSystem('overlay', 'overlay', 'rw,relatime')
    this.overridden = new Overridden(image, this.overlay)
    this.inotify = new Inotify(upper, follow)
    const inode = this.fromImage(image.root)
    this.root = { id: this.nextId++, name: '', inode, deleted: false } as Dentry
    this.root.parent = this.root
    this.byId.set(this.root.id, this.root)
    this.mounts.push({ at: this.root, fs: this.overlay })
  }

  /** Releases the host's files. */
  destroy(): void {
    for (const m of this.mounts) m.fs.host?.close()
    this.overridden.destroy()
    this.inotify.destroy()
    try { rmdirSync(this.upper) } catch { rmSync(this.upper, { recursive: true, force: true }) }
  }

  fileSystem(type: FileSystem['type'], source: string, options: string, more: { noexec?: boolean; readonly?: boolean; host?: HostFs } = {}): FileSystem {
    return { type, dev: this.nextDev++, source, options, noexec: more.noexec ?? false, readonly: more.readonly ?? false, ...(more.host ? { host: more.host } : {}) }
  }

  dentry(id: number): Dentry | undefined {
    return this.byId.get(id)
  }

  private fromImage(nid: number): Inode {
    const known = this.images.get(nid)
    if (known) return known
    const inode = this.image.toInode(nid, this.overlay)
    // Hard links of the image are one inode; directories are loaded when looked at.
    this.images.set(nid, inode)
    if (inode.children) {
      inode.load = () => {
        delete inode.load
        for (const [name, child] of this.image.entries(nid)) if (!inode.children!.has(name)) this.found(inode, name, child)
      }
    }
    return inode
  }

  /** Names `nid` in a directory of the image as the image has it. */
  private found(dir: Inode, name: string, nid: number): Dentry {
    const d = this.attach(dir, name, this.fromImage(nid), this.dentryOfDir.get(dir))
    this.overridden.loaded(d, dir.ino)
    return d
  }

  /** Names `inode` in a directory without touching times. */
  attach(dir: Inode, name: string, inode: Inode, parent?: Dentry): Dentry {
    const d = this.anonymous(inode, name, parent ?? this.root)
    dir.children!.set(name, d)
    return d
  }

  /** A node id for something that no path leads to. */
  anonymous(inode: Inode, name: string, parent: Dentry): Dentry {
    const d: Dentry = { id: this.nextId++, name, parent, inode, deleted: false }
    this.byId.set(d.id, d)
    if (isDir(inode)) this.dentryOfDir.set(inode, d)
    return d
  }

  /** The dentry of a directory of the image by nid, or of a name in it as the image has it, wherever it is now. */
  ofImage(nid: number, name: string | undefined): Dentry | undefined {
    const children = (d: Dentry): Map<string, Dentry> => this.children(d)
    const dir = this.overridden.directory(nid, this.root, children)
    const d = dir && name !== undefined ? this.overridden.named(dir, name, children) : dir
    if (d) this.byId.set(d.id, d)
    return d
  }

  /** A name that is gone; its node id stays for a while. */
  forget(d: Dentry): void {
    d.deleted = true
    this.dentryOfDir.delete(d.inode)
    this.gone.push(d.id)
    if (this.gone.length > GONE) for (const id of this.gone.splice(0, GONE / 2)) this.byId.delete(id)
  }

  /** Entries of a directory, loaded. Not for host mounts and generated directories. */
  children(d: Dentry): Map<string, Dentry> {
    if (d.inode.load) {
      this.dentryOfDir.set(d.inode, d)
      d.inode.load()
    }
    return d.inode.children!
  }

  child(d: Dentry, name: string): Dentry | undefined {
    const { special, fs } = d.inode
    if (special?.kind === 'dynamic') return this.generated(d, name, special.find(name))
    if (fs.host) {
      const known = d.inode.children!.get(name)
      return known?.mounted ? known : this.generated(d, name, fs.host.lookup(d, name, known?.inode))
    }
    const { inode } = d
    const known = inode.children!.get(name)
    if (known || !inode.load) return known
    this.dentryOfDir.set(inode, d)
    const nid = this.image.entries(inode.ino).get(name)
    return nid === undefined ? undefined : this.found(inode, name, nid)
  }

  /** The dentry of a name whose inode was made, or looked up, just now. */
  private generated(d: Dentry, name: string, inode: Inode | undefined): Dentry | undefined {
    const names = d.inode.children!
    const known = names.get(name)
    if (known && inode && (!inode.fs.host || known.inode === inode)) {
      known.inode = inode
      return known
    }
    if (known) {
      names.delete(name)
      this.forget(known)
    }
    if (!inode) return undefined
    if (names.size > DYNAMIC) {
      for (const [old, dentry] of names) {
        if (dentry.mounted) continue
        names.delete(old)
        this.forget(dentry)
      }
    }
    const made = this.attach(d.inode, name, inode, d)
    if (inode.fs.host) inode.at = made
    return made
  }

  /** Names and inodes of a directory. */
  * list(d: Dentry): Generator<[string, Inode]> {
    const { special, fs } = d.inode
    if (special?.kind === 'dynamic') {
      yield* special.list()
    } else if (fs.host) {
      for (const name of fs.host.names(d)) {
        const c = this.child(d, name)
        if (c) yield [name, c.inode]
      }
    } else {
      for (const [name, c] of this.children(d)) yield [name, c.inode]
    }
  }

  newInode(mode: number, uid: number, gid: number, fs: FileSystem = this.overlay): Inode {
    const t = now()
    const inode: Inode = { ino: this.nextIno++, mode, uid, gid, nlink: 1, rdev: 0, atime: t, mtime: t, ctime: t, fs }
    if ((mode & S_IFMT) === S_IFDIR) {
      inode.children = new Map()
      inode.nlink = 2
    }
    return inode
  }

  /** The directory at `path`, made with everything above it when missing. Errors: ENOTDIR, and those of the walk. */
  makePath(path: string, file = false): Dentry | E.Errno {
    const parts = path.split('/').filter(Boolean)
    let at = this.root
    for (let n = 1; n <= parts.length; n++) {
      const f = walk(this, this.root, '/' + parts.slice(0, n).join('/'), true, ROOT)
      if (typeof f === 'number') return f
      const mode = file && n === parts.length ? S_IFREG | 0o644 : S_IFDIR | 0o755
      const next = f.node ?? this.make(f.dir, f.name, mode, 0, 0)
      if (typeof next === 'number') return next
      if (n < parts.length && !isDir(next.inode)) return -E.ENOTDIR
      at = next
    }
    return at
  }

  /** Mounts an empty file system's directory at `path`. */
  mountAt(path: string, fs: FileSystem, mode: number): Dentry {
    const on = this.makePath(path)
    if (typeof on === 'number') throw new Error(`nothing can be mounted at ${path}`)
    return this.mounted(on, this.newInode(S_IFDIR | mode, 0, 0, fs))
  }

  private mounted(on: Dentry, inode: Inode): Dentry {
    this.overridden.removed(on)
    const at = this.attach(on.parent.inode, on.name, inode, on.parent)
    at.mounted = true
    this.mounts.push({ at, fs: inode.fs })
    return at
  }

  /** Mounts a directory or file of the host. Errors: −errno of the guest's path; throws that of the host's. */
  mountHost(host: string, guest: string, readonly: boolean): E.Errno {
    const source = new HostFs(host)
    const fs = this.fileSystem('host', 'host', readonly ? 'ro,relatime' : 'rw,relatime', { readonly, host: source })
    const inode = source.mounted(fs)
    const on = this.makePath(guest, !isDir(inode))
    const wrong = typeof on === 'number' ? on : on === this.root || isDir(on.inode) !== isDir(inode) ? -E.ENOTDIR : 0
    if (wrong || typeof on === 'number') {
      source.close()
      return wrong
    }
    const at = this.mounted(on, inode)
    inode.at = at
    source.root = at
    return 0
  }

  upperPath(inode: Inode): string {
    return join(this.upper, String(inode.ino))
  }

  /** Moves a regular file's bytes from the image to the upper directory, before its first change. */
  copyUp(inode: Inode, truncate: boolean): E.Errno {
    this.overridden.changed(inode)
    return copyUp(this, inode, truncate)
  }

  /** The host's view of a file's contents; undefined for what has none. */
  hostStat(inode: Inode): BigIntStats | undefined {
    if (inode.fs.host) return inode.at && inode.fs.host.stat(inode.at)
    if (inode.backing?.kind !== 'upper') return undefined
    try {
      return statSync(inode.backing.path, { bigint: true })
    } catch {
      return undefined
    }
  }

  size(inode: Inode): number {
    const b = inode.backing
    if (b?.kind === 'image') return b.size
    if (b || inode.fs.host) return Number(this.hostStat(inode)?.size ?? 0n)
    if (inode.target !== undefined) return inode.target.length
    if (isDir(inode)) return inode.fs.type === 'overlay' ? 4096 : 0
    return 0
  }

  private touch(d: Dentry): void {
    d.inode.mtime = d.inode.ctime = now()
  }

  /** Makes a name for a new file, directory, FIFO, socket or symbolic link. */
  make(dir: Dentry, name: string, mode: number, uid: number, gid: number, target = ''): Dentry | E.Errno {
    const { host } = dir.inode.fs
    if (host) {
      const r = host.make(dir, name, mode, uid, gid, target)
      return r < 0 ? r : this.child(dir, name) ?? -E.ENOENT
    }
    const inode = this.newInode(mode, uid, gid, dir.inode.fs)
    const type = mode & S_IFMT
    if (type === S_IFREG) {
      const r = createContents(this, inode)
      if (r < 0) return r
    } else if (type === S_IFIFO) {
      const path = this.upperPath(inode)
      const r = addon.makeFifo(Buffer.from(path), 0o600)
      if (r < 0) return r
      inode.special = { kind: 'fifo', host: path }
    } else if (type === S_IFLNK) {
      inode.target = target
    }
    const d = this.attach(dir.inode, name, inode, dir)
    if (isDir(inode)) dir.inode.nlink++
    this.touch(dir)
    this.overridden.added(dir)
    this.inotify.created(d)
    return d
  }

  /** Adds a name to an inode. */
  link(d: Dentry, dir: Dentry, name: string): E.Errno {
    const { host } = dir.inode.fs
    if (host) return host.link(d, dir, name)
    d.inode.nlink++
    d.inode.ctime = now()
    const made = this.attach(dir.inode, name, d.inode, dir)
    this.touch(dir)
    this.overridden.changed(d.inode)
    this.overridden.added(dir)
    this.inotify.linked(made)
    return 0
  }

  /** Removes a name; the last one releases the contents (open descriptors keep them on the host). `replaced`: another takes its place. */
  unlink(d: Dentry, replaced = false): E.Errno {
    const { host } = d.inode.fs
    const contents = d.inode.backing?.kind === 'upper' ? d.inode.backing.path : d.inode.special?.kind === 'fifo' ? d.inode.special.host : undefined
    this.inotify.removing(d, contents, replaced)
    const r = host ? host.unlink(d) : 0
    if (r < 0) return r
    this.overridden.removed(d)
    this.children(d.parent).delete(d.name)
    this.forget(d)
    if (host) {
      d.inode.nlink--
      return 0
    }
    this.touch(d.parent)
    d.inode.ctime = now()
    if (isDir(d.inode)) {
      d.parent.inode.nlink--
      d.inode.nlink = 0
    } else if (--d.inode.nlink <= 0) {
      if (contents) try { unlinkSync(contents) } catch { /* already gone */ }
    }
    return 0
  }

  /** Moves a name. What is at the target was checked, and (but for a host mount, whose kernel does it) removed. */
  rename(d: Dentry, dir: Dentry, name: string, flags: number): E.Errno {
    const { host } = d.inode.fs
    const from = d.parent, old = d.name
    if (host) {
      const r = host.rename(d, dir, name, flags)
      if (r < 0) return r
    }
    this.overridden.removed(d)
    this.overridden.added(dir)
    this.children(from).delete(d.name)
    if (isDir(d.inode) && from !== dir && !host) {
      from.inode.nlink--
      dir.inode.nlink++
    }
    d.name = name
    d.parent = dir
    dir.inode.children!.set(name, d)
    if (host) return 0
    this.touch(from)
    this.touch(dir)
    d.inode.ctime = now()
    this.inotify.moved(d, from, old)
    return 0
  }

  /** Swaps two names. */
  exchange(a: Dentry, b: Dentry): E.Errno {
    const { host } = a.inode.fs
    if (host) {
      const r = host.rename(a, b.parent, b.name, RENAME_EXCHANGE)
      // Both names are looked up again when they are next used.
      if (r === 0) for (const d of [a, b]) { d.parent.inode.children!.delete(d.name); this.forget(d) }
      return r
    }
    const to = { dir: b.parent, name: b.name }
    this.rename(b, a.parent, a.name, 0)
    const moved = b.parent.inode.children!
    this.rename(a, to.dir, to.name, 0)
    moved.set(b.name, b)
    return 0
  }

  isEmpty(d: Dentry): boolean {
    return d.inode.fs.host ? d.inode.fs.host.names(d).length === 0 : this.children(d).size === 0
  }

  isRegular(inode: Inode): boolean {
    return (inode.mode & S_IFMT) === S_IFREG
  }
}
