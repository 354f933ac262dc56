/**
 * Checks an image offline, from the signature outwards: the manifest by a trusted key, each part by
 * the manifest, the ordinary image (configuration, layer) by what the parts say. The layer and the
 * configuration are not signed themselves, so they are compared with what is.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { ErofsReader } from './erofs-reader.ts'
import { checkLayer } from './layer-check.ts'
import { open, trustedKeys, type Manifest } from './manifest.ts'
import { checkMegabinary, hashNative, readMegabinary } from './megabinary.ts'
import { blobPath, hashFile, indexOf, LAYOUT, ociConfig, openLayout, type Descriptor } from './oci.ts'
import { BuildError, hashExtent } from './tree.ts'

export interface Check {
  readonly part: string
  readonly ok: boolean
  /** SHA-256, hex, of what was found. */
  readonly digest?: string
  readonly why?: string
}

/** The verified manifest of a layout, or the failed check. */
export function openManifest(dir: string): Manifest | Check {
  const { manifest } = openLayout(dir)
  if (!existsSync(manifest.path)) return { part: 'manifest', ok: false, why: 'the blob is missing' }
  const m = open(readFileSync(manifest.path), trustedKeys())
  return typeof m === 'string' ? { part: 'manifest', ok: false, why: m } : m
}

const message = (e: unknown): string => (e as Error).message

/** A file against the digest that names it. */
function fileCheck(part: string, path: string, expected: string | undefined, by: string): Check {
  if (!statSync(path, { throwIfNoEntry: false })?.isFile()) return { part, ok: false, why: 'the blob is missing' }
  const digest = hashFile(path)
  return digest === expected ? { part, ok: true, digest } : { part, ok: false, digest, why: expected ? `${by} says sha256:${expected}` : `${by} does not name it` }
}

/** The ELF files and scripts in image.erofs against the manifest. One check when all fit, else one for each that does not. */
function programChecks(erofs: string, m: Manifest): Check[] {
  const failed: Check[] = []
  let reader: ErofsReader
  try {
    reader = new ErofsReader(erofs)
  } catch (e) {
    return [{ part: 'programs in image.erofs', ok: false, why: message(e) }]
  }
  const seen = new Map<number, string>()
  for (const p of m.predicate.programs) {
    const part = `${p.path} in image.erofs`
    try {
      const { node } = reader.inode(p.nid)
      if (!node.source) throw new BuildError('its inode is no regular file')
      const digest = seen.get(p.nid) ?? hashExtent(node.source)
      seen.set(p.nid, digest)
      if (digest !== p.sha256) failed.push({ part, ok: false, digest, why: `the manifest says sha256:${p.sha256}` })
    } catch (e) {
      failed.push({ part, ok: false, why: message(e) })
    }
  }
  return failed.length ? failed : [{ part: `${m.predicate.programs.length} programs in image.erofs`, ok: true }]
}

/** The megabinary's tables among themselves, and each ELF's translation against the manifest. */
function nativeChecks(path: string, m: Manifest): Check[] {
  try {
    const mega = readMegabinary(path)
    const problems = checkMegabinary(mega)
    if (mega.abiVersion !== m.predicate.abi) problems.push(`it is of version ${mega.abiVersion}, the manifest says ${m.predicate.abi}`)
    const checks: Check[] = problems.map((why) => ({ part: 'megabinary index', ok: false, why }))
    if (checks.length) return checks
    const { native, programs } = m.predicate
    const name = (sha256: string): string => `native code of ${programs.find((p) => p.sha256 === sha256)?.path ?? sha256}`
    for (const e of mega.entries) {
      const digest = hashNative(mega, e)
      const expected = native?.[e.sha256]
      if (digest !== expected) checks.push({ part: name(e.sha256), ok: false, digest, why: expected ? `the manifest says sha256:${expected}` : 'the manifest does not name it' })
    }
    const there = new Map(mega.entries.map((e, n) => [e.sha256, n]))
    for (const p of programs) {
      if (p.kind === 'elf' && (there.get(p.sha256) === undefined || mega.nids.get(p.nid) !== there.get(p.sha256))) checks.push({ part: name(p.sha256), ok: false, why: 'the megabinary does not hold it' })
    }
    return checks.length ? checks : [{ part: 'megabinary index', ok: true }, { part: `native code of ${mega.entries.length} ELF files`, ok: true }]
  } catch (e) {
    return [{ part: 'megabinary index', ok: false, why: message(e) }]
  }
}

interface ImageManifest { config?: Descriptor; layers?: Descriptor[]; annotations?: Record<string, string> }

/** The ordinary image: every blob by its digest and size, and nothing else in the layout. */
function layoutChecks(dir: string): { checks: Check[]; image?: ImageManifest } {
  const checks: Check[] = []
  const layout = join(dir, 'oci-layout')
  const same = existsSync(layout) && readFileSync(layout, 'utf8') === LAYOUT
  checks.push({ part: 'oci-layout', ok: same, ...(same ? {} : { why: `it is not ${LAYOUT}` }) })
  const text = readFileSync(join(dir, 'index.json'), 'utf8')
  const index = JSON.parse(text) as { manifests: Descriptor[] }
  const ref = index.manifests[0]?.annotations?.['org.opencontainers.image.ref.name']
  const asWritten = index.manifests[0] && typeof ref === 'string' && text === indexOf(index.manifests[0], ref)
  checks.push({ part: 'index', ok: asWritten === true, ...(asWritten ? {} : { why: 'index.json is not as the build wrote it' }) })
  const blob = (part: string, d: Descriptor | undefined): boolean => {
    const named = typeof d?.digest === 'string' && /^sha256:[0-9a-f]{64}$/.test(d.digest)
    const path = named ? blobPath(dir, d.digest) : ''
    const check = named ? fileCheck(part, path, d.digest.slice(7), 'its name') : { part, ok: false, why: 'no digest names it' }
    const size = statSync(path, { throwIfNoEntry: false })?.size
    checks.push(check.ok && size !== d?.size ? { part, ok: false, ...(check.digest ? { digest: check.digest } : {}), why: `it has ${size} bytes, its descriptor says ${d?.size}` } : check)
    return check.ok
  }
  const d = index.manifests[0]
  if (!blob('image manifest', d)) return { checks }
  const image = JSON.parse(readFileSync(blobPath(dir, d!.digest), 'utf8')) as ImageManifest
  blob('config', image.config)
  for (const [n, l] of (image.layers ?? []).entries()) blob(image.layers!.length === 1 ? 'layer' : `layer ${n + 1}`, l)
  const named = new Set([d?.digest, image.config?.digest, ...(image.layers ?? []).map((l) => l.digest), ...Object.values(image.annotations ?? {})])
  const extra = readdirSync(join(dir, 'blobs/sha256')).filter((f) => !named.has(`sha256:${f}`))
  if (extra.length) checks.push({ part: 'layout', ok: false, why: `${extra.length} blobs belong to nothing: ${extra.slice(0, 3).join(', ')}` })
  return { checks, image }
}

/** Configuration and layer against the signed manifest and image.erofs. */
function contentChecks(dir: string, m: Manifest, image: ImageManifest, manifestDigest: string): Check[] {
  const config = readFileSync(blobPath(dir, image.config!.digest), 'utf8')
  const layer = image.layers!.length === 1 ? image.layers![0]! : undefined
  if (!layer) return [{ part: 'layer', ok: false, why: `there are ${image.layers!.length} layers, not one` }]
  const expected = JSON.stringify(ociConfig(m.predicate.config, [layer.digest]))
  const why = checkLayer(blobPath(dir, layer.digest), new ErofsReader(openLayout(dir).erofs.path).tree(), m, manifestDigest)
  return [
    { part: 'config as signed', ok: config === expected, ...(config === expected ? {} : { why: 'it is not what the signed manifest says' }) },
    { part: 'layer against image.erofs', ok: why === undefined, ...(why === undefined ? {} : { why }) },
  ]
}

/** Every check, in order; a part that fails says why. */
export function verify(dir: string): Check[] {
  let parts: ReturnType<typeof openLayout>
  let outer: ReturnType<typeof layoutChecks>
  try {
    parts = openLayout(dir)
    outer = layoutChecks(dir)
  } catch (e) {
    return [{ part: e instanceof BuildError && /index/.test(e.message) ? 'index' : 'image manifest', ok: false, why: message(e) }]
  }
  const checks = [...outer.checks]
  const named = fileCheck('manifest blob', parts.manifest.path, parts.manifest.digest, 'its name')
  const m = openManifest(dir)
  if (!named.ok) checks.push(named)
  if ('ok' in m) return [...checks, m]
  checks.push({ part: 'manifest signature', ok: true, digest: parts.manifest.digest })
  const subject = (name: string): string | undefined => m.subject.find((s) => s.name === name)?.digest.sha256
  const erofs = fileCheck('image.erofs', parts.erofs.path, subject('image.erofs'), 'the manifest')
  const mega = fileCheck('megabinary', parts.megabinary.path, subject('megabinary'), 'the manifest')
  checks.push(erofs)
  if (erofs.digest) checks.push(...programChecks(parts.erofs.path, m))
  checks.push(mega)
  if (mega.digest) checks.push(...nativeChecks(parts.megabinary.path, m))
  // What is compared must be sound first.
  if (outer.image && erofs.ok && outer.checks.every((c) => c.ok)) {
    try {
      checks.push(...contentChecks(dir, m, outer.image, parts.manifest.digest))
    } catch (e) {
      checks.push({ part: 'layer against image.erofs', ok: false, why: message(e) })
    }
  }
  return checks
}
