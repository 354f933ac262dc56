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

const at = (name: string): string => join(dir, name)
const source = (name: string): string => join(root, 'conformance/translation', name)

const programs: string[] = []
/** What only translation can get wrong, in the forms compilers and linkers give it. */
const forms: Readonly<Record<string, readonly (readonly string[])[]>> = {
  switches: [['-O0'], ['-O1'], ['-O2'], ['-O3'], ['-Os'], ['-O2', '-fno-pie', '-no-pie'], ['-O2', '-static'], ['-O2', '-static-pie'], ['-O2', '-s']],
  tables: [['-O2'], ['-O2', '-fno-pie', '-no-pie']],
  jumps: [['-O0'], ['-O2']],
  coroutines: [['-O0'], ['-O2']],
  stack: [['-O0'], ['-O2']],
  shapes: [['-O2']],
  threads: [['-O0'], ['-O2']],
  litmus: [['-O2', '-mcx16']],
  forks: [['-O0'], ['-O2']],
  masks: [['-O0'], ['-O2']],
}
for (const [name, all] of Object.entries(forms)) {
  for (const flags of all) {
    const program = at(name + flags.join(''))
    must('cc', [...flags, '-w', '-pthread', '-o', program, source(`${name}.c`), '-lm'])
    programs.push(program)
  }
}

/** Libraries are packed by their paths: the linker finds them by rpath, dlopen by the program's own name. */
const libraries: string[] = []
for (const level of ['-O0', '-O2']) {
  const library = (name: string, ...args: readonly string[]): string => {
    const path = at(`${name}${level}.so`)
    must('c++', [level, '-w', '-shared', '-fPIC', '-o', path, ...args])
    libraries.push(path)
    return path
  }
  const throws = (part: number, ...needs: readonly string[]): string => library(`liblibraries${part}`, `-DPART=${part}`, source('libraries.cc'), ...needs)
  const through = throws(1, throws(2, throws(3)))
  must('c++', [level, '-w', '-pthread', '-DPART=0', '-o', at(`libraries${level}`), source('libraries.cc'), through, `-Wl,-rpath,${dir}`])
  library('dynamic', '-DPART=1', '-x', 'c', source('dynamic.c'), '-lm')
  must('cc', [level, '-w', '-pthread', '-DPART=0', '-o', at(`dynamic${level}`), source('dynamic.c'), '-lm'])
  programs.push(at(`libraries${level}`), at(`dynamic${level}`))
}
must(client, ['build', '--from-host', ...programs, ...libraries, '-o', image])

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
