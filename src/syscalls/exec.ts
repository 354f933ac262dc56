/** execve and executable mappings: decided by the gate, answered with what to map. */
import { pack } from 'msgpackr'
import { closeSync, readSync } from 'node:fs'
import * as E from '../abi/errno.ts'
import { AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, X_OK } from '../abi/fcntl.ts'
import { GRANT_HOST, GRANT_IMAGE } from '../abi/ring.ts'
import { isDir, pathOf, type Dentry } from '../fs/inode.ts'
import { may, resolve } from '../fs/path.ts'
import type { Approved } from '../policy/gate.ts'
import type { Call, Handler } from './handler.ts'

interface Program { kind: number; node: number; nid: number; elf: number; path: Buffer; size: number }

/** Scripts may name scripts, but not for ever (fs/exec.c). */
const MAX_DEPTH = 4

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
function approve(call: Call, d: Dentry): Approved | E.Errno {
  if (isDir(d.inode)) return -E.EACCES
  if (!call.task.container.vfs.isRegular(d.inode)) return -E.EACCES
  if (!may(d.inode, X_OK, call.task.creds)) return -E.EACCES
  return call.task.container.gate.check(d, 'exec')
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

const execve: Handler = (call) => {
  const { vfs } = call.task.container
  const flags = call.int(2)
  const start = call.node(0)
  if (typeof start === 'number') return start
  const path = call.text(1)
  let d: Dentry | E.Errno = path === '' && flags & AT_EMPTY_PATH ? start
    : resolve(vfs, start, path, !(flags & AT_SYMLINK_NOFOLLOW), call.task.creds)
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
      const approvedInterp = approve(call, at)
      if (typeof approvedInterp === 'number') return undo(approvedInterp)
      loader = program(call, at, approvedInterp)
    }
    call.task.exe = d
    call.task.argv0 = path
    return call.write(0, pack({ exe, interp: loader, argv }))
  }
}

/** mmap(PROT_EXEC) of a file that the loader does not know as the image's. */
const mmap: Handler = (call) => {
  const d = call.node(4)
  if (typeof d === 'number') return -E.EACCES
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
