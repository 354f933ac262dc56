/** `recompiler keys`: the key that builds sign with, and the keys whose images this host starts. */
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { keyDirectory, keyId, signingKey, trustedKeys } from '../image/manifest.ts'
import { BuildError } from '../image/tree.ts'
import { args, print } from './output.ts'

const hex = (key: Uint8Array): string => Buffer.from(key).toString('hex')

/** `show` (the default) makes nothing; `generate` makes the signing key; `export` writes its public half. */
export function keysVerb(argv: string[]): number {
  const { values, positionals } = args('keys', { args: argv, allowPositionals: true, options: { json: { type: 'boolean' } } })
  const [what = 'show', file] = positionals
  const directory = keyDirectory()
  const there = existsSync(join(directory, 'default.key'))
  switch (what) {
    case 'show': {
      const own = there ? keyId(signingKey().publicKey) : null
      const trusted = trustedKeys().map((key) => ({ keyid: keyId(key), publicKey: hex(key) }))
      print(values.json, { directory, signing: own, trusted }, () => [
        `directory  ${directory}`,
        `signing    ${own ?? 'none yet; the first build makes one, or `recompiler keys generate`'}`,
        ...trusted.map((k) => `trusted    ${k.keyid}  ${k.publicKey}`),
      ])
      return 0
    }
    case 'generate': {
      if (there) throw new BuildError(`${join(directory, 'default.key')} is there; images signed with it would no longer start. Move it away to make a new one`)
      const id = keyId(signingKey().publicKey)
      print(values.json, { directory, signing: id }, () => [`made ${join(directory, 'default.key')}, key ${id}; keep it secret`])
      return 0
    }
    case 'export': {
      if (!there) throw new BuildError('there is no signing key; `recompiler keys generate` makes one')
      const { publicKey } = signingKey()
      if (file) writeFileSync(file, `${hex(publicKey)}\n`)
      print(values.json, { keyid: keyId(publicKey), publicKey: hex(publicKey), ...(file ? { file } : {}) },
        () => [file ? `wrote ${file}; a host that has it as *.pub in its key directory starts these images` : hex(publicKey)])
      return 0
    }
    default:
      throw new BuildError(`keys: show, generate or export, not ${what}`)
  }
}
