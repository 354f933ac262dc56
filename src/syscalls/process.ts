/** fork's registration, credentials, and reports of the loader for the audit log. */
import { closeSync } from 'node:fs'
import * as E from '../abi/errno.ts'
import type { Call, Handler } from './handler.ts'

/** Processes of one container. */
const MAX_TASKS = 4096

/** The child's connection came before this call, on the parent's (docs/abi.md). */
const fork: Handler = (call) => {
  const { task } = call
  const conn = task.announced.shift()
  if (conn === undefined) return -E.EINVAL
  if (task.container.tasks.size >= MAX_TASKS) {
    closeSync(conn)
    return -E.EAGAIN
  }
  return task.container.addTask(conn, task.creds, task.cwd, task).num
}

/** All ids at once: uid×3, gid×3, groups. The loader has applied Linux's rules; this checks them. */
const setresuid: Handler = (call) => {
  const b = call.bytes(0)
  if (!b || b.length < 24 || b.length % 4 !== 0) return -E.EINVAL
  const v = Array.from({ length: b.length / 4 }, (_, n) => b.readUInt32LE(4 * n))
  const old = call.task.creds
  const uid = v.slice(0, 3) as [number, number, number], gid = v.slice(3, 6) as [number, number, number]
  const groups = v.slice(6)
  if (old.uid[1] !== 0) {
    const same = groups.length === old.groups.length && groups.every((g, n) => g === old.groups[n])
    if (!uid.every((u) => old.uid.includes(u)) || !gid.every((g) => old.gid.includes(g)) || !same) return -E.EPERM
  }
  call.task.creds = { ...old, uid, gid, groups }
  return 0
}

/** REPORT: a line of the loader's own; the first word is the event. */
export function report(call: Call): number {
  const { container } = call.task
  const text = call.text(0)
  const event = text.startsWith('syscall') ? 'syscall' : text.startsWith('exec') ? 'mmap' : 'instruction'
  container.report(call.task, event, undefined, text)
  return 0
}

/** RECORD: args[0]: a call's record, args[1]: its number. */
export function record(call: Call): number {
  const bytes = call.bytes(0)
  if (bytes) call.task.container.onRecord(call.int(1), bytes)
  return 0
}

/** NODE: args[0]: nid of a directory of the image, args[1]: a name in it; without one the directory itself. */
export function node(call: Call): number {
  const name = call.text(1)
  return call.task.container.vfs.ofImage(call.long(0), name === '' ? undefined : name)?.id ?? -E.ESTALE
}

export const handlers: Record<string, Handler> = { fork, setresuid }
