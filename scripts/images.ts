/** The images that scripts build under build/images: made again when what they are made from changes. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { keyDirectory } from '../src/image/manifest.ts'
import { digestOf, isDone, markDone, root, type Work } from './stamp.ts'
import { say } from './system.ts'

/**
 * Builds build/images/`name` with `recompiler build ARGS`, unless it is there and was made from the
 * same `facts`, by the same recompiler, and signed with the key that signs now. Returns its path;
 * throws when the build fails, which has said why on stderr.
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
  say(what)
  const r = spawnSync(join(root, 'bin/recompiler'), ['build', '-o', image, ...args], { cwd: root, stdio: 'inherit' })
  if (r.status !== 0) throw new Error(`build/images/${name} cannot be built: recompiler build ${r.error?.message ?? `ended with ${r.signal ?? r.status}`}`)
  markDone(work())
  return image
}
