/**
 * The root file systems that conformance/ runs in, and the images made from them:
 *
 *   build/rootfs           Debian 12 "minbase" with the packages of `debian` below, made by mmdebstrap
 *   build/images/debian    from the package sources this host is configured with; for `npm test`
 *   build/rootfs-services  the same with services, a compiler and Debian's own tests; large, for
 *   build/images/services  `npm run test:long` alone
 *
 * They are made again only when what they are made from has changed.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeImage } from './images.ts'
import { digestOf, isDone, markDone, markUndone, root, type Work } from './stamp.ts'
import { fail, isRoot, need, say } from './system.ts'

const SUITE = 'bookworm'

export interface RootfsSet {
  readonly name: string
  readonly packages: readonly string[]
  /** Files that packages bring and nothing here runs: what they are translated for is time alone. */
  readonly without: readonly string[]
  readonly rootfs: string
  readonly image: string
}

const set = (name: string, dir: string, packages: readonly string[], without: readonly string[] = []): RootfsSet =>
  ({ name, packages, without, rootfs: join(root, 'build', dir), image: join(root, 'build/images', name) })

export const DEBIAN = set('debian', 'rootfs', [
  'bash', 'dash', 'coreutils', 'findutils', 'grep', 'sed', 'gawk', 'busybox-static', 'python3', 'perl', 'sqlite3', 'jq',
  'gzip', 'xz-utils', 'tar', 'file', 'bc', 'git', 'openssl', 'procps', 'ripgrep', 'fd-find', 'gron', 'fzf',
])

export const SERVICES = set('services', 'rootfs-services', [
  'python3', 'procps', 'redis-server', 'nginx-light', 'apache2-utils', 'postgresql-15', 'openssh-server', 'openssh-client',
  'gcc', 'libc6-dev', 'make', 'python3-venv', 'libpython3.11-testsuite', 'stress-ng',
], [
  // PostgreSQL goes without its compiler where llvmjit.so is not there.
  '/usr/lib/*/libLLVM*', '/usr/lib/llvm-14/*', '/usr/lib/*/libz3.so*', '/usr/lib/postgresql/15/lib/llvmjit.so', '/usr/lib/postgresql/15/lib/bitcode/*',
  '/usr/lib/gcc/*/12/lto1', '/usr/bin/*lto-dump*', '/usr/lib/*/lib?san.so*', '/usr/lib/*/libubsan.so*', '/usr/lib/*/libgprofng.so*', '/usr/bin/*ld.gold',
])

const rootfsWork = (of: RootfsSet): Work => {
  const dir = of.rootfs.slice(root.length + 1)
  return { name: dir.slice('build/'.length), inputs: digestOf([], [SUITE, ...of.packages, ...of.without.map((f) => `-${f}`)]), products: [`${dir}/etc/debian_version`] }
}

/** The host's own package sources, when they serve the suite: files for mmdebstrap's MIRROR argument. */
function hostSources(): string[] {
  const dir = '/etc/apt/sources.list.d'
  const files = ['/etc/apt/sources.list', ...(existsSync(dir) ? readdirSync(dir).sort().map((f) => join(dir, f)) : [])]
  return files.filter((f) => /\.(list|sources)$/.test(f) && existsSync(f) && new RegExp(`\\b${SUITE}\\b`).test(readFileSync(f, 'utf8')))
}

/** Makes a set's root file system; returns why it cannot be made here, or undefined. */
export function makeRootfs(of: RootfsSet = DEBIAN): string | undefined {
  // Its files have many owners, some readable by them only.
  if (!isRoot) return 'a Debian root file system is made, read and compared by root: run the tests as root'
  const work = rootfsWork(of)
  if (isDone(work)) return undefined
  const missing = need({ mmdebstrap: 'mmdebstrap' })
  if (missing) return missing
  say(`making build/${work.name}: Debian ${SUITE} with ${of.packages.length} packages`)
  markUndone(work)
  mkdirSync(join(root, 'build'), { recursive: true })
  const fresh = `${of.rootfs}.new`
  const log = join(root, `build/${work.name}.log`)
  rmSync(fresh, { recursive: true, force: true })
  const r = spawnSync('mmdebstrap', [
    '--variant=minbase', `--include=${of.packages.join(',')}`, '--aptopt=APT::Install-Recommends "false"',
    ...of.without.map((f) => `--dpkgopt=path-exclude=${f}`),
    // Device nodes come from the container's own /dev; copying them needs rights that containers lack.
    '--skip=output/dev,output/mknod',
    SUITE, fresh, ...hostSources(),
  ], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 900_000, maxBuffer: 1 << 26, env: { ...process.env, LC_ALL: 'C.UTF-8' } })
  writeFileSync(log, `${r.stdout}${r.stderr}`)
  if (r.status !== 0 || !existsSync(join(fresh, 'etc/debian_version'))) {
    rmSync(fresh, { recursive: true, force: true })
    const last = r.stderr.trim().split('\n').filter((l) => /^E:|error/i.test(l)).at(-1) ?? r.error?.message ?? `status ${r.status}`
    return `mmdebstrap does not work here: ${last} (build/${work.name}.log)`
  }
  rmSync(of.rootfs, { recursive: true, force: true })
  renameSync(fresh, of.rootfs)
  markDone(work)
  return undefined
}

/** Makes a set's image from its root file system, which must be there; returns its path. */
export const makeRootfsImage = (of: RootfsSet = DEBIAN): string => makeImage(of.name,
  `building build/images/${of.name} (the first translation takes minutes, later ones come from the cache)`,
  ['--rootfs', of.rootfs], [digestOf([`build/${rootfsWork(of).name}.stamp`])])

if (import.meta.main) {
  const of = process.argv.includes('--services') ? SERVICES : DEBIAN
  const why = makeRootfs(of)
  if (why) fail(why)
  if (process.argv.includes('--image')) makeRootfsImage(of)
}
