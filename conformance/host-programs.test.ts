/**
 * Programs compiled on this host, packed with `--from-host` and translated: the same standard output,
 * standard error and exit status as natively.
 */
import test from 'ava'
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { client, root, TestDaemon } from '../src/daemon/testing.ts'

const dir = join(root, 'build/host-programs')
const image = join(dir, 'image')
/** The tests' own, which their daemons trust. */
const keys = join(root, 'build/test-images/keys')
mkdirSync(dir, { recursive: true })

function must(command: string, args: readonly string[]): void {
  const r = spawnSync(command, args, { encoding: 'utf8', env: { ...process.env, VKERNEL_KEYS: keys } })
  if (r.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${r.error?.message ?? r.stderr}`)
}

const source = (name: string): string => join(root, 'conformance/programs', name)
const at = (name: string): string => join(dir, name)

for (const level of ['-O0', '-O2']) {
  for (const name of ['jumps', 'threads']) must('cc', [level, '-pthread', '-o', at(`${name}${level}`), source(`${name}.c`)])
  must('c++', [level, '-shared', '-fPIC', '-o', at(`libthrower${level}.so`), source('thrower.cc')])
  must('c++', [level, '-o', at(`exceptions${level}`), source('exceptions.cc'), at(`libthrower${level}.so`), `-Wl,-rpath,${dir}`])
}
const programs = ['-O0', '-O2'].flatMap((level) => ['jumps', 'threads', 'exceptions'].map((name) => at(`${name}${level}`)))
/** What only translation can get wrong, in the forms compilers and linkers give it. */
const forms: Readonly<Record<string, readonly (readonly string[])[]>> = {
  switches: [['-O0'], ['-O1'], ['-O2'], ['-O3'], ['-Os'], ['-O2', '-fno-pie', '-no-pie'], ['-O2', '-static'], ['-O2', '-static-pie'], ['-O2', '-s']],
  tables: [['-O2'], ['-O2', '-fno-pie', '-no-pie']],
  coroutines: [['-O0'], ['-O2']],
  stack: [['-O0'], ['-O2']],
  shapes: [['-O2']],
  litmus: [['-O2', '-mcx16']],
}
for (const [name, all] of Object.entries(forms)) {
  for (const flags of all) {
    const program = at(name + flags.join(''))
    must('cc', [...flags, '-w', '-pthread', '-o', program, join(root, 'conformance/translation', `${name}.c`)])
    programs.push(program)
  }
}
must(client, ['build', '--from-host', ...programs, '-o', image])

const d = await TestDaemon.start()
test.after.always(() => d.remove())

for (const program of programs) {
  test(`${program.slice(dir.length + 1)} as natively`, (t) => {
    const native = spawnSync(program, [], { encoding: 'utf8' })
    const ours = spawnSync(client, ['run', '--rm', image, program], { encoding: 'utf8', timeout: 60_000, killSignal: 'SIGKILL', env: { ...process.env, VKERNEL_SOCKET: d.socket } })
    t.is(ours.stdout, native.stdout)
    t.is(ours.stderr, native.stderr)
    t.is(ours.status, native.status)
  })
}
