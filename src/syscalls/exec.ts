/** execve and executable mappings: decided by the gate, answered with what to map. */
import { pack } from 'msgpackr'
import { closeSync, readSync } from 'node:fs'
import * as E from '../abi/errno.ts'
import { AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, S_IFLNK, S_IFMT, S_ISGID, S_ISUID, X_OK } from '../abi/fcntl.ts'
import { ASK_WITH_FD, GRANT_HOST, GRANT_IMAGE } from '../abi/ring.ts'
import { isDir, pathOf, type Dentry } from '../fs/inode.ts'
import { may, resolve } from '../fs/path.ts'
import type { Approved } from '../policy/gate.ts'
import type { Call, Handler } from './handler.ts'

const NUL = Buffer.from([0])

interface Program { kind: number; node: number; nid: number; elf: number; path: Buffer; size: number }

/** Scripts may name scripts, but not for ever (fs/exec.c exec_binprm). */
const MAX_DEPTH = 5

function headOf(call: Call, d: Dentry, a: Approved, len: number): Buffer {
  const b = d.inode.backing
  if (a.fd === undefined && b?.kind === 'image') {
    const { image } = call.task.container.vfs
    return image.read(image.inode(b.nid), 0, len)
  }
  const buf = Buffer.alloc(len)
  return buf.subarray(0, readSync(a.fd!, buf, 0, len, 0))
}

function program(call: Call, d: Dentry, a: Approved): Program {
  const { vfs } = call.task.container
  const b = d.inode.backing
  if (a.fd !== undefined) call.fds.push(a.fd)
  return {
    kind: a.fd === undefined ? GRANT_IMAGE : GRANT_HOST, node: d.id, nid: b?.kind === 'image' ? b.nid : d.inode.ino,
    elf: a.elf, path: Buffer.from(pathOf(d), 'latin1'), size: vfs.size(d.inode),
  }
}

/** Approves `d` as something to execute: permission first, as Linux does, then content. */
function approve(call: Call, d: Dentry, part = false): Approved | E.Errno {
  const { container, creds } = call.task
  const i = d.inode
  if ((i.mode & S_IFMT) === S_IFLNK) return i.special ? container.gate.refuse('exec', pathOf(d), 'not a regular file') : -E.ELOOP
  if (isDir(i)) return -E.EACCES
  if (!container.vfs.isRegular(i)) return container.gate.refuse('exec', pathOf(d), 'not a regular file')
  if (!may(i, X_OK, creds)) return -E.EACCES
  const a = container.gate.check(d, 'exec', part)
  if (typeof a !== 'number' && i.mode & (S_ISUID | S_ISGID) && (i.uid !== creds.uid[1] || i.mode & S_ISGID)) {
    container.report(call.task, 'exec', pathOf(d), 'set-id bits are ignored')
  }
  return a
}

const PT_INTERP = 3

/** Path of an ELF file's interpreter; undefined: static; −ENOEXEC: not an ELF file of this machine. */
function interpreterOf(head: Buffer): string | undefined | E.Errno {
  if (head.length < 64 || head.readUInt32BE(0) !== 0x7f454c46 || head[4] !== 2 || head.readUInt16LE(18) !== 62) return -E.ENOEXEC
  const off = Number(head.readBigUInt64LE(32))
  for (let n = 0; n < head.readUInt16LE(56); n++) {
    const at = off + 56 * n
    if (at + 56 > head.length) break
    if (head.readUInt32LE(at) !== PT_INTERP) continue
    const from = Number(head.readBigUInt64LE(at + 8)), size = Number(head.readBigUInt64LE(at + 32))
    if (size < 2 || from + size > head.length) return -E.ENOEXEC
    return head.toString('latin1', from, from + size - 1)
  }
  return undefined
}

/** NUL-terminated strings as the loader sends them (argv, environment; cut to what fits). */
const strings = (b: Buffer | undefined): Buffer => b ?? Buffer.alloc(0)

const execve: Handler = (call) => {
  const { vfs, gate } = call.task.container
  const flags = call.int(2)
  if (flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)) return -E.EINVAL
  const path = call.text(1)
  const empty = path === '' && (flags & AT_EMPTY_PATH) !== 0
  const start = call.node(0)
  // A descriptor that no file of the container is behind: a memfd, a pipe, a socket.
  if (typeof start === 'number') return empty ? gate.refuse('exec', call.task.container.plainFd(call.task, call.int(3)), 'not a file of the container') : start
  let d: Dentry | E.Errno = empty ? start : resolve(vfs, start, path, !(flags & AT_SYMLINK_NOFOLLOW), call.task.creds)
  if (typeof d !== 'number' && d.inode.special?.kind === 'fd') {
    // /proc/self/fd/N: the loader knows what N is, and asks again with it.
    const n = Buffer.alloc(4)
    n.writeUInt32LE(d.inode.special.fd)
    call.write(0, n)
    return -ASK_WITH_FD
  }
  let argv: Buffer[] | null = null
  let shown = path
  const undo = (e: E.Errno): E.Errno => {
    for (const fd of call.fds.splice(0)) closeSync(fd)
    return e
  }
  for (let depth = 0; ; depth++) {
    if (typeof d === 'number') return undo(d)
    if (depth > MAX_DEPTH) return undo(-E.ELOOP)
    const a = approve(call, d)
    if (typeof a === 'number') return undo(a)
    const head = headOf(call, d, a, 4096)
    if (head.toString('latin1', 0, 2) === '#!') {
      if (a.fd !== undefined) closeSync(a.fd)
      const line = head.toString('latin1', 2, 256).split('\n')[0]!.trim()
      const space = line.search(/[ \t]/)
      const interp = space < 0 ? line : line.slice(0, space)
      if (interp === '') return undo(-E.ENOEXEC)
      const arg = space < 0 ? [] : [line.slice(space).trim()]
      argv = [...[interp, ...arg, shown].map((s): Buffer => Buffer.from(s, 'latin1')), ...(argv ? argv.slice(1) : [])]
      shown = interp
      d = resolve(vfs, call.task.cwd, interp, true, call.task.creds)
      continue
    }
    const exe = program(call, d, a)
    const interp = interpreterOf(head)
    if (typeof interp === 'number') return undo(interp)
    let loader: Program | null = null
    if (interp !== undefined) {
      const at = resolve(vfs, call.task.cwd, interp, true, call.task.creds)
      if (typeof at === 'number') return undo(at)
      const approvedInterp = approve(call, at, true)
      if (typeof approvedInterp === 'number') return undo(approvedInterp)
      loader = program(call, at, approvedInterp)
    }
    call.task.exe = d
    const given = strings(call.bytes(4))
    call.task.argv = argv ? Buffer.concat([...argv.flatMap((a) => [a, NUL]), given.subarray(given.indexOf(0) + 1)]) : Buffer.from(given)
    call.task.env = Buffer.from(strings(call.bytes(5)))
    return call.write(0, pack({ exe, interp: loader, argv }))
  }
}

/** mmap(PROT_EXEC) of a file that the loader does not know as the image's. */
const mmap: Handler = (call) => {
  const d = call.node(4)
  if (typeof d === 'number') return call.task.container.gate.refuse('mmap', '(no file)', 'not a file of the container')
  const a = call.task.container.gate.check(d, 'mmap')
  if (typeof a === 'number') return a
  if (a.fd === undefined || a.kind !== 'elf') {
    if (a.fd !== undefined) closeSync(a.fd)
    return -E.EACCES
  }
  call.fds.push(a.fd)
  return a.elf < 0 ? 0xffff_ffff : a.elf
}

export const handlers: Record<string, Handler> = { execve, mmap }
