/**
 * Runs every case of conformance/commands, or of conformance/services, natively (bubblewrap over an overlay of the root
 * file system) and in a container made from it, and compares stdout, stderr and exit status byte for byte.
 *
 *   node conformance/commands.ts --rootfs DIR --image DIR [--cases commands|services] [--only TEXT] [--jobs N]
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { cleared, contained as inContainer, ENV, overlaid, type Ended } from './native.ts'
import { readExpected } from './report.ts'

interface Case { readonly file: string; readonly title: string; readonly text: string }

const here = import.meta.dirname
const SECONDS = 180

/** What the native side's namespaces are: alone with one user, or with all users of /etc/passwd, as services need (root only). */
const ONE_USER = ['--unshare-all', '--uid', '0', '--gid', '0']
const ALL_USERS = ['--unshare-ipc', '--unshare-pid', '--unshare-net', '--unshare-uts', '--cap-add', 'ALL']

export function readCases(suite = 'commands'): Case[] {
  const dir = join(here, suite)
  return readdirSync(dir).filter((f) => f.endsWith('.cases')).sort().flatMap((file) =>
    readFileSync(join(dir, file), 'utf8').split(/^### /m).slice(1).map((part) => {
      const [title = '', ...lines] = part.split('\n')
      return { file, title, text: lines.join('\n').trimEnd() }
    }))
}

/** The command in the root file system itself. */
export const native = (rootfs: string, text: string, users = ONE_USER): Promise<Ended> => overlaid(rootfs, [
  '--dir', '/tmp/case', '--chdir', '/tmp/case', ...users, '--die-with-parent', '--as-pid-1', '--new-session', ...cleared(ENV),
  '/bin/bash', '-c', text,
], SECONDS)

export const contained = (image: string, text: string): Promise<Ended> => inContainer(image, '/tmp/case', ENV, ['/bin/bash', '-c', text], SECONDS)

const shown = (s: string): string => JSON.stringify(s.length > 600 ? `${s.slice(0, 300)} … ${s.slice(-300)}` : s)

/** Runs the cases; the last line of output is `N passed, N failed`. Returns the exit status. */
export async function runCommands(rootfs: string, image: string, suite: string, only: string | undefined, jobs: number): Promise<number> {
  const expected = readExpected('known')
  const cases = readCases(suite).filter((c) => !only || `${c.file} ${c.title}`.includes(only))
  let passed = 0, failed = 0, next = 0
  const worker = async (): Promise<void> => {
    while (next < cases.length) {
      const c = cases[next++]!
      const started = Date.now()
      const want = await native(rootfs, c.text, suite === 'services' ? ALL_USERS : ONE_USER)
      const nativeMs = Date.now() - started
      const got = await contained(image, c.text)
      const ms = Date.now() - started - nativeMs
      const same = want.stdout === got.stdout && want.stderr === got.stderr && want.status === got.status
      const known = expected.get(c.title)
      const ok = same !== (known !== undefined)
      if (ok) passed++
      else failed++
      console.log(`${ok ? 'ok' : 'not ok'} - ${c.file}: ${c.title} (${ms} ms, native ${nativeMs} ms)${known ? ` # known: ${known}` : ''}`)
      if (ok) continue
      if (known !== undefined) console.log('  passes now: take it out of conformance/expect.toml')
      for (const key of ['status', 'stdout', 'stderr'] as const) {
        if (want[key] !== got[key]) console.log(`  ${key}: native ${shown(want[key])}\n  ${' '.repeat(key.length)}  ours   ${shown(got[key])}`)
      }
    }
  }
  await Promise.all(Array.from({ length: jobs }, worker))
  console.log(`${passed} passed, ${failed} failed`)
  return failed ? 1 : 0
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { rootfs: { type: 'string' }, image: { type: 'string' }, cases: { type: 'string', default: 'commands' }, only: { type: 'string' }, jobs: { type: 'string', default: '2' } } })
  if (!values.rootfs || !values.image) {
    console.error('usage: node conformance/commands.ts --rootfs DIR --image DIR [--cases commands|services] [--only TEXT] [--jobs N]')
    process.exit(2)
  }
  process.exit(await runCommands(values.rootfs, values.image, values.cases, values.only, Number(values.jobs)))
}
