/** Reads image.erofs (written by src/image/erofs.ts): inodes and directories, on demand. */
import { fstatSync, readSync } from 'node:fs'
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_IFCHR, S_IFBLK } from '../abi/fcntl.ts'
import type { FileSystem, Inode } from './inode.ts'

const BLOCK = 4096

export interface ImageInode {
  readonly nid: number
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly nlink: number
  readonly size: number
  readonly mtime: number
  readonly rdev: number
  readonly block: number
}

export class ImageFs {
  private readonly meta: number
  readonly root: number
  /** Every inode's nid is below this. */
  readonly nids: number
  private readonly size: number
  /** What has been read: the image does not change, and its containers look at the same. */
  private readonly inodes = new Map<number, ImageInode>()
  private readonly names = new Map<number, ReadonlyMap<string, number>>()

  /** `fd`: image.erofs, verified. */
  private readonly fd: number

  constructor(fd: number) {
    this.fd = fd
    const sb = this.bytes(1024, 128)
    if (sb.readUInt32LE(0) !== 0xe0f5e1e2) throw new Error('image.erofs has no superblock')
    this.root = sb.readUInt16LE(14)
    this.meta = sb.readUInt32LE(40)
    this.size = fstatSync(fd).size
    // The root directory's data come right after the inodes (src/image/erofs.ts).
    this.nids = (this.inode(this.root).block - this.meta) * (BLOCK / 32)
  }

  private bytes(at: number, len: number): Buffer {
    const b = Buffer.alloc(len)
    const n = readSync(this.fd, b, 0, len, at)
    return b.subarray(0, n)
  }

  inode(nid: number): ImageInode {
    let known = this.inodes.get(nid)
    if (!known) this.inodes.set(nid, known = this.readInode(nid))
    return known
  }

  private readInode(nid: number): ImageInode {
    const b = this.bytes(this.meta * BLOCK + nid * 32, 64)
    const mode = b.readUInt16LE(4)
    const device = [S_IFCHR, S_IFBLK].includes(mode & S_IFMT)
    return {
      nid, mode, uid: b.readUInt32LE(24), gid: b.readUInt32LE(28), nlink: b.readUInt32LE(44),
      size: Number(b.readBigUInt64LE(8)), mtime: Number(b.readBigUInt64LE(32)),
      rdev: device ? b.readUInt32LE(16) : 0, block: b.readUInt32LE(16),
    }
  }

  /** The directory that directory `nid` is in. Errors: undefined, when a nid of unknown origin names no directory. */
  parent(nid: number): number | undefined {
    if (!Number.isInteger(nid) || nid <= 0 || nid >= this.nids) return undefined
    const i = this.readInode(nid)
    if ((i.mode & S_IFMT) !== S_IFDIR || i.block * BLOCK + i.size > this.size) return undefined
    for (const [name, to] of this.dirents(i)) if (name === '..') return to
    return undefined
  }

  /** Reads part of a regular file. */
  read(inode: ImageInode, off: number, len: number): Buffer {
    return this.bytes(inode.block * BLOCK + off, Math.max(0, Math.min(len, inode.size - off)))
  }

  target(inode: ImageInode): string {
    return this.bytes(this.meta * BLOCK + inode.nid * 32 + 64, inode.size).toString('latin1')
  }

  /** Names of directory `nid` and where they lead, without . and ... */
  entries(nid: number): ReadonlyMap<string, number> {
    let known = this.names.get(nid)
    if (!known) this.names.set(nid, known = new Map([...this.dirents(this.inode(nid))].filter(([name]) => name !== '.' && name !== '..')))
    return known
  }

  private * dirents(inode: ImageInode): Generator<[string, number]> {
    const data = this.bytes(inode.block * BLOCK, inode.size)
    for (let at = 0; at + 12 <= data.length; at += BLOCK) {
      const block = data.subarray(at, at + BLOCK)
      const count = Math.min(block.readUInt16LE(8), block.length) / 12
      for (let n = 0; n + 1 <= count; n++) {
        const from = block.readUInt16LE(n * 12 + 8)
        const to = n + 2 <= count ? block.readUInt16LE((n + 1) * 12 + 8) : block.length
        let name = block.toString('latin1', from, to)
        const nul = name.indexOf('\0')
        if (nul >= 0) name = name.slice(0, nul)
        yield [name, Number(block.readBigUInt64LE(n * 12))]
      }
    }
  }

  /** A fresh inode of a container for `nid`; directories are filled by the caller. */
  toInode(nid: number, fs: FileSystem): Inode {
    const i = this.inode(nid)
    const time = { sec: i.mtime, nsec: 0 }
    const inode: Inode = {
      ino: nid, mode: i.mode, uid: i.uid, gid: i.gid, nlink: i.nlink, rdev: i.rdev,
      atime: time, mtime: time, ctime: time, fs,
    }
    const type = i.mode & S_IFMT
    if (type === S_IFREG) inode.backing = { kind: 'image', nid, size: i.size }
    if (type === S_IFLNK) inode.target = this.target(i)
    if (type === S_IFDIR) inode.children = new Map()
    return inode
  }
}
