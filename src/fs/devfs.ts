/** /dev: the devices every container has, and links into /proc/self/fd. */
import { S_IFCHR, S_IFDIR, S_IFLNK } from '../abi/fcntl.ts'
import type { Dentry, Inode } from './inode.ts'
import type { Vfs } from './vfs.ts'

const DEVICES: [string, number, number][] = [
  ['null', 1, 3], ['zero', 1, 5], ['full', 1, 7], ['random', 1, 8], ['urandom', 1, 9],
]

/** Replaces the directory `at` by a new one of another file system. */
export function mountDir(vfs: Vfs, at: Dentry, name: string, mode: number, fs: Inode['fs']): Dentry {
  const inode = vfs.newInode(S_IFDIR | mode, 0, 0, fs)
  return vfs.attach(at.inode, name, inode, at)
}

export function mountDev(vfs: Vfs): void {
  vfs.children(vfs.root)
  const dev = mountDir(vfs, vfs.root, 'dev', 0o755, 'dev')
  const add = (name: string, mode: number, more: Partial<Inode>): void => {
    vfs.attach(dev.inode, name, Object.assign(vfs.newInode(mode, 0, 0, 'dev'), more), dev)
  }
  for (const [name, major, minor] of DEVICES) {
    add(name, S_IFCHR | 0o666, { rdev: (major << 8) | minor, special: { kind: 'device', host: `/dev/${name}` } })
  }
  add('tty', S_IFCHR | 0o666, { rdev: 5 << 8, special: { kind: 'tty' } })
  for (const [name, target] of [['fd', '/proc/self/fd'], ['stdin', '/proc/self/fd/0'], ['stdout', '/proc/self/fd/1'], ['stderr', '/proc/self/fd/2']] as const) {
    add(name, S_IFLNK | 0o777, { target })
  }
  const shm = mountDir(vfs, dev, 'shm', 0o1777, 'tmp')
  shm.inode.nlink = 2
  mountDir(vfs, dev, 'pts', 0o755, 'dev')
}
