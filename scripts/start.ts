/**
 * `npm start`: packs an image from programs of this host, starts a daemon of its own, runs the
 * programs through it next to the same programs run natively, shows a refusal, and cleans up.
 * Exits 0 only when everything came out as it should.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { startDaemon, stopDaemon, stopOnSignal, type Daemon } from './daemon.ts'
import { makeImage } from './images.ts'
import { root } from './stamp.ts'
import { say } from './system.ts'

const IMAGE = join(root, 'build/images/start')
const client = join(root, 'bin/recompiler')

/** What goes into the image where the host has it; bash and coreutils must be there. */
const PROGRAMS = [
  ...['bash', 'ls', 'cat', 'cp', 'sort', 'uniq', 'tr', 'head', 'wc', 'seq', 'sha256sum', 'uname', 'id', 'date', 'env', 'mkdir', 'rm', 'true'],
  ...['grep', 'sed', 'awk', 'find', 'xargs', 'perl', 'gzip', 'tar'],
]

interface Step {
  readonly about: string
  readonly script: string
  /** Programs without which the step is left out. */
  readonly needs: readonly string[]
}

const STEPS: readonly Step[] = [
  { about: 'a pipeline', needs: ['sort', 'uniq', 'tr'], script: `printf 'pear\\napple\\nfig\\napple\\n' | sort | uniq -c | tr a-z A-Z` },
  { about: 'files, in a layer of the container\'s own', needs: ['mkdir', 'sha256sum', 'sed'], script: `mkdir -p /tmp/d && seq 1 1000 > /tmp/d/n && sha256sum < /tmp/d/n && sed -n '500p' /tmp/d/n && rm -r /tmp/d` },
  { about: '80-bit floating point, to the last digit', needs: ['seq'], script: `printf '%.25Lg\\n' 0.1; seq 0.1 0.1 0.5` },
  { about: 'awk over 20,000 lines', needs: ['awk', 'seq'], script: `seq 20000 | awk '{ s += $1 * $1 } END { print NR, s }'` },
  { about: 'perl: hashes, a regular expression, fork and wait', needs: ['perl'], script: `perl -e 'my %n; $n{$1}++ while "the cat the dog the end" =~ /(\\w+)/g; print "$_ $n{$_}\\n" for sort keys %n; my $p = fork // die; exit 7 unless $p; waitpid $p, 0; print "child said ", $? >> 8, "\\n"'` },
  { about: 'a background job, a trap and an exit status', needs: [], script: `trap 'echo trapped' USR1; (exit 3) & wait $!; echo "job $?"; kill -USR1 $$; exit 5` },
]

const paths = (): Map<string, string> => {
  // /bin first: where it is a link to usr/bin, the link comes into the image too.
  const dirs = ['/bin', '/usr/bin']
  return new Map(PROGRAMS.flatMap((name) => {
    const at = dirs.map((d) => join(d, name)).find((p) => existsSync(p))
    return at ? [[name, at] as const] : []
  }))
}

/** What decides the image's content: each program, and the list of the host's libraries. */
const factsOf = (programs: readonly string[]): string[] => [...programs, '/etc/ld.so.cache'].map((p) => {
  const st = existsSync(p) ? statSync(realpathSync(p)) : undefined
  return `${p} ${st?.size} ${st?.mtimeMs}`
})

interface Outcome { readonly stdout: string; readonly stderr: string; readonly status: number | null; readonly ms: number }

const TIMEOUT_MS = 60_000
const PLAIN_ENV = { PATH: '/usr/bin:/bin', HOME: '/tmp', LANG: 'C' }

function timed(command: string, args: readonly string[], env: NodeJS.ProcessEnv): Outcome {
  const started = performance.now()
  const r = spawnSync(command, args, { encoding: 'utf8', env, timeout: TIMEOUT_MS, stdio: ['ignore', 'pipe', 'pipe'], cwd: '/tmp' })
  return { stdout: r.stdout ?? '', stderr: `${r.stderr ?? ''}${r.error ? `${r.error.message}\n` : ''}`, status: r.status, ms: performance.now() - started }
}

/** `bash -c SCRIPT` in a container of the image. */
const contained = (daemon: Daemon, script: string): Outcome => timed(client, [
  'run', '--rm', ...Object.entries(PLAIN_ENV).flatMap(([k, v]) => ['-e', `${k}=${v}`]), '-w', '/tmp', IMAGE, '/bin/bash', '-c', script,
], { ...process.env, VKERNEL_SOCKET: daemon.socket })

const indent = (text: string): string => text.trimEnd().split('\n').map((l) => `    ${l}`).join('\n')

/** Runs a step both ways and shows it; true when stdout, stderr and exit status are equal. */
function compare(daemon: Daemon, step: Step): boolean {
  const ours = contained(daemon, step.script)
  const native = timed('/bin/bash', ['-c', step.script], PLAIN_ENV)
  const same = ours.stdout === native.stdout && ours.stderr === native.stderr && ours.status === native.status
  console.log(`\n${step.about}\n  $ ${step.script}\n${indent(ours.stdout + ours.stderr)}`)
  console.log(`  exit ${ours.status}, ${Math.round(ours.ms)} ms (native ${Math.round(native.ms)} ms): ${same ? 'the same bytes as native' : 'DIFFERS from native'}`)
  if (!same) console.log(`  native: exit ${native.status}\n${indent(native.stdout + native.stderr)}`)
  return same
}

/** A changed copy of an approved program: it must not run, and the audit record must say why. */
function refusal(daemon: Daemon): boolean {
  const script = 'cp /bin/ls /tmp/x && printf x >> /tmp/x && /tmp/x'
  const r = contained(daemon, script)
  const record = existsSync(daemon.audit)
    ? readFileSync(daemon.audit, 'utf8').trimEnd().split('\n').find((l) => /"event":"exec","decision":"denied","path":"\/tmp\/x","digest":"[0-9a-f]{64}"/.test(l)) : undefined
  console.log(`\na copy of ls with one byte more is another program, and nobody has approved it\n  $ ${script}\n${indent(r.stdout + r.stderr)}\n  exit ${r.status}`)
  console.log(`  audit: ${record ?? 'NO RECORD'}`)
  return r.status === 126 && /Permission denied/.test(r.stderr) && record !== undefined
}

export async function start(): Promise<number> {
  const programs = paths()
  const files = [...programs.values()]
  makeImage('start', `packing ${files.length} programs of this host and their libraries into build/images/start, and translating them`,
    ['--from-host', ...files], factsOf(files))
  const daemon = await startDaemon()
  stopOnSignal(daemon)
  let bad = 0, ran = 0
  try {
    console.log(`\nbuild/images/start: ${programs.size} programs of this host, translated; each command below runs in a container of its own.`)
    for (const step of STEPS) {
      if (!step.needs.every((n) => programs.has(n))) continue
      ran++
      if (!compare(daemon, step)) bad++
    }
    ran++
    if (!refusal(daemon)) bad++
  } finally {
    await stopDaemon(daemon)
  }
  console.log(`\n${ran - bad} of ${ran} came out as they should. The daemon of this run is stopped and its files are gone.`)
  if (bad) {
    say('some commands did not behave as native ones: docs/quirks.md lists what is known, docs/debugging.md says how to look')
    return 1
  }
  console.log(`
How to go on:
  bin/recompiler run -it build/images/start /bin/bash          a shell in a container
  bin/recompiler build -o my.image --from-host /usr/bin/perl   an image of your own
  bin/recompiler verify my.image                               is it what was signed?
  npm test                                                     everything that is promised, checked
  README.md, docs/architecture.md                              how it works`)
  return 0
}
