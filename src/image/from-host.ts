/** `--from-host PATH...`: a program of this host with its library closure, as a root file system. */
import { existsSync, lstatSync, readlinkSync, realpathSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { isX86Elf, readElf } from './elf.ts'
import { BuildError, directory, head, place, type Inode } from './tree.ts'

const LIBRARY_PATH = [
  '/lib/x86_64-linux-gnu', '/usr/lib/x86_64-linux-gnu', '/lib64', '/usr/lib64', '/lib', '/usr/lib',
]

function fileNode(path: string): Inode {
  const st = statSync(path)
  return {
    kind: 'file', mode: st.mode & 0o7777, uid: 0, gid: 0, mtime: Math.floor(st.mtimeMs / 1000), rdev: 0,
    source: { path, off: 0, size: st.size },
  }
}

/** Copies `path` and every symbolic link on the way to it. */
function copy(root: Inode, path: string, done: Set<string>): string {
  let at = resolve(path)
  for (let hops = 0; hops < 40; hops++) {
    // Links among the parent directories (/bin → usr/bin) are kept as links.
    const parts = at.split('/').filter(Boolean)
    let prefix = ''
    let moved = false
    for (const part of parts) {
      prefix += `/${part}`
      if (lstatSync(prefix).isSymbolicLink()) {
        const target = readlinkSync(prefix, { encoding: 'buffer' })
        if (!done.has(prefix)) {
          place(root, prefix, { kind: 'symlink', mode: 0o777, uid: 0, gid: 0, mtime: 0, rdev: 0, target })
          done.add(prefix)
        }
        at = resolve(dirname(prefix), target.toString('latin1'), at.slice(prefix.length + 1) || '.')
        moved = true
        break
      }
    }
    if (!moved) break
  }
  if (!done.has(at)) {
    done.add(at)
    place(root, at, fileNode(at))
  }
  return at
}

function findLibrary(name: string, runpath: readonly string[], origin: string): string | undefined {
  // A name with a slash is a path (ld.so(8)).
  if (name.includes('/')) return existsSync(name) ? name : undefined
  const dirs = [...runpath.map((p) => p.replace(/\$ORIGIN|\$\{ORIGIN\}/g, origin)), ...LIBRARY_PATH]
  return dirs.map((d) => join(d, name)).find((p) => existsSync(p) && isX86Elf(head(fileNode(realpathSync(p)), 20)))
}

export function fromHost(paths: readonly string[]): Inode {
  const root = directory()
  for (const dir of ['/dev', '/proc', '/sys', '/tmp', '/root', '/run', '/etc', '/var/tmp', '/home']) place(root, dir, directory())
  for (const dir of ['/tmp', '/var/tmp']) {
    const node = dir === '/tmp' ? root.children!.get('tmp')! : root.children!.get('var')!.children!.get('tmp')!
    node.mode = 0o1777
  }
  const done = new Set<string>()
  const queue: string[] = []
  for (const path of paths) {
    if (!existsSync(path)) throw new BuildError(`${path}: no such file on this host`)
    if (statSync(path).isDirectory()) throw new BuildError(`${path} is a directory; --from-host takes programs, --rootfs takes a directory`)
    queue.push(copy(root, path, done))
  }
  const visited = new Set<string>()
  while (queue.length) {
    const path = queue.pop()!
    if (visited.has(path)) continue
    visited.add(path)
    const start = head(fileNode(path), 256)
    if (start.toString('latin1', 0, 2) === '#!') {
      const interp = start.toString('latin1', 2).split('\n')[0]!.trim().split(/\s+/)[0]!
      if (existsSync(interp)) queue.push(copy(root, interp, done))
      continue
    }
    const elf = readElf(path)
    if (!elf.x86_64) continue
    if (elf.interp) queue.push(copy(root, elf.interp, done))
    for (const name of elf.needed) {
      const lib = findLibrary(name, elf.runpath, dirname(path))
      if (!lib) throw new BuildError(`${path} needs the library ${name}, which is not on this host`)
      queue.push(copy(root, lib, done))
    }
  }
  for (const file of ['/etc/passwd', '/etc/group', '/etc/ld.so.cache', '/etc/nsswitch.conf']) {
    if (existsSync(file) && file !== '/etc/ld.so.cache') copy(root, file, done)
  }
  return root
}
