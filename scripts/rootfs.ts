/**
 * The root file system that the command lines of conformance/ run in, and the image made from it.
 *
 *   build/rootfs          Debian 12 "minbase" with the packages below, made by mmdebstrap from the
 *                         package sources this host is configured with
 *   build/images/debian   `recompiler build --rootfs build/rootfs`
 *
 * Both are made again only when what they are made from has changed.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeImage } from './images.ts'
import { digestOf, isDone, markDone, markUndone, root, type Work } from './stamp.ts'
import { fail, isRoot, need, say } from './system.ts'

const SUITE = 'bookworm'
const PACKAGES = [
  'bash', 'dash', 'coreutils', 'findutils', 'grep', 'sed', 'gawk', 'busybox-static', 'python3', 'perl', 'sqlite3', 'jq',
  'gzip', 'xz-utils', 'tar', 'file', 'bc', 'git', 'openssl', 'procps',
]

export const ROOTFS = join(root, 'build/rootfs')
export const IMAGE = join(root, 'build/images/debian')

const rootfsWork = (): Work => ({ name: 'rootfs', inputs: digestOf([], [SUITE, ...PACKAGES]), products: ['build/rootfs/etc/debian_version'] })

/** The host's own package sources, when they serve the suite: files for mmdebstrap's MIRROR argument. */
function hostSources(): string[] {
  const dir = '/etc/apt/sources.list.d'
  const files = ['/etc/apt/sources.list', ...(existsSync(dir) ? readdirSync(dir).sort().map((f) => join(dir, f)) : [])]
  return files.filter((f) => /\.(list|sources)$/.test(f) && existsSync(f) && new RegExp(`\\b${SUITE}\\b`).test(readFileSync(f, 'utf8')))
}

/** Makes build/rootfs; returns why it cannot be made here, or undefined. */
export function makeRootfs(): string | undefined {
  // Its files have many owners, some readable by them only.
  if (!isRoot) return 'a Debian root file system is made, read and compared by root: run the tests as root'
  const work = rootfsWork()
  if (isDone(work)) return undefined
  const missing = need({ mmdebstrap: 'mmdebstrap' })
  if (missing) return missing
  say(`making build/rootfs: Debian ${SUITE} with ${PACKAGES.length} packages`)
  markUndone(work)
  mkdirSync(join(root, 'build'), { recursive: true })
  const fresh = `${ROOTFS}.new`
  const log = join(root, 'build/rootfs.log')
  rmSync(fresh, { recursive: true, force: true })
  const r = spawnSync('mmdebstrap', [
    '--variant=minbase', `--include=${PACKAGES.join(',')}`, '--aptopt=APT::Install-Recommends "false"',
    // Device nodes come from the container's own /dev; copying them needs rights that containers lack.
    '--skip=output/dev,output/mknod',
    SUITE, fresh, ...hostSources(),
  ], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 900_000, maxBuffer: 1 << 26, env: { ...process.env, LC_ALL: 'C.UTF-8' } })
  writeFileSync(log, `${r.stdout}${r.stderr}`)
  if (r.status !== 0 || !existsSync(join(fresh, 'etc/debian_version'))) {
    rmSync(fresh, { recursive: true, force: true })
    const last = r.stderr.trim().split('\n').filter((l) => /^E:|error/i.test(l)).at(-1) ?? r.error?.message ?? `status ${r.status}`
    return `mmdebstrap does not work here: ${last} (build/rootfs.log)`
  }
  rmSync(ROOTFS, { recursive: true, force: true })
  renameSync(fresh, ROOTFS)
  markDone(work)
  return undefined
}

/** Makes build/images/debian from build/rootfs, which must be there; returns its path. */
export const makeDebianImage = (): string => makeImage('debian',
  'building build/images/debian (the first translation takes minutes, later ones come from the cache)',
  ['--rootfs', ROOTFS], [digestOf(['build/rootfs.stamp'])])

if (import.meta.main) {
  const why = makeRootfs()
  if (why) fail(why)
  if (process.argv.includes('--image')) makeDebianImage()
}
