/** The daemon's boot order. */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { Audit } from '../policy/audit.ts'
import { lock, privateDirectory, privateParent, readConfig } from './config.ts'
import { listen } from './control.ts'
import { Loop } from './loop.ts'
import { Runtime } from './runtime.ts'

function boot(): void {
  // Who this daemon is.
  const config = readConfig(process.argv.slice(2))
  // One daemon a socket and a state directory; locks end with their process, however it ends.
  privateParent(config.socket)
  lock(`${config.socket}.lock`, `a daemon is already listening on ${config.socket}`)
  privateDirectory(config.state)
  lock(join(config.state, 'lock'), `the state directory ${config.state} is another daemon's; give --state`)
  // What a killed daemon left behind: its socket, and contents of containers that ended with it.
  rmSync(config.socket, { force: true })
  for (const dir of ['containers', 'logs']) rmSync(join(config.state, dir), { recursive: true, force: true })
  mkdirSync(join(config.state, 'containers'), { mode: 0o700 })
  mkdirSync(join(config.state, 'logs'), { mode: 0o700 })
  // Nothing starts without a log of what was refused.
  const audit = new Audit(config.audit)
  const loop = new Loop()
  const runtime = new Runtime(loop, config.state, audit, config.dns)
  listen(config.socket, loop, runtime)
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      loop.stop()
      runtime.stop()
      rmSync(config.socket, { force: true })
      process.exit(0)
    })
  }
  process.on('SIGHUP', () => {})
  process.stderr.write(`vkernel: listening on ${config.socket}\n`)
  loop.start()
}

// The young generation stays small: a larger one keeps what ended containers were (110 MB, not 260, after 1,200 of them).
setFlagsFromString('--semi-space-growth-factor=1')

try {
  boot()
} catch (e) {
  process.stderr.write(`vkernel: ${(e as Error).message}\n`)
  process.exit(1)
}
