/**
 * Writes image.erofs (fs/erofs/erofs_fs.h): uncompressed, extended inodes, file data in whole
 * blocks, so that the loader maps files straight out of it. Deterministic: the same tree gives the
 * same bytes. mkfs.erofs cannot do both (it inlines tails and stamps times), hence our own.
 *
 *   block 0        superblock at 1024
 *   meta           inodes, 64 bytes each at nid × 32; a symbolic link's target follows its inode
 *   data           directories, then regular files, each starting at a block
 */
import { closeSync, openSync, ftruncateSync } from 'node:fs'
import { BuildError, eachChunk, writeAll, type Inode } from './tree.ts'

export const BLOCK = 4096
const MAGIC = 0xe0f5_e1e2
const SLOT = 32
const S_IFMT: Record<Inode['kind'], number> = {
  fifo: 0o010000, char: 0o020000, dir: 0o040000, block: 0o060000, file: 0o100000, symlink: 0o120000, socket: 0o140000,
}
const FILE_TYPE: Record<Inode['kind'], number> = { file: 1, dir: 2, char: 3, block: 4, fifo: 5, socket: 6, symlink: 7 }

const blocks = (n: number): number => Math.ceil(n / BLOCK)

interface Placed { nid: number; ino: number; nlink: number; block: number; size: number }

/** Directory data: blocks of dirents followed by their names (fs/erofs/dir.c). */
function directoryData(self: Placed, parent: Placed, children: [string, Placed, Inode][]): Buffer {
  const list: [string, number, number][] = [
    ['.', self.nid, 2], ['..', parent.nid, 2],
    ...children.map(([name, p, node]): [string, number, number] => [name, p.nid, FILE_TYPE[node.kind]]),
  ].sort(([a], [b]) => ((a as string) < (b as string) ? -1 : 1)) as [string, number, number][]
  const out: Buffer[] = []
  let from = 0
  while (from < list.length) {
    let to = from, used = 0
    while (to < list.length && used + 12 + list[to]![0].length <= BLOCK) used += 12 + list[to++]![0].length
    const block = Buffer.alloc(BLOCK)
    let nameOff = (to - from) * 12
    for (let n = from; n < to; n++) {
      const [name, nid, type] = list[n]!
      const at = (n - from) * 12
      block.writeBigUInt64LE(BigInt(nid), at)
      block.writeUInt16LE(nameOff, at + 8)
      block.writeUInt8(type, at + 10)
      block.write(name, nameOff, 'latin1')
      nameOff += name.length
    }
    // The last block of a directory ends with its last name.
    out.push(to === list.length ? block.subarray(0, nameOff) : block)
    from = to
  }
  return Buffer.concat(out)
}

/** Writes `root` to `file`; returns the nid of every inode. `written` is told of file data as it is done. */
export function writeErofs(root: Inode, file: string, written: (bytes: number) => void = () => undefined): Map<Inode, number> {
  const placed = new Map<Inode, Placed>()
  const order: Inode[] = []
  let metaAt = SLOT * 2 // nid 0 is not used
  const reserve = (node: Inode): Placed => {
    const known = placed.get(node)
    if (known) {
      known.nlink++
      return known
    }
    const inline = node.target?.length ?? 0
    if (inline > BLOCK - 64) throw new BuildError('a symbolic link target is longer than PATH_MAX')
    // An inode and what is inline with it must not cross a block.
    if ((metaAt % BLOCK) + 64 + inline > BLOCK) metaAt = blocks(metaAt) * BLOCK
    const p: Placed = { nid: metaAt / SLOT, ino: order.length + 1, nlink: 1, block: 0, size: 0 }
    metaAt += Math.ceil((64 + inline) / SLOT) * SLOT
    placed.set(node, p)
    order.push(node)
    return p
  }
  const sorted = (node: Inode): [string, Inode][] => [...node.children!].sort(([a], [b]) => (a < b ? -1 : 1))
  const parents = new Map<Inode, Inode>([[root, root]])
  reserve(root)
  for (let n = 0; n < order.length; n++) {
    const node = order[n]!
    if (!node.children) continue
    placed.get(node)!.nlink = 2
    for (const [, child] of sorted(node)) {
      reserve(child)
      if (child.children) parents.set(child, node)
    }
  }
  for (const node of order) if (node.children && node !== root) placed.get(parents.get(node)!)!.nlink++

  const meta = Buffer.alloc(blocks(metaAt) * BLOCK)
  const metaBlock = 1
  let next = metaBlock + meta.length / BLOCK
  const directories = new Map<Inode, Buffer>()
  for (const node of order) {
    const p = placed.get(node)!
    if (node.children) {
      const data = directoryData(p, placed.get(parents.get(node)!)!, sorted(node).map(([name, c]) => [name, placed.get(c)!, c]))
      directories.set(node, data)
      p.size = data.length
    } else {
      p.size = node.source?.size ?? node.target?.length ?? 0
    }
    if (node.children || node.source) {
      p.block = next
      next += blocks(p.size)
    }
  }

  for (const node of order) {
    const p = placed.get(node)!
    const at = p.nid * SLOT
    const inline = node.target !== undefined
    meta.writeUInt16LE(1 | (inline ? 2 << 1 : 0), at)
    meta.writeUInt16LE(S_IFMT[node.kind] | node.mode, at + 4)
    meta.writeBigUInt64LE(BigInt(p.size), at + 8)
    meta.writeUInt32LE(node.kind === 'char' || node.kind === 'block' ? node.rdev >>> 0 : p.block, at + 16)
    meta.writeUInt32LE(p.ino, at + 20)
    meta.writeUInt32LE(node.uid, at + 24)
    meta.writeUInt32LE(node.gid, at + 28)
    meta.writeBigInt64LE(BigInt(node.mtime), at + 32)
    meta.writeUInt32LE(p.nlink, at + 44)
    node.target?.copy(meta, at + 64)
  }

  const fd = openSync(file, 'w')
  try {
    const sb = Buffer.alloc(BLOCK)
    sb.writeUInt32LE(MAGIC, 1024)
    sb.writeUInt8(12, 1024 + 12)
    sb.writeUInt16LE(placed.get(root)!.nid, 1024 + 14)
    sb.writeBigUInt64LE(BigInt(order.length), 1024 + 16)
    sb.writeUInt32LE(next, 1024 + 36)
    sb.writeUInt32LE(metaBlock, 1024 + 40)
    writeAll(fd, sb, 0)
    writeAll(fd, meta, metaBlock * BLOCK)
    for (const [node, data] of directories) writeAll(fd, data, placed.get(node)!.block * BLOCK)
    for (const node of order) {
      if (!node.source) continue
      let at = placed.get(node)!.block * BLOCK
      eachChunk(node.source, (chunk) => {
        writeAll(fd, chunk, at)
        at += chunk.length
        written(chunk.length)
      })
    }
    ftruncateSync(fd, next * BLOCK)
  } finally {
    closeSync(fd)
  }
  return new Map([...placed].map(([node, p]) => [node, p.nid]))
}
