/** Checks an image's parts against its signed manifest, offline. */
import { existsSync, readFileSync } from 'node:fs'
import { open, trustedKeys, type Manifest } from './manifest.ts'
import { hashFile, openLayout, type Part } from './oci.ts'
import { BuildError } from './tree.ts'

export interface Check { readonly part: string; readonly ok: boolean; readonly digest?: string; readonly why?: string }

/** The verified manifest of a layout, or the failed check. */
export function openManifest(dir: string): Manifest | Check {
  const { manifest } = openLayout(dir)
  if (!existsSync(manifest.path)) return { part: 'manifest', ok: false, why: 'the blob is missing' }
  const m = open(readFileSync(manifest.path), trustedKeys())
  return typeof m === 'string' ? { part: 'manifest', ok: false, why: m } : m
}

/** Every check, in order; a part that fails says why. */
export function verify(dir: string): Check[] {
  let parts: ReturnType<typeof openLayout>
  try {
    parts = openLayout(dir)
  } catch (e) {
    return [{ part: 'layout', ok: false, why: e instanceof BuildError ? e.message : String(e) }]
  }
  const m = openManifest(dir)
  if ('ok' in m) return [m]
  const checks: Check[] = [{ part: 'manifest', ok: true, digest: parts.manifest.digest }]
  const subject = (name: string): string | undefined => m.subject.find((s) => s.name === name)?.digest.sha256
  for (const [part, name] of [['erofs', 'image.erofs'], ['megabinary', 'megabinary']] as [Part, string][]) {
    const path = parts[part].path
    if (!existsSync(path)) {
      checks.push({ part: name, ok: false, why: 'the blob is missing' })
      continue
    }
    const digest = hashFile(path)
    const ok = digest === subject(name)
    checks.push({ part: name, ok, digest, ...(ok ? {} : { why: `the manifest says sha256:${subject(name)}` }) })
  }
  return checks
}
