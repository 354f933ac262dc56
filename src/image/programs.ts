/** Which files of an image are programs: ELF files that can be translated, scripts with an interpreter line. */
import { foreign, isX86Elf } from './elf.ts'
import type { Progress } from './progress.ts'
import { entries, hashExtent, head, type Inode } from './tree.ts'

export interface Found { readonly path: string; readonly node: Inode; readonly sha256: string; readonly kind: 'elf' | 'script' }

/** Every ELF file and every executable script, with its digest, in the tree's order; `foreign`: why others cannot run. */
export function findPrograms(root: Inode, progress: Progress): { found: Found[]; foreign: string[] } {
  const found: Found[] = [], others: string[] = []
  const digests = new Map<Inode, string>()
  const all = [...entries(root)].filter((e) => e.node.source)
  progress.stage('hash', all.length)
  for (const { path, node } of all) {
    progress.step()
    const start = head(node, 64)
    const kind = isX86Elf(start) ? 'elf' : start.toString('latin1', 0, 2) === '#!' && node.mode & 0o111 ? 'script' : undefined
    const why = foreign(start)
    if (why) others.push(`${path}: ${why}`)
    if (!kind) continue
    let sha256 = digests.get(node)
    if (!sha256) {
      sha256 = hashExtent(node.source!)
      digests.set(node, sha256)
    }
    found.push({ path, node, sha256, kind })
  }
  return { found, foreign: others }
}
