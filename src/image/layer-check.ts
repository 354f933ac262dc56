/** Compares the ordinary image's layer with image.erofs, which the manifest signs. */
import { statSync } from 'node:fs'
import { applyLayer, Budget, emptyRoot } from './layers.ts'
import type { Manifest } from './manifest.ts'
import { stubFor } from './stub.ts'
import { entries, hashExtent, readExtent, type Extent, type Inode } from './tree.ts'

/** How an inode differs from the signed one, or undefined. Data is compared by `sameData`. */
function difference(a: Inode, b: Inode): string | undefined {
  if (a.kind !== b.kind) return `is a ${a.kind}, not a ${b.kind}`
  for (const key of ['mode', 'uid', 'gid', 'mtime', 'rdev'] as const) {
    if (a[key] !== b[key]) return `has ${key} ${a[key]}, not ${b[key]}`
  }
  if (a.target && !a.target.equals(b.target!)) return `points to ${a.target.toString()}, not ${b.target!.toString()}`
  return undefined
}

/** Whether `file` is the stub that stands for `path`; else what it is. */
function stubDifference(file: Extent, path: string, manifestDigest: string, sha256: string, stub: string): string | undefined {
  const body = file.size - stubFor(Buffer.alloc(0), path, manifestDigest, sha256).length
  if (body <= 0 || hashExtent({ ...file, size: body }) !== stub) return 'is not the stub that the manifest names'
  const tail = readExtent({ ...file, off: file.off + body, size: file.size - body })
  return tail.equals(stubFor(Buffer.alloc(0), path, manifestDigest, sha256)) ? undefined : 'is a stub for something else'
}

/** What is wrong with the layer, or undefined. */
export function checkLayer(layer: string, signed: Inode, manifest: Manifest, manifestDigest: string): string | undefined {
  const root = emptyRoot()
  applyLayer(root, { path: layer, off: 0, size: statSync(layer).size }, 'the layer', new Budget())
  const expected = new Map([...entries(signed)].filter((e) => e.node.kind !== 'socket').map((e) => [e.path, e.node]))
  // Hard links must be the same ones: a name split off could be the executable without its stub.
  const signedOf = new Map<Inode, Inode>(), layerOf = new Map<Inode, Inode>()
  const stubs = new Set(manifest.predicate.stub?.paths)
  for (const { path, node } of entries(root)) {
    const other = expected.get(path)
    if (!other) return `${path} is not in image.erofs`
    expected.delete(path)
    const why = difference(node, other)
    if (why) return `${path} ${why}`
    if ((signedOf.get(node) ?? other) !== other || (layerOf.get(other) ?? node) !== node) return `${path} is not linked as in image.erofs`
    if (!node.source || signedOf.has(node)) continue
    signedOf.set(node, other)
    layerOf.set(other, node)
    if (stubs.has(path)) {
      const why = stubDifference(node.source, path, manifestDigest, hashExtent(other.source!), manifest.predicate.stub!.sha256)
      if (why) return `${path} ${why}`
    } else {
      if (node.source.size !== other.source!.size || hashExtent(node.source) !== hashExtent(other.source!)) return `${path} has other bytes than in image.erofs`
    }
  }
  const [missing] = expected.keys()
  return missing === undefined ? undefined : `${missing} is missing`
}
