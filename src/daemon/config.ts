/** Flags and environment → one frozen configuration; the directories they name, made safe. */
import { closeSync, lstatSync, mkdirSync, openSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { addon } from '../native/addon.ts'

export interface Config { readonly socket: string; readonly state: string; readonly audit: string; readonly dns: readonly string[] }

/** Where a client looks for the daemon when VKERNEL_SOCKET is not set. */
export function runtimeDirectory(): string {
  const uid = process.getuid!()
  return uid === 0 ? '/run/vkernel' : join(process.env['XDG_RUNTIME_DIR'] ?? `/tmp/vkernel-${uid}`, 'vkernel')
}

/** `--socket`, `--state`, `--audit`, `--dns` (name servers for containers, instead of the host's); a socket that is given has its state beside it, so that two daemons never share one. */
export function readConfig(argv: string[]): Config {
  const { values } = parseArgs({ args: argv, options: { socket: { type: 'string' }, state: { type: 'string' }, audit: { type: 'string' }, dns: { type: 'string', multiple: true } } })
  const given = values.socket ?? process.env['VKERNEL_SOCKET']
  const data = process.env['XDG_STATE_HOME'] ?? (process.getuid!() === 0 && !process.env['HOME'] ? '/var/lib' : join(homedir(), '.local/state'))
  return Object.freeze({
    socket: given ?? join(runtimeDirectory(), 'vkernel.sock'),
    state: values.state ?? (given ? `${given.replace(/\.sock$/, '')}.state` : join(runtimeDirectory(), 'state')),
    audit: values.audit ?? process.env['VKERNEL_AUDIT'] ?? join(data, 'vkernel', 'audit.jsonl'),
    dns: values.dns ?? [],
  })
}

/**
 * Makes a directory that only this user may enter. Throws when it is there and another user owns or
 * may change it: whoever made /tmp/vkernel-UID first must not be the one who answers there.
 */
export function privateDirectory(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 })
  const st = lstatSync(path)
  if (!st.isDirectory()) throw new Error(`${path} is no directory; remove it`)
  if (st.uid !== process.getuid!()) throw new Error(`${path} belongs to another user (uid ${st.uid}); give --socket and --state elsewhere`)
  if (st.mode & 0o022) throw new Error(`${path} may be changed by others (mode ${(st.mode & 0o7777).toString(8)}); chmod 700 it`)
}

/** Takes the lock that says "a daemon is here" for as long as it lives. Throws when another has it. */
export function lock(path: string, what: string): void {
  privateParent(path)
  const fd = openSync(path, 'a', 0o600)
  if (addon.lockFile(fd) === 0) return
  closeSync(fd)
  throw new Error(what)
}

/** The directory of a socket: private when it is made here, at least not another's to replace files in. */
export function privateParent(path: string): void {
  const dir = dirname(path)
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const st = lstatSync(dir)
  const sticky = (st.mode & 0o1000) !== 0
  if (st.uid !== process.getuid!() && st.uid !== 0 || st.mode & 0o022 && !sticky) {
    throw new Error(`others may replace files in ${dir}; choose a directory of your own with --socket`)
  }
}
