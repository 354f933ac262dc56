/** `recompiler build`: root file system → image.erofs + megabinary + signed manifest in an OCI layout. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { isX86Elf } from './elf.ts'
import { writeErofs } from './erofs.ts'
import { PREDICATE_TYPE, sign, signingKey, type Manifest, type Policy, type Program } from './manifest.ts'
import { addBytes, addFile, createLayout, hashFile, MEDIA, writeIndex } from './oci.ts'
import { Progress } from './progress.ts'
import { writeTar } from './tar.ts'
import { BuildError, entries, head, type Inode } from './tree.ts'

const native = join(import.meta.dirname, '../../native/target/release')

export interface BuildOptions {
  readonly out: string
  readonly policy: Policy
  readonly config: Manifest['predicate']['config']
  /** Reuses translations; none: no cache. */
  readonly cache?: string
  /** Interpret everything: a build in seconds, for tests of everything but speed. */
  readonly translate: boolean
}

export interface BuildResult { readonly digest: string; readonly programs: number; readonly elfs: number; readonly refused: readonly string[] }

interface Found { path: string; node: Inode; sha256: string; kind: 'elf' | 'script' }

/** Every ELF file and every executable script, with its digest. */
function findPrograms(root: Inode, progress: Progress): Found[] {
  const found: Found[] = []
  const digests = new Map<Inode, string>()
  const all = [...entries(root)].filter((e) => e.node.source)
  progress.stage('hash', all.length)
  for (const { path, node } of all) {
    progress.step()
    const start = head(node, 64)
    const kind = isX86Elf(start) ? 'elf' : start.toString('latin1', 0, 2) === '#!' && node.mode & 0o111 ? 'script' : undefined
    if (!kind) continue
    let sha256 = digests.get(node)
    if (!sha256) {
      sha256 = hashFile(node.source!.path)
      digests.set(node, sha256)
    }
    found.push({ path, node, sha256, kind })
  }
  return found
}

export function build(root: Inode, options: BuildOptions): BuildResult {
  const progress = new Progress()
  const out = resolve(options.out)
  createLayout(out)
  const temp = mkdtempSync(join(dirname(out), '.build-'))
  try {
    const found = findPrograms(root, progress)
    progress.stage('image.erofs', 1)
    const erofs = join(temp, 'image.erofs')
    const nids = writeErofs(root, erofs)
    progress.step()

    const bySha = new Map<string, { path: string; nids: Set<number> }>()
    for (const f of found.filter((f) => f.kind === 'elf')) {
      const e = bySha.get(f.sha256) ?? { path: f.node.source!.path, nids: new Set() }
      e.nids.add(nids.get(f.node)!)
      bySha.set(f.sha256, e)
    }
    const mega = join(temp, 'megabinary')
    const refused = translate(bySha, mega, temp, options, progress)
    const programs: Program[] = found
      .filter((f) => !refused.has(f.sha256))
      .map((f) => ({ path: f.path, sha256: f.sha256, kind: f.kind, nid: nids.get(f.node)! }))

    progress.stage('image', 3)
    const erofsBlob = addFile(out, erofs, MEDIA.erofs)
    progress.step()
    const megaBlob = addFile(out, mega, MEDIA.megabinary)
    progress.step()
    const manifest: Manifest = {
      _type: 'https://in-toto.io/Statement/v1',
      subject: [
        { name: 'image.erofs', digest: { sha256: erofsBlob.digest.slice(7) } },
        { name: 'megabinary', digest: { sha256: megaBlob.digest.slice(7) } },
        ...programs.map((p) => ({ name: p.path, digest: { sha256: p.sha256 } })),
      ],
      predicateType: PREDICATE_TYPE,
      predicate: { abi: 1, target: 'x86_64-linux', version: 1, policy: options.policy, programs, config: options.config },
    }
    const manifestBlob = addBytes(out, Buffer.from(JSON.stringify(sign(manifest, signingKey()))), MEDIA.manifest)
    const digest = writeOci(out, temp, root, options, { erofs: erofsBlob.digest, megabinary: megaBlob.digest, manifest: manifestBlob.digest })
    progress.step()
    progress.end()
    return { digest, programs: programs.length, elfs: bySha.size, refused: [...refused.values()] }
  } finally {
    rmSync(temp, { recursive: true, force: true })
  }
}

/** Runs the recompiler over all ELF files; returns what it refused, by digest, with the reason. */
function translate(bySha: Map<string, { path: string; nids: Set<number> }>, out: string, temp: string, options: BuildOptions, progress: Progress): Map<string, string> {
  const plan = join(temp, 'plan.json')
  if (options.cache) mkdirSync(options.cache, { recursive: true })
  const elfs = [...bySha].sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([sha256, e]) => ({ path: e.path, sha256, nids: [...e.nids].sort((a, b) => a - b) }))
  writeFileSync(plan, JSON.stringify({ out, cache: options.cache ?? null, translate: options.translate, elfs }))
  progress.stage('translate', elfs.length)
  const r = spawnSync(join(native, 'vkernel-recompiler'), ['batch', plan], { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8', maxBuffer: 1 << 28 })
  if (r.error) throw new BuildError(`cannot start the recompiler: ${r.error.message}; run \`npm run build\``)
  if (r.status !== 0) throw new BuildError(`the recompiler failed (${r.signal ?? r.status})`)
  const refused = new Map<string, string>()
  for (const line of r.stdout.split('\n').filter(Boolean)) {
    const event = JSON.parse(line) as { refused?: string; sha256?: string; path?: string; reason?: string }
    if (event.refused) refused.set(event.refused, `${event.path}: ${event.reason}`)
  }
  return refused
}

/** The ordinary image around the parts: config, one data layer, annotations. */
function writeOci(out: string, temp: string, root: Inode, options: BuildOptions, parts: Record<'erofs' | 'megabinary' | 'manifest', string>): string {
  const layer = join(temp, 'layer.tar')
  writeTar(root, layer)
  const diffId = `sha256:${hashFile(layer)}`
  const blob = addFile(out, layer, 'application/vnd.oci.image.layer.v1.tar')
  const c = options.config
  const config = addBytes(out, Buffer.from(JSON.stringify({
    architecture: 'amd64', os: 'linux',
    config: { Env: c.env, Cmd: c.cmd, Entrypoint: c.entrypoint, WorkingDir: c.cwd, User: c.user },
    rootfs: { type: 'layers', diff_ids: [diffId] },
  })), 'application/vnd.oci.image.config.v1+json')
  const manifest = addBytes(out, Buffer.from(JSON.stringify({
    schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json', config, layers: [blob],
    annotations: Object.fromEntries(Object.entries(parts).map(([k, v]) => [`io.recompiler.${k}`, v])),
  })), 'application/vnd.oci.image.manifest.v1+json')
  writeIndex(out, manifest)
  return manifest.digest
}
