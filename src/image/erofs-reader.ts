/**
 * image.erofs (src/image/erofs.ts) back into a tree, for verify, analyze and extract. Every offset is
 * checked: the file may be damaged, or somebody else's.
 */
import { statSync } from 'node:fs'
import { BuildError, readExtent, type Extent, type Inode, type Kind } from './tree.ts'

const BLOCK = 4096, SLOT = 32, MAGIC = 0xe0f5_e1e2
const KINDS: Readonly<Record<number, Kind>> = {
  0o010000: 'fifo', 0o020000: 'char', 0o040000: 'dir', 0o060000: 'block', 0o100000: 'file', 0o120000: 'symlink', 0o140000: 'socket',
}

export class ErofsReader {
  private readonly path: string
  private readonly size: number
  private readonly meta: number
  readonly rootNid: number
  /** Inodes as the superblock counts them. */
  readonly inodes: number

  constructor(path: string) {
    this.path = path
    this.size = statSync(path).size
    const sb = this.bytes(1024, 128, 'the superblock')
    if (sb.readUInt32LE(0) !== MAGIC) throw new BuildError('image.erofs has no superblock')
    this.rootNid = sb.readUInt16LE(14)
    this.inodes = Number(sb.readBigUInt64LE(16))
    this.meta = sb.readUInt32LE(40) * BLOCK
  }

  private extent(off: number, size: number, what: string): Extent {
    if (!Number.isSafeInteger(off) || !Number.isSafeInteger(size) || off + size > this.size) throw new BuildError(`${what} lies outside image.erofs`)
    return { path: this.path, off, size }
  }

  private bytes(off: number, size: number, what: string): Buffer {
    return readExtent(this.extent(off, size, what))
  }

  /** The inode `nid`; a directory's children are not read yet. */
  inode(nid: number): { node: Inode; data: Extent } {
    const what = `inode ${nid}`
    const at = this.meta + nid * SLOT
    const b = this.bytes(at, 64, what)
    const mode = b.readUInt16LE(4)
    const kind = KINDS[mode & 0o170000]
    if (!kind || (b.readUInt16LE(0) & 1) === 0) throw new BuildError(`${what} of image.erofs is none`)
    const size = Number(b.readBigUInt64LE(8))
    const inline = kind === 'symlink'
    const data = kind === 'file' || kind === 'dir' || inline
      ? this.extent(inline ? at + 64 : b.readUInt32LE(16) * BLOCK, size, `the data of ${what}`)
      : this.extent(0, 0, what)
    const node: Inode = {
      kind, mode: mode & 0o7777, uid: b.readUInt32LE(24), gid: b.readUInt32LE(28), mtime: Number(b.readBigInt64LE(32)),
      rdev: kind === 'char' || kind === 'block' ? b.readUInt32LE(16) : 0,
    }
    if (kind === 'file') node.source = data
    if (inline) node.target = readExtent(data, BLOCK)
    return { node, data }
  }

  private names(data: Extent): [string, number][] {
    const all = readExtent(data)
    const out: [string, number][] = []
    for (let at = 0; at < all.length; at += BLOCK) {
      const block = all.subarray(at, at + BLOCK)
      const count = block.length < 12 ? 0 : Math.floor(block.readUInt16LE(8) / 12)
      if (count === 0 || count * 12 > block.length) throw new BuildError('a directory of image.erofs is damaged')
      for (let n = 0; n < count; n++) {
        const from = block.readUInt16LE(n * 12 + 8), to = n + 1 < count ? block.readUInt16LE(n * 12 + 20) : block.length
        const name = block.toString('latin1', from, to).split('\0', 1)[0]!
        if (name !== '.' && name !== '..') out.push([name, Number(block.readBigUInt64LE(n * 12))])
      }
    }
    return out
  }

  /** The whole tree; hard links are one inode. */
  tree(): Inode {
    const seen = new Map<number, Inode>()
    const read = (nid: number): [Inode, Extent] => {
      const { node, data } = this.inode(nid)
      seen.set(nid, node)
      return [node, data]
    }
    const [root, rootData] = read(this.rootNid)
    const pending: [Inode, Extent][] = [[root, rootData]]
    while (pending.length) {
      const [dir, data] = pending.pop()!
      if (dir.kind !== 'dir') throw new BuildError('image.erofs has no root directory')
      dir.children = new Map()
      for (const [name, nid] of this.names(data)) {
        const known = seen.get(nid)
        if (known?.kind === 'dir') throw new BuildError('a directory of image.erofs has two names')
        if (known) {
          dir.children.set(name, known)
          continue
        }
        const [node, childData] = read(nid)
        dir.children.set(name, node)
        if (node.kind === 'dir') pending.push([node, childData])
      }
    }
    return root
  }
}
