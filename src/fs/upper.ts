/** Contents that a container wrote: flat files of the upper directory. */
import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs'
import * as E from '../abi/errno.ts'
import { addon } from '../native/addon.ts'
import type { Inode } from './inode.ts'
import type { Vfs } from './vfs.ts'

/** A new empty regular file's contents on the host. */
export function createContents(vfs: Vfs, inode: Inode): E.Errno {
  const path = vfs.upperPath(inode)
  // Not by an open, which a watch of the file would tell.
  const r = addon.makeFile(Buffer.from(path), 0o600)
  if (r < 0) return r
  inode.backing = { kind: 'upper', path }
  return 0
}

/** Moves a regular file's bytes from the image to the upper directory, before its first change. */
export function copyUp(vfs: Vfs, inode: Inode, truncate: boolean): E.Errno {
  const from = inode.backing
  if (from?.kind !== 'image') return 0
  const r = createContents(vfs, inode)
  if (r < 0) return r
  const to = inode.backing!
  if (to.kind !== 'upper' || truncate) return 0
  try {
    const fd = openSync(to.path, 'r+')
    try {
      const source = vfs.image.inode(from.nid)
      for (let at = 0; at < from.size; at += 1 << 20) {
        const chunk = vfs.image.read(source, at, 1 << 20)
        let done = 0
        while (done < chunk.length) done += writeSync(fd, chunk, done, chunk.length - done, at + done)
      }
    } finally {
      closeSync(fd)
    }
    addon.setTimes(Buffer.from(to.path), [inode.atime.sec, inode.atime.nsec, inode.mtime.sec, inode.mtime.nsec])
  } catch (e) {
    unlinkSync(to.path)
    inode.backing = from
    return E.errnoOf(e)
  }
  return 0
}
