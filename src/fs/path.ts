/**
 * Path resolution (path_resolution(7)): components, symbolic links, "..", search permission.
 * Works on dentries only; the host's own path walk is never involved.
 */
import * as E from '../abi/errno.ts'
import { RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, S_IFLNK, S_IFMT, X_OK } from '../abi/fcntl.ts'
import { isDir, type Dentry, type Inode } from './inode.ts'
import type { Vfs } from './vfs.ts'

/** Who walks: ids, and where "/" is for them (chroot(2)); undefined: the container's root. */
export interface Creds { uid: readonly [number, number, number]; gid: readonly [number, number, number]; groups: readonly number[]; root?: Dentry }

/** Who the daemon itself is in a container's tree. */
export const ROOT: Creds = { uid: [0, 0, 0], gid: [0, 0, 0], groups: [] }

/** Permission check on mode bits with the effective (or real) ids; guest root passes. */
export function may(inode: Inode, want: number, c: Creds, real = false): boolean {
  const uid = c.uid[real ? 0 : 1], gid = c.gid[real ? 0 : 1]
  if (uid === 0) return !(want & X_OK) || isDir(inode) || (inode.mode & 0o111) !== 0
  const bits = inode.uid === uid ? inode.mode >> 6
    : inode.gid === gid || c.groups.includes(inode.gid) ? inode.mode >> 3 : inode.mode
  return (bits & want) === want
}

export interface Found {
  /** Directory that holds the last component. */
  readonly dir: Dentry
  /** The last component; "." for a path that ends in a directory itself. */
  readonly name: string
  readonly node: Dentry | undefined
  /** The path ended in a slash: it must name a directory. */
  readonly slash: boolean
}

const MAX_LINKS = 40

/** Names between slashes. */
function components(path: string): string[] {
  const parts = path.split('/')
  return parts.includes('') ? parts.filter(Boolean) : parts
}

const isLink = (i: Inode): boolean => (i.mode & S_IFMT) === S_IFLNK

/**
 * Walks `path` from `at`. A missing last component is `node: undefined`, others are ENOENT. `follow` 'never': the
 * last component is the name itself, for calls that make, move or remove one; a link with a slash behind it is
 * otherwise followed. `how`: the RESOLVE_ bits of openat2(2).
 */
export function walk(vfs: Vfs, at: Dentry, path: string, follow: boolean | 'never', c: Creds, how = 0): Found | E.Errno {
  if (path === '') return -E.ENOENT
  if (path.length > 4095) return -E.ENAMETOOLONG
  const top = how & RESOLVE_IN_ROOT ? at : c.root ?? vfs.root
  const apart = (from: Dentry, to: Dentry): boolean => (how & RESOLVE_NO_XDEV) !== 0 && from.inode.fs !== to.inode.fs
  if (path[0] === '/' && how & RESOLVE_BENEATH) return -E.EXDEV
  let links = 0
  let dir = path[0] === '/' ? top : at
  if (apart(at, dir)) return -E.EXDEV
  let rest = components(path)
  let n = 0
  let slash = path.endsWith('/') && rest.length > 0
  if (rest.length === 0) return { dir: top, name: '.', node: top, slash: true }
  for (;;) {
    const name = rest[n]!
    const last = n === rest.length - 1
    if (!isDir(dir.inode)) return -E.ENOTDIR
    if (!may(dir.inode, X_OK, c)) return -E.EACCES
    if (name.length > 255) return -E.ENAMETOOLONG
    if (name === '.' || name === '..') {
      if (name === '..' && dir === at && how & RESOLVE_BENEATH) return -E.EXDEV
      // A directory outside the root has its own parent (fs/namei.c follow_dotdot).
      const next = name === '.' || dir === top ? dir : dir.parent
      if (apart(dir, next)) return -E.EXDEV
      if (last) return { dir: next, name: '.', node: next, slash: true }
      dir = next
      n++
      continue
    }
    const node = dir.deleted ? undefined : vfs.child(dir, name)
    if (!node) {
      if (!last) return -E.ENOENT
      return { dir, name, node: undefined, slash }
    }
    if (isLink(node.inode) && (!last || follow === true || (slash && follow !== 'never'))) {
      if (++links > MAX_LINKS) return -E.ELOOP
      if (how & RESOLVE_NO_SYMLINKS) return -E.ELOOP
      const special = node.inode.special
      if (how && (special?.kind === 'fd' || (special?.kind === 'link' && special.node))) {
        if (how & RESOLVE_NO_MAGICLINKS) return -E.ELOOP
        if (how & (RESOLVE_BENEATH | RESOLVE_IN_ROOT | RESOLVE_NO_XDEV)) return -E.EXDEV
      }
      // A guest's own descriptor: only the loader knows what is behind it.
      if (special?.kind === 'fd') return last && !slash ? { dir, name, node, slash } : -E.ENOTDIR
      if (special?.kind === 'link' && special.node) {
        const to = special.node()
        if (!to) return -E.ENOENT
        if (last) return { dir: to.parent, name: to.name, node: to, slash }
        dir = to
        n++
        continue
      }
      const target = special?.kind === 'link' ? special.target() : node.inode.target!
      if (target === '') return -E.ENOENT
      if (target[0] === '/') {
        if (how & RESOLVE_BENEATH || apart(dir, top)) return -E.EXDEV
        dir = top
      }
      if (last && target.endsWith('/')) slash = true
      rest = [...components(target), ...rest.slice(n + 1)]
      n = 0
      if (rest.length === 0) return { dir, name: '.', node: dir, slash: true }
      continue
    }
    if (apart(dir, node)) return -E.EXDEV
    if (last) {
      if (slash && follow !== 'never' && !isDir(node.inode)) return -E.ENOTDIR
      return { dir, name, node, slash }
    }
    dir = node
    n++
  }
}

/** Whether `d` may be written as far as its mount is concerned. */
export const writable = (d: Dentry): boolean => !d.inode.fs.readonly

/** The existing dentry at `path`. */
export function resolve(vfs: Vfs, at: Dentry, path: string, follow: boolean, c: Creds): Dentry | E.Errno {
  const f = walk(vfs, at, path, follow, c)
  if (typeof f === 'number') return f
  return f.node ?? -E.ENOENT
}
