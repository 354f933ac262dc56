/** The images that scripts build under build/images: made again when what they are made from changes. */
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { keyDirectory } from '../src/image/manifest.ts'
import { digestOf, isDone, markDone, root, type Work } from './stamp.ts'
import { must } from './system.ts'

/**
 * Builds build/images/`name` with `recompiler build ARGS`, unless it is there and was made from the
 * same `facts`, by the same recompiler, and signed with the key that signs now. Returns its path.
 */
export function makeImage(name: string, what: string, args: readonly string[], facts: readonly string[]): string {
  const image = join(root, 'build/images', name)
  const key = join(keyDirectory(), 'default.pub')
  // The first build makes the key, so this is asked again afterwards.
  const work = (): Work => ({
    name: `image-${name}`,
    inputs: digestOf(['src/image', 'build/native-recompiler.stamp', key], facts),
    products: [`build/images/${name}/index.json`],
  })
  if (existsSync(key) && isDone(work())) return image
  mkdirSync(join(root, 'build/images'), { recursive: true })
  must(what, join(root, 'bin/recompiler'), ['build', '-o', image, ...args])
  markDone(work())
  return image
}
