/**
 * Stubs: in the ordinary image around a recompiled one, each executable is native/stub and a trailer
 * that says what it stands for. Whoever runs the image elsewhere (runc, docker) so reaches the vkernel
 * daemon, not the program itself.
 *
 *   path, path_len bytes · manifest digest, 32 · executable's digest, 32 · path_len u32 · version u32 · "VKSTUB01"
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { BuildError } from './tree.ts'

export const STUB = join(import.meta.dirname, '../../native/target/release/vkernel-stub')
const MAGIC = Buffer.from('VKSTUB01'), VERSION = 1, TAIL = 80

/** The program that all stubs are, without a trailer. */
export function readStub(file = STUB): Buffer {
  if (!existsSync(file)) throw new BuildError(`${file} is missing; run \`npm run build\`, or build with --no-stubs`)
  return readFileSync(file)
}

/** What stands for the executable `path`. Digests are SHA-256, hex. */
export function stubFor(body: Buffer, path: string, manifestDigest: string, sha256: string): Buffer {
  const name = Buffer.from(path, 'latin1')
  if (name.length > 4096) throw new BuildError(`${path}: the path is too long for a stub`)
  const numbers = Buffer.alloc(8)
  numbers.writeUInt32LE(name.length)
  numbers.writeUInt32LE(VERSION, 4)
  const tail = Buffer.concat([Buffer.from(manifestDigest, 'hex'), Buffer.from(sha256, 'hex'), numbers, MAGIC])
  if (tail.length !== TAIL) throw new Error('a digest of a stub is no SHA-256')
  return Buffer.concat([body, name, tail])
}
