/**
 * What has changed since the last success. A stamp is a file build/NAME.stamp that holds a digest
 * of the inputs' bytes and the sizes and times of the products; work is skipped while it still fits.
 */
import { createHash, type Hash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'

export const root = join(import.meta.dirname, '..')

/** Adds a file, or a folder's files in name order, to `hash`; what is not there counts as empty. */
function add(hash: Hash, path: string): void {
  const st = statSync(path, { throwIfNoEntry: false })
  if (!st) return
  if (!st.isDirectory()) {
    hash.update(path).update(readFileSync(path))
    return
  }
  for (const name of readdirSync(path).sort()) if (name !== 'target' && name !== 'node_modules') add(hash, join(path, name))
}

/** SHA-256 over files and folders (paths relative to the checkout, or absolute) and over plain texts. */
export function digestOf(paths: readonly string[], texts: readonly string[] = []): string {
  const hash = createHash('sha256')
  for (const path of paths) add(hash, resolve(root, path))
  for (const text of texts) hash.update('\0').update(text)
  return hash.digest('hex')
}

/** Size and time of each product, so that one which something else has replaced is made again. */
function stateOf(products: readonly string[]): string {
  return products.map((p) => {
    const st = statSync(join(root, p), { throwIfNoEntry: false })
    return st ? `${p} ${st.size} ${st.mtimeMs}` : `${p} missing`
  }).join('\n')
}

export interface Work {
  /** The stamp's name. */
  readonly name: string
  /** `digestOf` the inputs. */
  readonly inputs: string
  /** Files and folders that the work leaves. */
  readonly products: readonly string[]
}

const stampFile = (name: string): string => join(root, 'build', `${name}.stamp`)

/** True when `work` has been done with these inputs and its products are as it left them. */
export function isDone(work: Work): boolean {
  let old: string
  try {
    old = readFileSync(stampFile(work.name), 'utf8')
  } catch {
    return false
  }
  const now = stateOf(work.products)
  return !now.includes(' missing') && old === `${work.inputs}\n${now}\n`
}

/** Says that `work` has been done. Its products must be there. */
export function markDone(work: Work): void {
  const file = stampFile(work.name)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, `${work.inputs}\n${stateOf(work.products)}\n`)
}

/** Says that `work` is not done: for work that is about to touch its products. */
export function markUndone(work: Work): void {
  rmSync(stampFile(work.name), { force: true })
}
