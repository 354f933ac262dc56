/** The files under version control, or what would be: for tests that look at all of them. */
import { spawnSync } from 'node:child_process'
import { root } from './stamp.ts'

/** Paths relative to the checkout: committed and new files, without ignored and deleted ones. */
export function repositoryFiles(): string[] {
  const git = (args: string[]): string[] => {
    const r = spawnSync('git', ['-C', root, 'ls-files', '-z', ...args], { encoding: 'utf8', maxBuffer: 1 << 26 })
    if (r.status !== 0) throw new Error(`git ls-files: ${r.stderr || r.error?.message}`)
    return r.stdout.split('\0').filter(Boolean)
  }
  const gone = new Set(git(['--deleted']))
  return [...new Set(git(['--cached', '--others', '--exclude-standard']))].filter((f) => !gone.has(f)).sort()
}
