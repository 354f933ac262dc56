/** The merged root file system of an image while it is being built: a tree of inodes. */
import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync } from 'node:fs'
import { join } from 'node:path'

export type Kind = 'dir' | 'file' | 'symlink' | 'char' | 'block' | 'fifo' | 'socket'

export interface Inode {
  kind: Kind
  /** Permission bits, set-id and sticky included. */
  mode: number
  uid: number
  gid: number
  /** Seconds since the epoch. */
  mtime: number
  rdev: number
  /** Symbolic link target. */
  target?: Buffer
  /** Where a regular file's bytes are, and how many. */
  source?: { path: string; off: number; size: number }
  /** Directory entries by name (latin1 text of the name's bytes). */
  children?: Map<string, Inode>
}

/** Errors of a build that are the input's fault: message, and what to do. */
export class BuildError extends Error {
  override name = 'BuildError'
}

export const directory = (mode = 0o755): Inode =>
  ({ kind: 'dir', mode, uid: 0, gid: 0, mtime: 0, rdev: 0, children: new Map() })

/** Reads the root file system in `root` as it is; hard links stay one inode. */
export function fromDirectory(root: string): Inode {
  const seen = new Map<string, Inode>()
  const walk = (path: string): Inode => {
    const st = lstatSync(path, { bigint: true })
    const key = `${st.dev}:${st.ino}`
    const known = seen.get(key)
    if (known && !st.isDirectory()) return known
    const node: Inode = {
      kind: 'file', mode: Number(st.mode) & 0o7777, uid: Number(st.uid), gid: Number(st.gid),
      mtime: Number(st.mtimeMs / 1000n), rdev: Number(st.rdev),
    }
    if (st.isDirectory()) {
      node.kind = 'dir'
      node.children = new Map()
      for (const name of readdirSync(path, { encoding: 'latin1' }).sort()) {
        node.children.set(name, walk(join(path, name)))
      }
    } else if (st.isSymbolicLink()) {
      node.kind = 'symlink'
      node.target = readlinkSync(path, { encoding: 'buffer' })
    } else if (st.isFile()) {
      node.source = { path, off: 0, size: Number(st.size) }
    } else {
      node.kind = st.isCharacterDevice() ? 'char' : st.isBlockDevice() ? 'block' : st.isFIFO() ? 'fifo' : 'socket'
    }
    seen.set(key, node)
    return node
  }
  const st = lstatSync(root)
  if (!st.isDirectory()) throw new BuildError(`${root} is not a directory`)
  return walk(root)
}

/** The inode at `path`, symbolic links in it followed; undefined when there is none. */
export function lookup(root: Inode, path: string, hops = 0): { node: Inode; path: string } | undefined {
  if (hops > 40) return undefined
  let stack: { node: Inode; name: string }[] = [{ node: root, name: '' }]
  const parts = path.split('/').filter((p) => p !== '' && p !== '.')
  for (const [n, part] of parts.entries()) {
    if (part === '..') {
      if (stack.length > 1) stack.pop()
      continue
    }
    const next = stack[stack.length - 1]!.node.children?.get(part)
    if (!next) return undefined
    if (next.kind === 'symlink') {
      const target = next.target!.toString('latin1')
      const base = target.startsWith('/') ? '' : stack.map((s) => s.name).join('/')
      return lookup(root, [base, target, ...parts.slice(n + 1)].join('/'), hops + 1)
    }
    stack = [...stack, { node: next, name: part }]
  }
  return { node: stack[stack.length - 1]!.node, path: stack.map((s) => s.name).join('/') || '/' }
}

/** Adds `node` at `path`, making directories on the way. */
export function place(root: Inode, path: string, node: Inode): void {
  const parts = path.split('/').filter(Boolean)
  const name = parts.pop()
  if (name === undefined) return
  let at = root
  for (const part of parts) {
    let next = at.children!.get(part)
    if (!next) {
      next = directory()
      at.children!.set(part, next)
    }
    if (next.kind === 'symlink') {
      const target = lookup(root, path.slice(0, path.indexOf(part) + part.length))
      if (target) next = target.node
    }
    at = next
  }
  at.children!.set(name, node)
}

/** Every path of the tree with its inode, parents first, names in byte order. */
export function* entries(root: Inode, path = ''): Generator<{ path: string; node: Inode }> {
  yield { path: path || '/', node: root }
  for (const [name, child] of [...root.children!].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (child.children) yield* entries(child, `${path}/${name}`)
    else yield { path: `${path}/${name}`, node: child }
  }
}

/** The first `len` bytes of a regular file. */
export function head(node: Inode, len: number): Buffer {
  const { path, off, size } = node.source!
  const buf = Buffer.alloc(Math.min(len, size))
  if (buf.length === 0) return buf
  const fd = openSync(path, 'r')
  try {
    return buf.subarray(0, readSync(fd, buf, 0, buf.length, off))
  } finally {
    closeSync(fd)
  }
}
