/** Writes a layer: POSIX pax tar, entries in byte order, hard links once; deterministic. */
import { closeSync, openSync } from 'node:fs'
import { eachChunk, entries, writeAll, type Inode } from './tree.ts'

const TYPE: Record<Inode['kind'], string> = { file: '0', symlink: '2', char: '3', block: '4', dir: '5', fifo: '6', socket: '' }

/** Largest values of the header's octal fields; a pax record says what is larger. */
const MAX_ID = 0o7777777, MAX_SIZE = 0o77777777777

const octal = (h: Buffer, v: number, at: number, len: number): void => { h.write(v.toString(8).padStart(len - 1, '0'), at, 'latin1') }
const within = (v: number, max: number): number => (v >= 0 && v <= max ? v : 0)

function header(name: string, node: Inode, type: string, size: number, link: string): Buffer {
  const h = Buffer.alloc(512)
  h.write(name.slice(0, 100), 0, 'latin1')
  octal(h, node.mode, 100, 8)
  octal(h, within(node.uid, MAX_ID), 108, 8)
  octal(h, within(node.gid, MAX_ID), 116, 8)
  octal(h, within(size, MAX_SIZE), 124, 12)
  octal(h, within(node.mtime, MAX_SIZE), 136, 12)
  h.write('        ', 148)
  h.write(type, 156)
  h.write(link.slice(0, 100), 157, 'latin1')
  h.write('ustar\x0000', 257, 'latin1')
  if (type === '3' || type === '4') {
    octal(h, (node.rdev >> 8) & 0xfff, 329, 8)
    octal(h, (node.rdev & 0xff) | ((node.rdev >>> 12) & 0xfff00), 337, 8)
  }
  octal(h, h.reduce((a, b) => a + b, 0), 148, 7)
  h[155] = 0x20
  return h
}

const padded = (b: Buffer): Buffer => Buffer.concat([b, Buffer.alloc((512 - (b.length % 512)) % 512)])

/** A pax record: its own length in decimal is part of it. */
function record(key: string, value: string): Buffer {
  const body = Buffer.from(` ${key}=${value}\n`, 'latin1')
  let len = body.length + 1
  while (String(len).length + body.length !== len) len++
  return Buffer.concat([Buffer.from(String(len)), body])
}

function paxHeader(name: string, node: Inode, size: number, link: string): Buffer[] {
  const records = [
    ...(name.length > 100 ? [record('path', name)] : []),
    ...(link.length > 100 ? [record('linkpath', link)] : []),
    ...(size > MAX_SIZE ? [record('size', String(size))] : []),
    ...(node.uid > MAX_ID ? [record('uid', String(node.uid))] : []),
    ...(node.gid > MAX_ID ? [record('gid', String(node.gid))] : []),
    ...(within(node.mtime, MAX_SIZE) !== node.mtime ? [record('mtime', String(node.mtime))] : []),
  ]
  if (records.length === 0) return []
  const data = Buffer.concat(records)
  return [header('pax', { kind: 'file', mode: 0o644, uid: 0, gid: 0, mtime: 0, rdev: 0 }, 'x', data.length, ''), padded(data)]
}

/** Bytes that stand in a layer in place of a regular file's own; undefined: its own. */
export type Substitute = (path: string, node: Inode) => Buffer | undefined

export function writeTar(root: Inode, file: string, substitute: Substitute = () => undefined): void {
  const fd = openSync(file, 'w')
  const seen = new Map<Inode, string>()
  try {
    for (const { path, node } of entries(root)) {
      if (node.kind === 'socket') continue
      const name = path === '/' ? './' : path.slice(1) + (node.kind === 'dir' ? '/' : '')
      const first = node.kind === 'dir' ? undefined : seen.get(node)
      const type = first !== undefined ? '1' : TYPE[node.kind]
      const link = first ?? node.target?.toString('latin1') ?? ''
      if (first === undefined) seen.set(node, name)
      const instead = type === '0' ? substitute(path, node) : undefined
      const size = type === '0' ? instead?.length ?? node.source!.size : 0
      for (const block of paxHeader(name, node, size, link)) writeAll(fd, block)
      writeAll(fd, header(name, node, type, size, link))
      if (size === 0) continue
      if (instead) writeAll(fd, instead)
      else eachChunk(node.source!, (chunk) => writeAll(fd, chunk))
      writeAll(fd, Buffer.alloc((512 - (size % 512)) % 512))
    }
    writeAll(fd, Buffer.alloc(1024))
  } finally {
    closeSync(fd)
  }
}
