/** Flags and environment → one frozen configuration. */
import { homedir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

export interface Config { readonly socket: string; readonly state: string; readonly audit: string }

/** Where a client looks for the daemon when VKERNEL_SOCKET is not set. */
export function runtimeDirectory(): string {
  const uid = process.getuid!()
  return uid === 0 ? '/run/vkernel' : join(process.env['XDG_RUNTIME_DIR'] ?? `/tmp/vkernel-${uid}`, 'vkernel')
}

export function readConfig(argv: string[]): Config {
  const { values } = parseArgs({ args: argv, options: { socket: { type: 'string' }, state: { type: 'string' }, audit: { type: 'string' } } })
  const runtime = runtimeDirectory()
  const data = process.env['XDG_STATE_HOME'] ?? (process.getuid!() === 0 && !process.env['HOME'] ? '/var/lib' : join(homedir(), '.local/state'))
  return Object.freeze({
    socket: values.socket ?? process.env['VKERNEL_SOCKET'] ?? join(runtime, 'vkernel.sock'),
    state: values.state ?? join(runtime, 'state'),
    audit: values.audit ?? process.env['VKERNEL_AUDIT'] ?? join(data, 'vkernel', 'audit.jsonl'),
  })
}
