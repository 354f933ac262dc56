/** Compares the ordinary image's layer with image.erofs, which the manifest signs. */
import { statSync } from 'node:fs'
import { applyLayer, Budget, emptyRoot } from './layers.ts'
import type { Manifest } from './manifest.ts'
import { entries, hashExtent, type Inode } from './tree.ts'

/** How an inode differs from the signed one, or undefined. Data is compared by `sameData`. */
function difference(a: Inode, b: Inode): string | undefined {
  if (a.kind !== b.kind) return `is a ${a.kind}, not a ${b.kind}`
  for (const key of ['mode', 'uid', 'gid', 'mtime', 'rdev'] as const) {
    if (a[key] !== b[key]) return `has ${key} ${a[key]}, not ${b[key]}`
  }
  if (a.target && !a.target.equals(b.target!)) return `points to ${a.target.toString()}, not ${b.target!.toString()}`
  return undefined
}

/** What is wrong with the layer, or undefined. */
export function checkLayer(layer: string, signed: Inode, _manifest: Manifest, _manifestDigest: string): string | undefined {
  const root = emptyRoot()
  applyLayer(root, { path: layer, off: 0, size: statSync(layer).size }, 'the layer', new Budget())
  const expected = new Map([...entries(signed)].filter((e) => e.node.kind !== 'socket').map((e) => [e.path, e.node]))
  const compared = new Set<Inode>()
  for (const { path, node } of entries(root)) {
    const other = expected.get(path)
    if (!other) return `${path} is not in image.erofs`
    expected.delete(path)
    const why = difference(node, other)
    if (why) return `${path} ${why}`
    if (node.source && !compared.has(node)) {
      compared.add(node)
      if (node.source.size !== other.source!.size || hashExtent(node.source) !== hashExtent(other.source!)) return `${path} has other bytes than in image.erofs`
    }
  }
  const [missing] = expected.keys()
  return missing === undefined ? undefined : `${missing} is missing`
}
