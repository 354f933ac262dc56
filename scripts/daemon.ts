/**
 * A daemon of one's own: socket, state and audit file in a fresh directory, gone afterwards.
 *
 *   node scripts/daemon.ts COMMAND ARG...     runs a command with VKERNEL_SOCKET set to one
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { root } from './stamp.ts'

export interface Daemon { readonly child: ChildProcess; readonly dir: string; readonly socket: string; readonly audit: string }

const START_MS = 60_000
const STOP_MS = 5_000

const ended = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

/** Starts a daemon; resolves when it listens, throws with what it said when it does not. */
export async function startDaemon(): Promise<Daemon> {
  const dir = mkdtempSync(join(tmpdir(), 'vkernel-'))
  const [socket, audit, log] = [join(dir, 'sock'), join(dir, 'audit.jsonl'), join(dir, 'log')]
  const out = openSync(log, 'a', 0o600)
  const child = spawn(join(root, 'bin/vkernel'), ['--socket', socket, '--state', join(dir, 'state'), '--audit', audit], { stdio: ['ignore', out, out] })
  closeSync(out)
  const daemon = { child, dir, socket, audit }
  for (let waited = 0; waited < START_MS && !ended(child); waited += 20) {
    if (readFileSync(log, 'utf8').includes('listening on')) return daemon
    await sleep(20)
  }
  const text = readFileSync(log, 'utf8')
  await stopDaemon(daemon)
  throw new Error(`the daemon did not start within ${START_MS / 1000} s:\n${text}`)
}

/** Ends it, its containers with it, and removes its directory. */
export async function stopDaemon({ child, dir }: Daemon): Promise<void> {
  if (!ended(child)) {
    const gone = new Promise((done) => child.once('exit', done))
    child.kill('SIGTERM')
    const late = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
    await gone
    clearTimeout(late)
  }
  rmSync(dir, { recursive: true, force: true })
}

/** Stops the daemon when this process is told to end. */
export function stopOnSignal(daemon: Daemon): void {
  for (const [signal, status] of [['SIGINT', 130], ['SIGTERM', 143]] as const) {
    process.once(signal, () => { void stopDaemon(daemon).then(() => process.exit(status)) })
  }
}

if (import.meta.main) {
  const [command, ...args] = process.argv.slice(2)
  if (command === undefined) throw new Error('usage: node scripts/daemon.ts COMMAND ARG...')
  const daemon = await startDaemon()
  stopOnSignal(daemon)
  const child = spawn(command, args, { stdio: 'inherit', env: { ...process.env, VKERNEL_SOCKET: daemon.socket } })
  const status = await new Promise<number>((done) => {
    child.once('exit', (code) => done(code ?? 1))
    child.once('error', (e) => { process.stderr.write(`cannot run ${command}: ${e.message}\n`); done(127) })
  })
  await stopDaemon(daemon)
  process.exit(status)
}
