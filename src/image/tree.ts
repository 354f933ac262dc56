/** The merged root file system of an image while it is being built: a tree of inodes. */
import { createHash } from 'node:crypto'
import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync, writeSync } from 'node:fs'

/** Bytes in a file of this host: where, from which offset, how many. A path that is no UTF-8 is a Buffer. */
export interface Extent { readonly path: string | Buffer; readonly off: number; readonly size: number }

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
  source?: Extent
  /** Directory entries by name (latin1 text of the name's bytes). */
  children?: Map<string, Inode>
}

/** Errors of a build that are the input's fault: message, and what to do. */
export class BuildError extends Error {
  override name = 'BuildError'
}

export const directory = (mode = 0o755): Inode =>
  ({ kind: 'dir', mode, uid: 0, gid: 0, mtime: 0, rdev: 0, children: new Map() })

/** What a path of latin1 text (one character a byte) is to this host's calls. */
const hostPath = (path: string): string | Buffer => (/^[\x20-\x7e]*$/.test(path) ? path : Buffer.from(path, 'latin1'))

/** Reads the root file system in `root` as it is; hard links stay one inode. */
export function fromDirectory(root: string): Inode {
  const seen = new Map<string, Inode>()
  const walk = (name: string): Inode => {
    const path = hostPath(name)
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
      for (const entry of readdirSync(path, { encoding: 'latin1' }).sort()) node.children.set(entry, walk(`${name}/${entry}`))
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
  const st = lstatSync(root, { throwIfNoEntry: false })
  if (!st) throw new BuildError(`${root}: no such directory`)
  if (!st.isDirectory()) throw new BuildError(`${root} is not a directory; a tar archive is given with --docker-archive or --image`)
  return walk(Buffer.from(root).toString('latin1'))
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

/** Names a walk may take and directories a tree may nest: what PATH_MAX allows, and no more. */
const MAX_STEPS = 4096, MAX_DEPTH = 1024

/**
 * Walks to the directory `parts` names, following symbolic links inside the tree only: `..` stops at
 * the root, an absolute target starts there. `create`: makes directories that are missing.
 * `visit` sees every entry the walk goes through. Returns why there is no such directory.
 */
export function walkTo(root: Inode, parts: readonly string[], create: boolean, visit?: (dir: Inode, name: string) => void): Inode | string {
  const stack = [root]
  const pending = [...parts].reverse()
  for (let steps = 0, hops = 0; pending.length; steps++) {
    if (steps > MAX_STEPS || stack.length > MAX_DEPTH) return 'the path is too long'
    const part = pending.pop()!
    if (part === '' || part === '.') continue
    if (part === '..') {
      if (stack.length > 1) stack.pop()
      continue
    }
    const dir = stack[stack.length - 1]!
    let next = dir.children!.get(part)
    if (!next) {
      if (!create) return `there is no ${JSON.stringify(part)}`
      next = directory()
      dir.children!.set(part, next)
    }
    visit?.(dir, part)
    if (next.kind === 'symlink') {
      if (++hops > 40) return 'too many symbolic links'
      const target = next.target!.toString('latin1')
      if (target.startsWith('/')) stack.length = 1
      pending.push(...target.split('/').reverse())
    } else if (next.children) {
      stack.push(next)
    } else {
      return `${JSON.stringify(part)} is no directory`
    }
  }
  return stack[stack.length - 1]!
}

/** Adds `node` at `path`, making directories on the way. */
export function place(root: Inode, path: string, node: Inode): void {
  const parts = path.split('/').filter(Boolean)
  const name = parts.pop()
  if (name === undefined) return
  const dir = walkTo(root, parts, true)
  if (typeof dir === 'string') throw new BuildError(`${path}: ${dir}`)
  dir.children!.set(name, node)
}

/** Every path of the tree with its inode, parents first, names in byte order. */
export function* entries(root: Inode, path = ''): Generator<{ path: string; node: Inode }> {
  yield { path: path || '/', node: root }
  for (const [name, child] of [...root.children!].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (child.children) yield* entries(child, `${path}/${name}`)
    else yield { path: `${path}/${name}`, node: child }
  }
}

/** Calls `take` with the bytes of `extent`, a piece at a time; the piece is reused. */
export function eachChunk({ path, off, size }: Extent, take: (chunk: Buffer) => void): void {
  if (size === 0) return
  const buf = Buffer.allocUnsafe(Math.min(1 << 20, size))
  const fd = openSync(path, 'r')
  try {
    for (let done = 0; done < size;) {
      const n = readSync(fd, buf, 0, Math.min(buf.length, size - done), off + done)
      if (n === 0) throw new BuildError(`${path.toString()} became shorter while it was read`)
      take(buf.subarray(0, n))
      done += n
    }
  } finally {
    closeSync(fd)
  }
}

/** Writes all of `bytes` to `fd`, at `at` or where it stands. */
export function writeAll(fd: number, bytes: Buffer, at?: number): void {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, at === undefined ? null : at + done)
}

/** SHA-256 of an extent, hex. */
export function hashExtent(extent: Extent): string {
  const hash = createHash('sha256')
  eachChunk(extent, (chunk) => hash.update(chunk))
  return hash.digest('hex')
}

/** An extent as a Buffer, at most `max` bytes of it. */
export function readExtent(extent: Extent, max = Infinity): Buffer {
  const out: Buffer[] = []
  eachChunk({ ...extent, size: Math.min(extent.size, max) }, (chunk) => out.push(Buffer.from(chunk)))
  return Buffer.concat(out)
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
