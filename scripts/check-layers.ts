/**
 * Import direction: a folder of src/ imports only from the folders in its row. In one line,
 * `abi ← syscalls/table ← {fs, net, futex, policy} ← task ← syscalls ← daemon`, with src/native (the
 * addon's types) beside the table, and src/image (build side, and the daemon's reader of images)
 * and src/cli on a branch of their own. Tests may import what they like: nothing imports them.
 *
 *   node scripts/check-layers.ts
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join, normalize } from 'node:path'
import { root } from './stamp.ts'

const BELOW_TASK = ['abi', 'native', 'syscalls/table', 'fs', 'net', 'futex', 'policy']

export const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  abi: [],
  native: ['abi'],
  'syscalls/table': ['abi'],
  fs: ['abi', 'native', 'syscalls/table'],
  futex: ['abi', 'native', 'syscalls/table'],
  // The gate names files; a socket's address is judged by the policy.
  policy: ['abi', 'native', 'syscalls/table', 'fs'],
  net: ['abi', 'native', 'syscalls/table', 'fs', 'policy'],
  // A manifest carries a policy, and a build refuses one that no daemon would take.
  image: ['abi', 'native', 'syscalls/table', 'policy'],
  task: BELOW_TASK,
  syscalls: [...BELOW_TASK, 'task'],
  daemon: [...BELOW_TASK, 'task', 'syscalls', 'image'],
  // Build-side verbs; what it shares with the daemon are places and error texts.
  // The audit log is checked without a daemon.
  cli: ['abi', 'native', 'syscalls/table', 'image', 'policy'],
}

/** The layer of a path relative to src/, or undefined for what has none. */
function layerOf(path: string): string | undefined {
  if (path.startsWith('syscalls/table/')) return 'syscalls/table'
  const top = path.split('/')[0]!
  return path.includes('/') && top in MAY_IMPORT ? top : undefined
}

/** What is wrong with the imports of the file `path` (relative to src/) with the text `text`. */
export function violations(path: string, text: string): string[] {
  const from = layerOf(path)
  if (from === undefined) return [`src/${path} is in no layer: give its folder a row in scripts/check-layers.ts`]
  const wrong: string[] = []
  for (const m of text.matchAll(/\b(?:from|import)\s*\(?\s*'(\.[^']*)'/g)) {
    const to = normalize(join('src', path, '..', m[1]!))
    if (!to.startsWith('src/')) {
      wrong.push(`src/${path} imports ${to}: src/ imports from src/ only`)
      continue
    }
    const layer = layerOf(to.slice(4))
    if (layer === from) continue
    if (layer === undefined || !MAY_IMPORT[from]!.includes(layer)) {
      wrong.push(`src/${path} imports ${to}: ${from} may import ${MAY_IMPORT[from]!.join(', ') || 'nothing'}`)
    }
  }
  return wrong
}

/** All violations in the checkout. */
export function checkLayers(): string[] {
  return readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((f) => f.endsWith('.ts') && !f.endsWith('.test.ts')).sort()
    .flatMap((f) => violations(f, readFileSync(join(root, 'src', f), 'utf8')))
}

if (import.meta.main) {
  const wrong = checkLayers()
  for (const line of wrong) console.error(line)
  console.log(wrong.length ? `${wrong.length} imports against the direction` : 'imports go the right way')
  process.exit(wrong.length ? 1 : 0)
}
