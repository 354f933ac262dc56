/**
 * The container's name space, held in memory: inodes and the directory entries (dentries) that name
 * them. The image's part is read from image.erofs when first looked at; what the container writes
 * lives in flat files of the upper directory, one per inode, named by inode number. So names, modes,
 * owners and links behave as Linux's do for an ordinary user too, and no host path is ever made of
 * guest input.
 */
import { S_IFDIR, S_IFMT } from '../abi/fcntl.ts'

export interface Time { sec: number; nsec: number }

export const now = (): Time => {
  const ms = Date.now()
  return { sec: Math.floor(ms / 1000), nsec: (ms % 1000) * 1_000_000 }
}

/** Where a regular file's bytes are. */
export type Backing =
  | { readonly kind: 'image'; readonly nid: number; readonly size: number }
  /** A file of the upper directory. */
  | { readonly kind: 'upper'; readonly path: string }
  /** A file of the host that a mount names. */
  | { readonly kind: 'host'; readonly path: string; readonly readonly: boolean }

export interface Inode {
  readonly ino: number
  /** Type and permission bits. */
  mode: number
  uid: number
  gid: number
  nlink: number
  rdev: number
  atime: Time
  mtime: Time
  ctime: Time
  /** Regular files. */
  backing?: Backing
  /** Symbolic links; latin1 text of the bytes. */
  target?: string
  /** Directories: entries by name; `load` fills them from the image on first use. */
  children?: Map<string, Dentry>
  load?: () => void
  /** Devices, FIFOs and generated files. */
  special?: Special
  /** File system it belongs to, for EXDEV and statfs. */
  fs: 'overlay' | 'proc' | 'dev' | 'tmp' | 'host'
}

/** What opening a special file gives. */
export type Special =
  | { readonly kind: 'device'; readonly host: string }
  | { readonly kind: 'tty' }
  | { readonly kind: 'fifo'; readonly host: string }
  | { readonly kind: 'text'; readonly make: () => string | Buffer }
  | { readonly kind: 'maps' }
  /** /proc/self/fd/N: the guest's own descriptor. */
  | { readonly kind: 'fd'; readonly fd: number }
  /** A directory whose entries depend on who looks. */
  | { readonly kind: 'dynamic'; readonly list: () => [string, Inode][]; readonly find: (name: string) => Inode | undefined }
  /** A symbolic link whose target depends on who looks. */
  | { readonly kind: 'link'; readonly target: () => string; readonly node?: () => Dentry | undefined }

/** A name: stable for the life of the container, moves with rename. */
export interface Dentry {
  readonly id: number
  name: string
  parent: Dentry
  inode: Inode
  deleted: boolean
}

export const isDir = (i: Inode): boolean => (i.mode & S_IFMT) === S_IFDIR

/** Path from the container's root. */
export function pathOf(d: Dentry): string {
  if (d.parent === d) return '/'
  const parts: string[] = []
  for (let at = d; at.parent !== at; at = at.parent) parts.push(at.name)
  return '/' + parts.reverse().join('/') + (d.deleted ? ' (deleted)' : '')
}
