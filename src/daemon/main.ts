/** The daemon's boot order. */
import { existsSync, mkdirSync, rmSync, unlinkSync } from 'node:fs'
import { createConnection } from 'node:net'
import { dirname, join } from 'node:path'
import { Audit } from '../policy/audit.ts'
import { readConfig } from './config.ts'
import { listen } from './control.ts'
import { Loop } from './loop.ts'
import { Runtime } from './runtime.ts'

/** True when a daemon answers on `path`. */
const answers = (path: string): Promise<boolean> => new Promise((done) => {
  const c = createConnection(path)
  c.on('connect', () => { c.destroy(); done(true) })
  c.on('error', () => done(false))
})

const config = readConfig(process.argv.slice(2))
mkdirSync(dirname(config.socket), { recursive: true, mode: 0o700 })
if (existsSync(config.socket)) {
  if (await answers(config.socket)) {
    process.stderr.write(`vkernel: a daemon is already listening on ${config.socket}\n`)
    process.exit(1)
  }
  unlinkSync(config.socket)
}
// What a killed daemon left behind: contents of containers that ended with it.
rmSync(join(config.state, 'containers'), { recursive: true, force: true })
mkdirSync(config.state, { recursive: true, mode: 0o700 })

const audit = new Audit(config.audit)
const loop = new Loop()
const runtime = new Runtime(loop, config.state, audit)
listen(config.socket, loop, runtime)

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    loop.stop()
    runtime.stop()
    rmSync(config.socket, { force: true })
    process.exit(0)
  })
}
process.stderr.write(`vkernel: listening on ${config.socket}\n`)
loop.start()
