/** Writes a layer: POSIX pax tar, entries in byte order, hard links once; deterministic. */
import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { entries, type Inode } from './tree.ts'

const TYPE: Record<Inode['kind'], string> = { file: '0', symlink: '2', char: '3', block: '4', dir: '5', fifo: '6', socket: '' }

function header(name: string, node: Inode, type: string, size: number, link: string): Buffer {
  const h = Buffer.alloc(512)
  const octal = (v: number, at: number, len: number): void => {
    h.write(v.toString(8).padStart(len - 1, '0').slice(-(len - 1)), at, 'latin1')
  }
  h.write(name.slice(0, 100), 0, 'latin1')
  octal(node.mode, 100, 8)
  octal(node.uid, 108, 8)
  octal(node.gid, 116, 8)
  octal(size, 124, 12)
  octal(node.mtime, 136, 12)
  h.write('        ', 148)
  h.write(type, 156)
  h.write(link.slice(0, 100), 157, 'latin1')
  h.write('ustar\x0000', 257, 'latin1')
  if (type === '3' || type === '4') {
    octal((node.rdev >> 8) & 0xfff, 329, 8)
    octal((node.rdev & 0xff) | ((node.rdev >> 12) & 0xfff00), 337, 8)
  }
  octal(h.reduce((a, b) => a + b, 0), 148, 7)
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

export function writeTar(root: Inode, file: string): void {
  const fd = openSync(file, 'w')
  const seen = new Map<Inode, string>()
  const buf = Buffer.alloc(1 << 20)
  const put = (b: Buffer): void => { writeSync(fd, b) }
  try {
    for (const { path, node } of entries(root)) {
      if (path === '/' || node.kind === 'socket') continue
      const name = path.slice(1) + (node.kind === 'dir' ? '/' : '')
      const first = node.kind === 'dir' ? undefined : seen.get(node)
      const type = first !== undefined ? '1' : TYPE[node.kind]
      const link = first ?? node.target?.toString('latin1') ?? ''
      if (first === undefined) seen.set(node, name)
      const size = type === '0' ? node.source!.size : 0
      const pax = [
        ...(name.length > 100 ? [record('path', name)] : []),
        ...(link.length > 100 ? [record('linkpath', link)] : []),
      ]
      if (pax.length) {
        const data = Buffer.concat(pax)
        put(header('pax', { ...node, mode: 0o644 }, 'x', data.length, ''))
        put(padded(data))
      }
      put(header(name, node, type, size, link))
      if (size > 0) {
        const from = openSync(node.source!.path, 'r')
        let done = 0
        while (done < size) {
          const n = readSync(from, buf, 0, Math.min(buf.length, size - done), node.source!.off + done)
          if (n === 0) throw new Error(`${node.source!.path} became shorter while it was read`)
          put(buf.subarray(0, n))
          done += n
        }
        closeSync(from)
        put(Buffer.alloc((512 - (size % 512)) % 512))
      }
    }
    put(Buffer.alloc(1024))
  } finally {
    closeSync(fd)
  }
}
