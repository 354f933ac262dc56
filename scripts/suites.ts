/** The suites of `npm test`, `npm run test:long` and `npm run check`, in the order they run. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repositoryFiles } from './files.ts'
import { DEBIAN, SERVICES, makeRootfs, makeRootfsImage } from './rootfs.ts'
import { root } from './stamp.ts'
import { find, isRoot, need } from './system.ts'

export type Run = 'short' | 'long' | 'check'

export interface Suite {
  readonly name: string
  readonly in: readonly Run[]
  readonly command: string
  readonly args: readonly string[]
  /** Relative to the checkout. */
  readonly cwd?: string
  readonly timeoutMinutes: number
  /** Gets ready what the suite needs; returns why it cannot run here, or undefined. */
  readonly prepare?: () => string | undefined
}

const node = process.execPath

/** Rust folders with a test in them: a new one needs no line here. */
function rustCrates(): string[] {
  const hasTest = (dir: string): boolean => readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .some((f) => f.endsWith('.rs') && readFileSync(join(dir, f), 'utf8').includes('#[test]'))
  return readdirSync(join(root, 'native')).sort().filter((c) => ['src', 'tests'].some((d) => {
    const dir = join(root, 'native', c, d)
    return existsSync(dir) && hasTest(dir)
  }))
}

const conformance = (): string | undefined =>
  need({ bwrap: 'bubblewrap' }) ?? makeRootfs() ?? (makeRootfsImage(), undefined)

const callPrograms = (): string | undefined =>
  isRoot ? need({ bwrap: 'bubblewrap', setpriv: 'util-linux', prlimit: 'util-linux' }) : 'native Linux as a container has it is made by root: run the tests as root'

const services = (): string | undefined =>
  need({ bwrap: 'bubblewrap' }) ?? makeRootfs(SERVICES) ?? (makeRootfsImage(SERVICES), undefined)

const debianTests = (): string | undefined => callPrograms() ?? services()

const rings = (): string | undefined => isRoot ? undefined : "a guest's ring is taken by root: run the tests as root"

const component = (name: string): string | undefined =>
  find(`cargo-${name}`) ? undefined : `cargo ${name} is not installed: rustup component add ${name === 'fmt' ? 'rustfmt' : name}`

/** Programs that TypeScript tests call where they are there; each test says itself what it skips without. */
function optionalPrograms(): undefined {
  need({ skopeo: 'skopeo', umoci: 'umoci', zstd: 'zstd', bwrap: 'bubblewrap' })
}

const longTests = (): string | undefined =>
  repositoryFiles().some((f) => f.endsWith('.long.test.ts')) ? optionalPrograms() : 'there are no *.long.test.ts yet'

export function suites(): Suite[] {
  return [
    { name: 'generated files', in: ['short', 'check'], command: node, args: ['scripts/gen.ts', '--check'], timeoutMinutes: 1 },
    { name: 'types', in: ['short', 'check'], command: node, args: ['node_modules/typescript/bin/tsc', '-p', '.'], timeoutMinutes: 5 },
    { name: 'eslint', in: ['short', 'check'], command: node, args: ['node_modules/eslint/bin/eslint.js', '.'], timeoutMinutes: 5 },
    { name: 'ava', in: ['short', 'check'], command: node, args: ['node_modules/ava/entrypoints/cli.mjs'], timeoutMinutes: 15, prepare: optionalPrograms },
    { name: 'ava, long', in: ['long'], command: node, args: ['node_modules/ava/entrypoints/cli.mjs', '--config', 'ava.long.config.js'], timeoutMinutes: 60, prepare: longTests },
    { name: 'rust format', in: ['check'], command: 'cargo', args: ['fmt', '--check'], cwd: 'native', timeoutMinutes: 2, prepare: () => component('fmt') },
    { name: 'clippy', in: ['check'], command: 'cargo', args: ['clippy', '--release', '--locked', '--all-targets', '--', '-D', 'warnings'], cwd: 'native', timeoutMinutes: 20, prepare: () => component('clippy') },
    ...rustCrates().map((crate): Suite => ({
      name: `rust: ${crate}`, in: ['short', 'check'], command: 'cargo',
      args: ['test', '--release', '--locked', '--quiet', '-p', `vkernel-${crate}`, '--', '--nocapture'], cwd: 'native', timeoutMinutes: 25,
    })),
    // One program in six does not end natively and is not compared: more seeds than programs.
    { name: 'a thousand programs of csmith', in: ['long'], command: node, args: ['conformance/translation/csmith.ts', '--count', '1250'], timeoutMinutes: 90, prepare: () => need({ csmith: 'csmith', '/usr/include/csmith/csmith.h': 'libcsmith-dev', gcc: 'gcc', clang: 'clang' }) },
    { name: 'rust: recompiler, a million hostile files', in: ['long'], command: 'cargo', args: ['test', '--release', '--locked', '--quiet', '-p', 'vkernel-recompiler', '--', '--ignored', '--nocapture'], cwd: 'native', timeoutMinutes: 60 },
    { name: 'rust: difftest, ten million cases', in: ['long'], command: 'cargo', args: ['test', '--release', '--locked', '--quiet', '-p', 'vkernel-difftest', '--', '--ignored', '--nocapture'], cwd: 'native', timeoutMinutes: 120 },
    { name: 'system calls against native Linux', in: ['short'], command: node, args: ['scripts/daemon.ts', node, 'conformance/run.ts'], timeoutMinutes: 10, prepare: callPrograms },
    { name: 'random system calls', in: ['short'], command: node, args: ['conformance/fuzz.ts', '--calls', '20000'], timeoutMinutes: 5 },
    { name: 'POSIX threads under stress', in: ['short'], command: node, args: ['conformance/threads.ts', '--seconds', '20'], timeoutMinutes: 5 },
    { name: 'hostile requests and frames', in: ['short'], command: node, args: ['conformance/hostile.ts', '--requests', '20000', '--frames', '20000'], timeoutMinutes: 5, prepare: rings },
    { name: 'POSIX threads under stress for half an hour', in: ['long'], command: node, args: ['conformance/threads.ts', '--seconds', '1800'], timeoutMinutes: 40 },
    { name: 'a million hostile requests and frames', in: ['long'], command: node, args: ['conformance/hostile.ts', '--requests', '1000000', '--frames', '1000000'], timeoutMinutes: 60, prepare: rings },
    { name: 'a million random system calls', in: ['long'], command: node, args: ['conformance/fuzz.ts', '--calls', '1000000'], timeoutMinutes: 60 },
    { name: 'command lines against native Linux', in: ['short'], command: node, args: ['scripts/daemon.ts', node, 'conformance/commands.ts', '--rootfs', DEBIAN.rootfs, '--image', DEBIAN.image], timeoutMinutes: 20, prepare: conformance },
    { name: 'services against native Linux', in: ['long'], command: node, args: ['scripts/daemon.ts', node, 'conformance/commands.ts', '--cases', 'services', '--rootfs', SERVICES.rootfs, '--image', SERVICES.image, '--jobs', '1'], timeoutMinutes: 40, prepare: services },
    { name: 'stress-ng against native Linux', in: ['long'], command: node, args: ['scripts/daemon.ts', node, 'conformance/stress-ng.ts', '--rootfs', SERVICES.rootfs, '--image', SERVICES.image], timeoutMinutes: 60, prepare: debianTests },
    { name: 'CPython against native Linux', in: ['long'], command: node, args: ['scripts/daemon.ts', node, 'conformance/python.ts', '--rootfs', SERVICES.rootfs, '--image', SERVICES.image], timeoutMinutes: 90, prepare: debianTests },
  ]
}
