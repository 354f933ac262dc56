/**
 * The container's name space, held in memory: inodes and the directory entries (dentries) that name
 * them. The image's part is read from image.erofs when first looked at; what the container writes
 * lives in flat files of the upper directory, one per inode, named by inode number. So names, modes,
 * owners and links behave as Linux's do for an ordinary user too, and no host path is ever made of
 * guest input. Directories of the host that a mount names are looked at afresh each time (hostfs.ts).
 */
import { S_IFDIR, S_IFMT } from '../abi/fcntl.ts'
import type { HostFs } from './hostfs.ts'
import type { Instance } from './inotify.ts'
import type { Pty } from './ptys.ts'

export interface Time { sec: number; nsec: number }

export const now = (): Time => {
  const ms = Date.now()
  return { sec: Math.floor(ms / 1000), nsec: (ms % 1000) * 1_000_000 }
}

/** What is mounted somewhere: EXDEV, st_dev, statfs and the mount's rules go by it. */
export interface FileSystem {
  readonly type: 'overlay' | 'proc' | 'sysfs' | 'tmpfs' | 'devpts' | 'host'
  /** st_dev. */
  readonly dev: number
  /** First and last word of its line in /proc/mounts. */
  readonly source: string
  readonly options: string
  readonly readonly: boolean
  /** Nothing of it is executed or mapped executable. */
  readonly noexec: boolean
  readonly host?: HostFs
}

/** Where a regular file's bytes are. */
export type Backing =
  | { readonly kind: 'image'; readonly nid: number; readonly size: number }
  /** A file of the upper directory. */
  | { readonly kind: 'upper'; readonly path: string }

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
  /** Files of a host mount, and those that were opened: the name they were found at, which moves with rename. */
  at?: Dentry
  /** Extended attributes by name. */
  xattrs?: Map<string, Buffer>
  /** Sockets: the address as it was given to bind(2). */
  address?: Buffer
  fs: FileSystem
}

/** What opening a special file gives. */
export type Special =
  | { readonly kind: 'device'; readonly host: string }
  /** /dev/tty: the process's controlling terminal. /dev/console: the container's. */
  | { readonly kind: 'tty' | 'console' }
  | { readonly kind: 'ptmx' }
  /** A terminal's slave end, or (never named) its master. */
  | { readonly kind: 'pty'; readonly pty: Pty; readonly master: boolean }
  | { readonly kind: 'fifo'; readonly host: string }
  /** What inotify_init1 made; no name leads to it. */
  | { readonly kind: 'inotify'; readonly instance: Instance }
  /** `sink`: may be opened for writing, without effect. */
  | { readonly kind: 'text'; readonly make: () => string | Buffer; readonly sink?: boolean }
  /** /proc/PID/maps; only the process itself knows it. */
  | { readonly kind: 'maps'; readonly own: () => boolean }
  /** /proc/self/fd/N: the guest's own descriptor. */
  | { readonly kind: 'fd'; readonly fd: number }
  /** A directory whose entries depend on who looks. */
  | { readonly kind: 'dynamic'; readonly list: () => [string, Inode][]; readonly find: (name: string) => Inode | undefined; readonly fds?: (open: readonly number[]) => [string, Inode][] }
  /** A symbolic link whose target depends on who looks. */
  | { readonly kind: 'link'; readonly target: () => string; readonly node?: () => Dentry | undefined }

/** A name: stable for the life of the container, moves with rename. */
export interface Dentry {
  readonly id: number
  name: string
  parent: Dentry
  inode: Inode
  deleted: boolean
  /** Nid of the image's directory that has this name, as long as the name is where the image has it. */
  imageDir?: number | undefined
  /** Something is mounted here: it is not renamed or removed (EBUSY). */
  mounted?: boolean
}

export const isDir = (i: Inode): boolean => (i.mode & S_IFMT) === S_IFDIR

/** Whether `d` is `top` or below it. */
export function under(d: Dentry, top: Dentry): boolean {
  for (let at = d; ; at = at.parent) {
    if (at === top) return true
    if (at.parent === at) return false
  }
}

/** Path from `root` where that is above, otherwise from the container's root. */
export function pathOf(d: Dentry, root?: Dentry): string {
  const parts: string[] = []
  for (let at = d; at.parent !== at && at !== root; at = at.parent) parts.push(at.name)
  return '/' + parts.reverse().join('/') + (d.deleted ? ' (deleted)' : '')
}
