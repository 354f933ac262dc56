/** /dev: the devices every container has, its terminals, shared memory, and links into /proc/self/fd. */
import { S_IFCHR, S_IFLNK } from '../abi/fcntl.ts'
import type { Dentry, Inode } from './inode.ts'
import { slaveDevice, type Pty, type Ptys } from './ptys.ts'
import type { Vfs } from './vfs.ts'

const DEVICES: [string, number, number][] = [
  ['null', 1, 3], ['zero', 1, 5], ['full', 1, 7], ['random', 1, 8], ['urandom', 1, 9],
]

/** `console`: the container was started with a terminal. */
export function mountDev(vfs: Vfs, ptys: Ptys, console: boolean): void {
  const dev = vfs.mountAt('/dev', vfs.fileSystem('tmpfs', 'tmpfs', 'rw,nosuid,noexec,size=65536k,mode=755', { noexec: true }), 0o755)
  const add = (at: Dentry, name: string, mode: number, more: Partial<Inode>): Dentry =>
    vfs.attach(at.inode, name, Object.assign(vfs.newInode(mode, 0, 0, at.inode.fs), more), at)
  for (const [name, major, minor] of DEVICES) {
    add(dev, name, S_IFCHR | 0o666, { rdev: (major << 8) | minor, special: { kind: 'device', host: `/dev/${name}` } })
  }
  add(dev, 'tty', S_IFCHR | 0o666, { rdev: 5 << 8, special: { kind: 'tty' } })
  if (console) add(dev, 'console', S_IFCHR | 0o620, { rdev: (5 << 8) | 1, special: { kind: 'console' } })
  for (const [name, target] of [
    ['fd', '/proc/self/fd'], ['stdin', '/proc/self/fd/0'], ['stdout', '/proc/self/fd/1'], ['stderr', '/proc/self/fd/2'], ['ptmx', 'pts/ptmx'],
  ] as const) add(dev, name, S_IFLNK | 0o777, { target })
  vfs.mountAt('/dev/shm', vfs.fileSystem('tmpfs', 'shm', 'rw,nosuid,nodev,noexec,relatime', { noexec: true }), 0o1777)
  const pts = vfs.mountAt('/dev/pts', vfs.fileSystem('devpts', 'devpts', 'rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666', { noexec: true }), 0o755)
  const slaves = new Map<Pty, Inode>()
  const inodeOf = (pty: Pty): Inode => {
    let inode = slaves.get(pty)
    if (!inode) {
      for (const old of slaves.keys()) if (ptys.find(old.index) !== old) slaves.delete(old)
      inode = vfs.newInode(S_IFCHR | 0o620, pty.uid, 5, pts.inode.fs)
      inode.rdev = slaveDevice(pty.index)
      inode.special = { kind: 'pty', pty, master: false }
      slaves.set(pty, inode)
    }
    return inode
  }
  const ptmx = vfs.newInode(S_IFCHR | 0o666, 0, 0, pts.inode.fs)
  ptmx.rdev = (5 << 8) | 2
  ptmx.special = { kind: 'ptmx' }
  pts.inode.special = {
    kind: 'dynamic',
    list: () => [...ptys.list().map((p): [string, Inode] => [String(p.index), inodeOf(p)]), ['ptmx', ptmx]],
    find: (name) => {
      if (name === 'ptmx') return ptmx
      const pty = /^\d{1,3}$/.test(name) ? ptys.find(Number(name)) : undefined
      return pty && inodeOf(pty)
    },
  }
}
