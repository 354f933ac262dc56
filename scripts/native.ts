/**
 * The native half: each crate that ends as a program or an addon, built on its own when its sources
 * have changed.
 *
 * One cargo invocation per package, always: Cargo unites the features of everything that one
 * invocation builds, and `vkernel-recompiler` turns on the compiler in `vkernel-engine`. Built
 * together, the loader would contain Cranelift (scripts/loader-symbols.test.ts looks).
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, lstatSync, mkdirSync, readFileSync, readlinkSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { digestOf, isDone, markDone, root, type Work } from './stamp.ts'
import { fail, find, must, need } from './system.ts'

/** The Rust release this is built and tested with; older ones are not tried. */
const RUST = '1.95'

interface Crate {
  /** Its folder under native/; the package is `vkernel-` and this. */
  readonly folder: string
  /** What cargo leaves, relative to the checkout. */
  readonly product: string
  /** Where a copy is kept, when cargo's name does not do. */
  readonly copy?: string
}

const RELEASE = 'native/target/release'
export const crates: readonly Crate[] = [
  { folder: 'seccomp-notify', product: `${RELEASE}/libvkernel_seccomp_notify.so`, copy: 'build/addon.node' },
  { folder: 'client', product: `${RELEASE}/recompiler` },
  { folder: 'stub', product: `${RELEASE}/vkernel-stub` },
  { folder: 'loader', product: `${RELEASE}/vkernel-loader` },
  { folder: 'recompiler', product: `${RELEASE}/vkernel-recompiler` },
]

/** The folder and those of the workspace crates it depends on. */
function closure(folder: string, seen = new Set<string>()): Set<string> {
  if (seen.has(folder)) return seen
  seen.add(folder)
  const manifest = readFileSync(join(root, 'native', folder, 'Cargo.toml'), 'utf8')
  for (const m of manifest.matchAll(/^vkernel-([a-z-]+)(?:\.workspace)?\s*=/gm)) closure(m[1]!, seen)
  return seen
}

function workOf(crate: Crate): Work {
  return {
    name: `native-${crate.folder}`,
    inputs: digestOf(['native/Cargo.toml', 'native/Cargo.lock', ...[...closure(crate.folder)].sort().map((f) => `native/${f}`)]),
    products: [crate.product, ...(crate.copy ? [crate.copy] : [])],
  }
}

function checkToolchain(): void {
  const cargo = find('cargo')
  if (!cargo) fail(`cargo is not on PATH; the native parts need Rust ${RUST} or later`, 'install Rust (rustup.rs, or your distribution\'s rustup package), open a new shell, and run the command again')
  const version = /cargo (\d+)\.(\d+)/.exec(spawnSync(cargo, ['--version'], { encoding: 'utf8', cwd: root }).stdout ?? '')
  const [major, minor] = RUST.split('.').map(Number)
  if (!version) fail('`cargo --version` says nothing: no Rust toolchain is chosen', `rustup default ${RUST}`)
  if (Number(version[1]) === major && Number(version[2]) < minor!) fail(`cargo is ${version[1]}.${version[2]}; Rust ${RUST} or later is needed`, `rustup toolchain install ${RUST} && rustup default ${RUST}`)
  const noLinker = need({ cc: 'gcc' })
  if (noLinker) fail(`a C compiler is needed to link Rust programs; ${noLinker}`, 'install it and run the command again')
}

/** A link at bin/`name` to `target`, made when it is not there or points elsewhere. */
function link(name: string, target: string): void {
  const at = join(root, 'bin', name)
  const there = lstatSync(at, { throwIfNoEntry: false })
  if (there?.isSymbolicLink() && readlinkSync(at) === target) return
  rmSync(at, { force: true })
  symlinkSync(target, at)
}

const LAUNCHER = `#!/bin/sh
# Starts the vkernel daemon. Written by scripts/native.ts.
root=$(dirname "$(dirname "$(readlink -f "$0")")")
exec "$root/node_modules/.bin/node" "$root/src/daemon/main.ts" "$@"
`

function makeBin(): void {
  mkdirSync(join(root, 'bin'), { recursive: true })
  link('recompiler', `../${RELEASE}/recompiler`)
  const vkernel = join(root, 'bin/vkernel')
  let old = ''
  try { old = readFileSync(vkernel, 'utf8') } catch { /* not there yet */ }
  if (old === LAUNCHER) return
  writeFileSync(vkernel, LAUNCHER)
  chmodSync(vkernel, 0o755)
}

/** Builds what has changed, and makes bin/. */
export function buildNative(): void {
  const due = crates.map((crate) => ({ crate, work: workOf(crate) })).filter(({ work }) => !isDone(work))
  if (due.length) checkToolchain()
  for (const [n, { crate, work }] of due.entries()) {
    must(`building native/${crate.folder} (${n + 1} of ${due.length})`, 'cargo',
      ['build', '--release', '--locked', '-p', `vkernel-${crate.folder}`], join(root, 'native'))
    if (crate.copy) {
      // A rename, so that a process which has the old file mapped keeps it.
      const fresh = join(root, `${crate.copy}.new`)
      mkdirSync(join(root, 'build'), { recursive: true })
      copyFileSync(join(root, crate.product), fresh)
      renameSync(fresh, join(root, crate.copy))
    }
    markDone(work)
  }
  makeBin()
}
