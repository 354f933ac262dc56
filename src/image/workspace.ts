/** A build's temporary directory: beside its output, so that what is finished moves by rename; gone at the end. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'

/** Runs `use` with a fresh directory in `parent`; removes it, also when the process is ended by a signal. */
export async function withWorkspace<T>(parent: string, use: (dir: string) => Promise<T>): Promise<T> {
  mkdirSync(parent, { recursive: true })
  const dir = mkdtempSync(join(parent, '.build-'))
  const remove = (): void => { rmSync(dir, { recursive: true, force: true }) }
  const interrupted = (signal: NodeJS.Signals): void => { process.exit(signal === 'SIGINT' ? 130 : 143) }
  process.once('exit', remove)
  process.once('SIGINT', interrupted)
  process.once('SIGTERM', interrupted)
  try {
    return await use(dir)
  } finally {
    process.removeListener('exit', remove)
    process.removeListener('SIGINT', interrupted)
    process.removeListener('SIGTERM', interrupted)
    remove()
  }
}
