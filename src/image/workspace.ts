/** A build's temporary directory: beside its output, so that what is finished moves by rename; gone at the end. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'

/** Directories in use; removed when the process ends before their builds do. */
const live = new Set<string>()

const removeAll = (): void => { for (const dir of live) rmSync(dir, { recursive: true, force: true }) }
const interrupted = (signal: NodeJS.Signals): void => { process.exit(signal === 'SIGINT' ? 130 : 143) }

const PREFIX = '.build-'
const DAY_MS = 86_400_000

/** Removes what builds that were killed have left, a day after. */
function removeStale(parent: string): void {
  for (const name of readdirSync(parent)) {
    const path = join(parent, name)
    const st = name.startsWith(PREFIX) ? statSync(path, { throwIfNoEntry: false }) : undefined
    if (st?.isDirectory() && st.uid === process.getuid!() && Date.now() - st.mtimeMs > DAY_MS) rmSync(path, { recursive: true, force: true })
  }
}

/** Runs `use` with a fresh directory in `parent`; removes it, also when the process is ended by a signal. */
export async function withWorkspace<T>(parent: string, use: (dir: string) => Promise<T>): Promise<T> {
  mkdirSync(parent, { recursive: true })
  removeStale(parent)
  const dir = mkdtempSync(join(parent, PREFIX))
  if (live.size === 0) process.on('exit', removeAll).on('SIGINT', interrupted).on('SIGTERM', interrupted)
  live.add(dir)
  try {
    return await use(dir)
  } finally {
    live.delete(dir)
    if (live.size === 0) process.off('exit', removeAll).off('SIGINT', interrupted).off('SIGTERM', interrupted)
    rmSync(dir, { recursive: true, force: true })
  }
}
