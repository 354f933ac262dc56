/** /sys: how many processors there are, for programs that size themselves by it; nothing else. */
import { S_IFDIR, S_IFREG } from '../abi/fcntl.ts'
import { cpus } from 'node:os'
import type { Vfs } from './vfs.ts'

export function mountSys(vfs: Vfs): void {
  const fs = vfs.fileSystem('sysfs', 'sysfs', 'ro,nosuid,nodev,noexec,relatime', { noexec: true, readonly: true })
  let at = vfs.mountAt('/sys', fs, 0o555)
  for (const name of ['devices', 'system', 'cpu']) at = vfs.attach(at.inode, name, vfs.newInode(S_IFDIR | 0o755, 0, 0, fs), at)
  const count = cpus().length || 1
  const range = count === 1 ? '0\n' : `0-${count - 1}\n`
  for (const name of ['online', 'possible', 'present']) {
    vfs.attach(at.inode, name, Object.assign(vfs.newInode(S_IFREG | 0o444, 0, 0, fs), { special: { kind: 'text' as const, make: () => range } }), at)
  }
  for (let n = 0; n < count; n++) vfs.attach(at.inode, `cpu${n}`, vfs.newInode(S_IFDIR | 0o755, 0, 0, fs), at)
}
