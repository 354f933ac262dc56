import test from 'ava'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { keyId, open, PREDICATE_TYPE, sign, signingKey, trustedKeys, type Envelope, type Manifest } from './manifest.ts'
import { BuildError } from './tree.ts'

const base = mkdtempSync(join(tmpdir(), 'vkernel-manifest-'))
test.after.always(() => rmSync(base, { recursive: true, force: true }))

const manifest: Manifest = {
  _type: 'https://in-toto.io/Statement/v1', subject: [], predicateType: PREDICATE_TYPE,
  predicate: {
    abi: 1, target: 'x86_64-linux', version: 1, policy: { exec: 'path+digest', egress: [] }, programs: [], native: {},
    config: { env: [], cwd: '/', user: '0', cmd: [], entrypoint: [] },
  },
}
const bytes = (e: unknown): Buffer => Buffer.from(JSON.stringify(e))

test('the key is made once, private, and stays', (t) => {
  const dir = join(base, 'made')
  const key = signingKey(dir)
  t.deepEqual(signingKey(dir), key)
  t.is(statSync(join(dir, 'default.key')).mode & 0o777, 0o600)
  t.deepEqual(trustedKeys(dir), [key.publicKey])
  t.deepEqual(sign(manifest, key), sign(manifest, key), 'Ed25519 has no randomness')
})

test('a public half that is gone or another\'s is made again', (t) => {
  const dir = join(base, 'pub')
  const key = signingKey(dir)
  for (const spoil of [() => rmSync(join(dir, 'default.pub')), () => writeFileSync(join(dir, 'default.pub'), '00'.repeat(32))]) {
    spoil()
    signingKey(dir)
    t.deepEqual(trustedKeys(dir), [key.publicKey])
  }
})

test('files that are no keys', (t) => {
  const dir = join(base, 'bad')
  const key = signingKey(dir)
  writeFileSync(join(dir, 'a.pub'), 'not a key')
  writeFileSync(join(dir, 'b.pub'), 'ab')
  t.deepEqual(trustedKeys(dir), [key.publicKey])
  writeFileSync(join(dir, 'default.key'), 'garbage')
  t.throws(() => signingKey(dir), { instanceOf: BuildError, message: /is no signing key/ })
  t.deepEqual(trustedKeys(join(base, 'nowhere')), [])
  t.false(existsSync(join(base, 'nowhere')))
  t.is(readFileSync(join(dir, 'default.key'), 'utf8'), 'garbage', 'nothing is replaced')
})

test('only what a trusted key signed is opened', (t) => {
  const key = signingKey(join(base, 'a')), other = signingKey(join(base, 'b'))
  const good = sign(manifest, key)
  t.deepEqual(open(bytes(good), [other.publicKey, key.publicKey]), manifest)
  t.is(open(bytes(good), [other.publicKey]), 'no trusted key has signed it')
  t.is(open(bytes(good), []), 'no trusted key has signed it')
  const [s] = good.signatures
  const cases: [string, Partial<Record<keyof Envelope, unknown>>][] = [
    ['another key\'s name', { signatures: [{ ...s, keyid: keyId(other.publicKey) }] }],
    ['no signature', { signatures: [] }],
    ['a short signature', { signatures: [{ ...s, sig: 'AAAA' }] }],
    ['nothing for a signature', { signatures: [{ keyid: s!.keyid }] }],
    ['another payload', { payload: Buffer.from(JSON.stringify({ ...manifest, subject: [{}] })).toString('base64') }],
    ['another type', { payloadType: 'text/plain' }],
    ['a payload with room for a second reading', { payload: `${good.payload.slice(0, -1)}\n=` }],
  ]
  for (const [what, change] of cases) t.is(typeof open(bytes({ ...good, ...change }), [key.publicKey]), 'string', what)
  for (const junk of ['', 'null', '[]', '1', '{', '{"payload":1}']) t.is(typeof open(Buffer.from(junk), [key.publicKey]), 'string', junk)
  t.regex(open(bytes(sign({ ...manifest, predicateType: 'https://example.org/other' as never }, key)), [key.publicKey]) as string, /its predicate is/)
})
