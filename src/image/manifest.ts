/**
 * The signed manifest: an in-toto Statement (subjects: the artefacts and every approved program,
 * with digests) in a DSSE envelope, Ed25519 over the pre-authentication encoding.
 * The bytes that were verified are the bytes that are parsed.
 */
import sodium from 'libsodium-wrappers'
import { existsSync, linkSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Policy } from '../policy/policy.ts'
import { BuildError } from './tree.ts'

await sodium.ready

export const PAYLOAD_TYPE = 'application/vnd.in-toto+json'
export const PREDICATE_TYPE = 'https://recompiler.io/manifest/v1'

/** An executable of the image. */
export interface Program {
  readonly path: string
  readonly sha256: string
  readonly kind: 'elf' | 'script'
  readonly nid: number
}

/** What a container starts with when nothing else is asked for. */
export interface Config {
  readonly env: readonly string[]
  readonly cwd: string
  readonly user: string
  readonly cmd: readonly string[]
  readonly entrypoint: readonly string[]
}

export interface Manifest {
  readonly _type: 'https://in-toto.io/Statement/v1'
  readonly subject: readonly { readonly name: string; readonly digest: { readonly sha256: string } }[]
  readonly predicateType: typeof PREDICATE_TYPE
  readonly predicate: {
    readonly abi: number
    readonly target: 'x86_64-linux'
    /** Grows with every build of one name: an older one can be refused. */
    readonly version: number
    readonly policy: Policy
    readonly programs: readonly Program[]
    readonly config: Config
    /** By an ELF's SHA-256: SHA-256 of its dispatch map and native code in the megabinary (hashNative). */
    readonly native: Readonly<Record<string, string>>
    /** What stands for executables in the image's layer: SHA-256 of the stub itself, and where they are. */
    readonly stub?: { readonly sha256: string; readonly paths: readonly string[] }
  }
}

export interface Envelope {
  readonly payloadType: string
  readonly payload: string
  readonly signatures: readonly { readonly keyid: string; readonly sig: string }[]
}

export interface KeyPair { readonly publicKey: Uint8Array; readonly privateKey: Uint8Array }

const pae = (type: string, payload: Buffer): Buffer =>
  Buffer.concat([Buffer.from(`DSSEv1 ${Buffer.byteLength(type)} ${type} ${payload.length} `), payload])

export const keyId = (publicKey: Uint8Array): string =>
  sodium.to_hex(sodium.crypto_generichash(16, publicKey, null))

export function sign(manifest: Manifest, key: KeyPair): Envelope {
  const payload = Buffer.from(JSON.stringify(manifest))
  const sig = sodium.crypto_sign_detached(pae(PAYLOAD_TYPE, payload), key.privateKey)
  return {
    payloadType: PAYLOAD_TYPE,
    payload: payload.toString('base64'),
    signatures: [{ keyid: keyId(key.publicKey), sig: Buffer.from(sig).toString('base64') }],
  }
}

/** The manifest in `bytes`, if one of `trusted` signed it; otherwise why not. */
export function open(bytes: Buffer, trusted: readonly Uint8Array[]): Manifest | string {
  let envelope: Envelope | null
  try {
    envelope = JSON.parse(bytes.toString('utf8')) as Envelope | null
  } catch {
    return 'the envelope is not JSON'
  }
  if (envelope?.payloadType !== PAYLOAD_TYPE || typeof envelope.payload !== 'string' || !Array.isArray(envelope.signatures)) {
    return 'the envelope is not a DSSE envelope of an in-toto statement'
  }
  const payload = Buffer.from(envelope.payload, 'base64')
  if (payload.toString('base64') !== envelope.payload) return 'the payload is not canonical base64'
  const message = pae(PAYLOAD_TYPE, payload)
  const signatures: Envelope['signatures'] = envelope.signatures
  const good = signatures.some((s) => trusted.some((key) => {
    try {
      return keyId(key) === s.keyid && sodium.crypto_sign_verify_detached(Buffer.from(s.sig, 'base64'), message, key)
    } catch {
      return false
    }
  }))
  if (!good) return 'no trusted key has signed it'
  const manifest = JSON.parse(payload.toString('utf8')) as Manifest
  if (manifest.predicateType !== PREDICATE_TYPE) return `its predicate is ${manifest.predicateType}, not ${PREDICATE_TYPE}`
  return manifest
}

/** What an envelope says, whoever signed it: to show, never to act on. */
export function peek(bytes: Buffer): { manifest: Manifest; keyids: string[] } {
  try {
    const envelope = JSON.parse(bytes.toString('utf8')) as Envelope
    const manifest = JSON.parse(Buffer.from(envelope.payload, 'base64').toString('utf8')) as Manifest
    if (!Array.isArray(manifest.predicate.programs)) throw new TypeError('no programs')
    return { manifest, keyids: envelope.signatures.map((s) => String(s.keyid)) }
  } catch {
    throw new BuildError('the manifest cannot be read; `recompiler verify` says which part of the image is wrong')
  }
}

/** Where keys live: $VKERNEL_KEYS, or the user's configuration directory. */
export const keyDirectory = (): string =>
  process.env['VKERNEL_KEYS'] ?? join(process.env['XDG_CONFIG_HOME'] ?? join(homedir(), '.config'), 'vkernel', 'keys')

/** A key of `size` bytes in a file's text. */
function fromHex(text: string, size: number): Uint8Array | undefined {
  const hex = text.trim()
  return hex.length === 2 * size && /^[0-9a-f]*$/.test(hex) ? sodium.from_hex(hex) : undefined
}

/** The signing key, made on first use. */
export function signingKey(dir = keyDirectory()): KeyPair {
  const file = join(dir, 'default.key')
  if (!existsSync(file)) {
    const pair = sodium.crypto_sign_keypair()
    // The keys' own folder is private, not those it is in.
    mkdirSync(dirname(dir), { recursive: true })
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    writeFileSync(join(dir, 'default.pub'), sodium.to_hex(pair.publicKey) + '\n')
    const fresh = `${file}.${process.pid}`
    writeFileSync(fresh, sodium.to_hex(pair.privateKey) + '\n', { mode: 0o600 })
    // Of two first builds at once, one makes the key and the other takes it.
    try {
      linkSync(fresh, file)
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code !== 'EEXIST') throw e
    } finally {
      rmSync(fresh, { force: true })
    }
  }
  const privateKey = fromHex(readFileSync(file, 'utf8'), 64)
  if (!privateKey) throw new BuildError(`${file} is no signing key; move it away and a new one is made`)
  const publicKey = privateKey.slice(32)
  // A .pub that is gone, or another's, would make images that this host does not start.
  const pub = join(dir, 'default.pub'), text = sodium.to_hex(publicKey) + '\n'
  if (!existsSync(pub) || readFileSync(pub, 'utf8') !== text) writeFileSync(pub, text)
  return { privateKey, publicKey }
}

/** Every `*.pub` in the key directory; what is no key trusts nobody. */
export function trustedKeys(dir = keyDirectory()): Uint8Array[] {
  if (!existsSync(dir)) return []
  return readdirSync(dir).filter((f) => f.endsWith('.pub')).sort().flatMap((f) => fromHex(readFileSync(join(dir, f), 'utf8'), 32) ?? [])
}
