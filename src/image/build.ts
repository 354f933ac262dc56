/** `recompiler build`: root file system → image.erofs + megabinary + signed manifest in an OCI layout. */
import { createHash } from 'node:crypto'
import { join, resolve, dirname } from 'node:path'
import type { Policy } from '../policy/policy.ts'
import { writeErofs } from './erofs.ts'
import type { Hints } from './hints.ts'
import { PREDICATE_TYPE, sign, signingKey, type Config, type Manifest, type Program } from './manifest.ts'
import { hashNative, readMegabinary, type Megabinary } from './megabinary.ts'
import { addBytes, addFile, checkOutput, createLayout, hashFile, IMAGE_MANIFEST, MEDIA, ociConfig, publishLayout, writeIndex } from './oci.ts'
import { findPrograms, type Found } from './programs.ts'
import { Progress } from './progress.ts'
import { stubFor } from './stub.ts'
import { writeTar, type Substitute } from './tar.ts'
import { translate, type FileReport, type Totals } from './translate.ts'
import { entries, type Inode } from './tree.ts'
import { withWorkspace } from './workspace.ts'

export interface BuildOptions {
  /** The layout's directory; one that is there is replaced when the build has succeeded. */
  readonly out: string
  readonly policy: Policy
  /** Overrides what the input says. */
  readonly config?: Config
  /** Reuses translations; none: no cache. */
  readonly cache?: string
  /** Interpret everything: a build in seconds, for tests of everything but speed. */
  readonly translate: boolean
  /** Translated code counts the instructions it executes, for profiles. */
  readonly count?: boolean
  /** Addresses that shall be functions as well. */
  readonly hints?: Hints
  /** What executables are in the image's layer (readStub); none: the layer keeps them as they are. */
  readonly stub?: Buffer
  readonly progress?: Progress
}

export interface BuildResult { readonly digest: string; readonly programs: number; readonly elfs: number; readonly totals: Totals; readonly files: readonly FileReport[]; readonly refused: readonly string[] }

/** What is packed: a tree, and what a container of it starts with. */
export interface Input { readonly root: Inode; readonly config: Config }

/** Builds from what `read` makes; it may unpack into the directory it is given, which lives as long as the build. */
export async function build(read: (temp: string, progress: Progress) => Input | Promise<Input>, options: BuildOptions): Promise<BuildResult> {
  const progress = options.progress ?? new Progress()
  const out = resolve(options.out)
  checkOutput(out)
  try {
    return await withWorkspace(dirname(out), async (temp) => {
      const input = await read(temp, progress)
      const layout = join(temp, 'layout')
      createLayout(layout)
      const result = await assemble({ root: input.root, config: options.config ?? input.config }, layout, temp, options, progress)
      publishLayout(layout, out)
      progress.end()
      return result
    })
  } catch (e) {
    progress.abort()
    throw e
  }
}

async function assemble({ root, config }: Input, layout: string, temp: string, options: BuildOptions, progress: Progress): Promise<BuildResult> {
  const { found, foreign } = findPrograms(root, progress)
  progress.stage('image.erofs', dataSize(root), 'bytes')
  const erofs = join(temp, 'image.erofs')
  const nids = writeErofs(root, erofs, (n) => progress.step(n))

  const megaFile = join(temp, 'megabinary')
  const { cache, hints, count } = options
  const { elfs, totals, files, refused } = await translate(found, nids, { out: megaFile, temp, translate: options.translate, progress, ...(cache ? { cache } : {}), ...(hints ? { hints } : {}), ...(count ? { count } : {}) })
  const programs: Program[] = found
    .filter((f) => !refused.has(f.sha256))
    .map((f) => ({ path: f.path, sha256: f.sha256, kind: f.kind, nid: nids.get(f.node)! }))
  const mega = readMegabinary(megaFile)
  const native = Object.fromEntries(mega.entries.map((e) => [e.sha256, hashNative(mega, e)]))

  const { stub } = options
  const executables = stub ? executablesOf(found, mega) : new Map<Inode, Found>()

  progress.stage('image', 3)
  const erofsBlob = addFile(layout, erofs, MEDIA.erofs)
  progress.step()
  const megaBlob = addFile(layout, megaFile, MEDIA.megabinary)
  progress.step()
  const manifest: Manifest = {
    _type: 'https://in-toto.io/Statement/v1',
    subject: [
      { name: 'image.erofs', digest: { sha256: erofsBlob.digest.slice(7) } },
      { name: 'megabinary', digest: { sha256: megaBlob.digest.slice(7) } },
      ...programs.map((p) => ({ name: p.path, digest: { sha256: p.sha256 } })),
    ],
    predicateType: PREDICATE_TYPE,
    predicate: { abi: mega.abiVersion, target: 'x86_64-linux', version: 1, policy: options.policy, programs, config, native,
      ...(stub ? { stub: { sha256: createHash('sha256').update(stub).digest('hex'), paths: [...executables.values()].map((f) => f.path) } } : {}) },
  }
  const manifestBlob = addBytes(layout, Buffer.from(JSON.stringify(sign(manifest, signingKey()))), MEDIA.manifest)
  const substitute = (path: string, node: Inode): Buffer | undefined => {
    const f = executables.get(node)
    return f && stub ? stubFor(stub, path, manifestBlob.digest.slice(7), f.sha256) : undefined
  }
  const digest = writeOci(layout, temp, root, config, substitute, {
    erofs: erofsBlob.digest, megabinary: megaBlob.digest, manifest: manifestBlob.digest,
  })
  progress.step()
  return { digest, programs: programs.length, elfs, totals, files, refused: [...foreign, ...refused.values()] }
}

/** Bytes of all regular files, hard links once. */
function dataSize(root: Inode): number {
  let sum = 0
  for (const node of new Set([...entries(root)].map((e) => e.node))) sum += node.source?.size ?? 0
  return sum
}

/** Programs that are started, not loaded: scripts, and ELF files that are no library. By inode, with their first name. */
function executablesOf(found: readonly Found[], mega: Megabinary): Map<Inode, Found> {
  const libraries = new Set(mega.entries.filter((e) => e.kind === 'lib').map((e) => e.sha256))
  const executables = new Map<Inode, Found>()
  for (const f of found) if (!libraries.has(f.sha256) && !executables.has(f.node)) executables.set(f.node, f)
  return executables
}

/** The ordinary image around the parts: config, one layer, annotations. */
function writeOci(layout: string, temp: string, root: Inode, config: Config, substitute: Substitute, parts: Record<'erofs' | 'megabinary' | 'manifest', string>): string {
  const layer = join(temp, 'layer.tar')
  writeTar(root, layer, substitute)
  const diffId = `sha256:${hashFile(layer)}`
  const blob = addFile(layout, layer, 'application/vnd.oci.image.layer.v1.tar')
  const configBlob = addBytes(layout, Buffer.from(JSON.stringify(ociConfig(config, [diffId]))), 'application/vnd.oci.image.config.v1+json')
  const manifest = addBytes(layout, Buffer.from(JSON.stringify({
    schemaVersion: 2, mediaType: IMAGE_MANIFEST, config: configBlob, layers: [blob],
    annotations: Object.fromEntries(Object.entries(parts).map(([k, v]) => [`io.recompiler.${k}`, v])),
  })), IMAGE_MANIFEST)
  writeIndex(layout, manifest)
  return manifest.digest
}
