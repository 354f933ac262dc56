/** What the path arguments of a call name. */
import * as E from '../abi/errno.ts'
import * as F from '../abi/fcntl.ts'
import type { Dentry, Inode } from '../fs/inode.ts'
import { resolve } from '../fs/path.ts'
import type { Call } from './handler.ts'

/** The dentry that (dirfd node, path, flags) name; an empty path is the node itself when allowed. */
export function target(call: Call, dirArg: number, pathArg: number, flags: number, follow: boolean): Dentry | E.Errno {
  const at = call.node(dirArg)
  if (typeof at === 'number') return at
  const path = call.text(pathArg)
  if (path === '') return flags & F.AT_EMPTY_PATH ? at : -E.ENOENT
  return resolve(call.task.container.vfs, at, path, follow, call.task.creds)
}

/** As `target`, with the working directory in args[5] (calls without a dirfd). */
export function fromCwd(call: Call, pathArg: number, follow = true): Dentry | E.Errno {
  const at = call.node(5)
  if (typeof at === 'number') return at
  return resolve(call.task.container.vfs, at, call.text(pathArg), follow, call.task.creds)
}

export const root = (call: Call): boolean => call.task.creds.uid[1] === 0
export const owns = (call: Call, i: Inode): boolean => root(call) || i.uid === call.task.creds.uid[1]
