/** Images of one static C program in a small root file system, for fuzzing and stress. */
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { makeImage } from '../scripts/images.ts'
import { digestOf, root } from '../scripts/stamp.ts'

/** A directory of build/ for what belongs to the program `name`. */
export function workOf(name: string): string {
  const out = join(root, 'build', name)
  mkdirSync(out, { recursive: true })
  return out
}

/**
 * The program and the image with it as /bin/NAME, made when one of the sources has changed. `sources`:
 * C files and headers; `files`: what else is in the root file system, by path.
 * Signed with the keys of TestDaemon.
 */
export function singleProgram(name: string, sources: readonly string[], files: Readonly<Record<string, string>> = {}): { binary: string; image: string } {
  const out = workOf(name), rootfs = join(out, 'rootfs')
  const key = digestOf([...sources, import.meta.filename], [JSON.stringify(files)])
  const binary = join(out, `${name}-${key.slice(0, 16)}`)
  if (!existsSync(binary)) {
    const r = spawnSync('cc', ['-O1', '-static', '-pthread', '-Wall', '-Wextra', '-Werror', '-I', out, '-o', `${binary}.new`, ...sources.filter((f) => f.endsWith('.c'))], { encoding: 'utf8' })
    if (r.status !== 0) throw new Error(`${name} does not compile:\n${r.error?.message ?? r.stderr}`)
    rmSync(rootfs, { recursive: true, force: true })
    for (const dir of ['bin', 'dev', 'proc', 'sys', 'tmp', 'etc']) mkdirSync(join(rootfs, dir), { recursive: true })
    copyFileSync(`${binary}.new`, join(rootfs, 'bin', name))
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(rootfs, path)), { recursive: true })
      writeFileSync(join(rootfs, path), text)
    }
    copyFileSync(`${binary}.new`, binary)
    rmSync(`${binary}.new`)
  }
  process.env['VKERNEL_KEYS'] = join(root, 'build/test-images/keys')
  return { binary, image: makeImage(name, `building the image of ${name}`, ['--rootfs', rootfs], [key]) }
}
