import test from 'ava'
import { createHash } from 'node:crypto'
import { chmodSync, cpSync, linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build } from './build.ts'
import { tinyElf } from './elf.fixture.ts'
import { ErofsReader } from './erofs-reader.ts'
import { checkLayer } from './layer-check.ts'
import { peek, signingKey } from './manifest.ts'
import { readMegabinary } from './megabinary.ts'
import { openLayout } from './oci.ts'
import { Progress } from './progress.ts'
import { defaultConfig } from './source.ts'
import { stubFor } from './stub.ts'
import { tar } from './tar.fixture.ts'
import { fromDirectory } from './tree.ts'
import { verify, type Check } from './verify.ts'

const base = mkdtempSync(join(tmpdir(), 'vkernel-verify-'))
process.env['VKERNEL_KEYS'] = join(base, 'keys')
test.after.always(() => rmSync(base, { recursive: true, force: true }))

const good = join(base, 'good')

test.before(async () => {
  const rootfs = join(base, 'rootfs')
  mkdirSync(join(rootfs, 'bin'), { recursive: true })
  writeFileSync(join(rootfs, 'bin/tiny'), tinyElf(), { mode: 0o755 })
  writeFileSync(join(rootfs, 'data'), 'data '.repeat(1000))
  writeFileSync(join(rootfs, 'bin/script'), '#!/bin/tiny\n')
  chmodSync(join(rootfs, 'bin/script'), 0o755)
  await build(() => ({ root: fromDirectory(rootfs), config: defaultConfig }), {
    out: good, policy: { exec: 'path+digest', egress: [] }, translate: true, progress: new Progress({ write: () => true }) })
})

const failed = (dir: string): Check[] => verify(dir).filter((c) => !c.ok)

test('a fresh image passes every check', (t) => {
  const checks = verify(good)
  t.deepEqual(checks.filter((c) => !c.ok), [])
  t.deepEqual(checks.map((c) => c.part), ['oci-layout', 'index', 'image manifest', 'config', 'layer', 'manifest signature', 'image.erofs',
    '2 programs in image.erofs', 'megabinary', 'megabinary index', 'native code of 1 ELF files', 'config as signed', 'layer against image.erofs'])
  const mega = readMegabinary(openLayout(good).megabinary.path)
  t.true(mega.entries[0]!.codeLen > 0, 'there is native code to check')
})

interface Manifest { config: { digest: string; size: number }; layers: { digest: string; size: number }[]; annotations: Record<string, string> }
const blob = (dir: string, digest: string): string => join(dir, 'blobs/sha256', digest.replace('sha256:', ''))
const index = (dir: string): { manifests: { digest: string; size: number }[] } => JSON.parse(readFileSync(join(dir, 'index.json'), 'utf8')) as never
const manifest = (dir: string): Manifest => JSON.parse(readFileSync(blob(dir, index(dir).manifests[0]!.digest), 'utf8')) as Manifest

/** Files of the layout → which checks may name a change of it. */
const parts: Record<string, [path: (dir: string) => string, named: RegExp]> = {
  manifest: [(d) => openLayout(d).manifest.path, /^manifest/],
  megabinary: [(d) => openLayout(d).megabinary.path, /^(megabinary|native code of)/],
  'image.erofs': [(d) => openLayout(d).erofs.path, /image\.erofs$/],
  config: [(d) => blob(d, manifest(d).config.digest), /^config/],
  layer: [(d) => blob(d, manifest(d).layers[0]!.digest), /^layer$/],
  'image manifest': [(d) => blob(d, index(d).manifests[0]!.digest), /^image manifest$/],
  'oci-layout': [(d) => join(d, 'oci-layout'), /^oci-layout$/],
}

for (const [part, [path, named]] of Object.entries(parts)) {
  test(`one byte changed anywhere in ${part} is found and named`, (t) => {
    const dir = join(base, `flip-${part}`)
    cpSync(good, dir, { recursive: true })
    const file = path(dir)
    const bytes = readFileSync(file)
    const positions = new Set([0, 1, bytes.length - 1, ...Array.from({ length: 60 }, (_, n) => Math.floor((n * bytes.length) / 60))])
    for (const at of positions) {
      const changed = Buffer.from(bytes)
      changed[at]! ^= 0x20
      writeFileSync(file, changed)
      const wrong = failed(dir)
      if (wrong.length === 0 || !wrong.every((c) => named.test(c.part) && c.why)) return t.fail(`byte ${at}: ${JSON.stringify(wrong)}`)
    }
    writeFileSync(file, bytes.subarray(0, -1))
    t.true(failed(dir).some((c) => named.test(c.part)), 'cut short')
    writeFileSync(file, Buffer.concat([bytes, Buffer.alloc(1)]))
    t.true(failed(dir).some((c) => named.test(c.part)), 'a byte more')
    rmSync(file)
    t.not(failed(dir).length, 0, 'missing')
  })
}

test('one byte changed in index.json is found', (t) => {
  const dir = join(base, 'flip-index')
  cpSync(good, dir, { recursive: true })
  const file = join(dir, 'index.json')
  const bytes = readFileSync(file)
  const ref = bytes.indexOf('latest')
  for (let at = 0; at < bytes.length; at += 3) {
    // The name may be another: nothing depends on it.
    if (at >= ref && at < ref + 6) continue
    const changed = Buffer.from(bytes)
    changed[at]! ^= 1
    writeFileSync(file, changed)
    if (failed(dir).length === 0) return t.fail(`byte ${at}`)
  }
  t.pass()
})

/** A copy of the image with one byte of `file` at `at` changed. */
function flipped(name: string, file: (dir: string) => string, at: (dir: string) => number): Check[] {
  const dir = join(base, name)
  cpSync(good, dir, { recursive: true })
  const bytes = readFileSync(file(dir))
  bytes[at(dir)]! ^= 1
  writeFileSync(file(dir), bytes)
  return failed(dir)
}

test('a changed program in image.erofs is named by its path', (t) => {
  const checks = flipped('flip-program', (d) => openLayout(d).erofs.path, (d) =>
    new ErofsReader(openLayout(d).erofs.path).tree().children!.get('bin')!.children!.get('tiny')!.source!.off + 130)
  t.deepEqual(checks.map((c) => c.part), ['image.erofs', '/bin/tiny in image.erofs'])
})

test('a changed native artefact is named by its program', (t) => {
  const checks = flipped('flip-native', (d) => openLayout(d).megabinary.path, (d) => readMegabinary(openLayout(d).megabinary.path).entries[0]!.codeOff + 100)
  t.deepEqual(checks.map((c) => c.part), ['megabinary', 'native code of /bin/tiny'])
})

/** Puts other blobs into an image, with every digest made right again: what only the signature can tell. */
function forge(name: string, change: (dir: string, m: Manifest, put: (b: Buffer | string) => { digest: string; size: number }) => void): Check[] {
  const dir = join(base, name)
  cpSync(good, dir, { recursive: true })
  const put = (b: Buffer | string): { digest: string; size: number } => {
    const digest = `sha256:${createHash('sha256').update(b).digest('hex')}`
    writeFileSync(blob(dir, digest), b)
    return { digest, size: Buffer.byteLength(b) }
  }
  const i = index(dir), m = manifest(dir), old = new Set([i.manifests[0]!.digest, m.config.digest, m.layers[0]!.digest, ...Object.values(m.annotations)])
  change(dir, m, put)
  Object.assign(i.manifests[0]!, put(JSON.stringify(m)))
  writeFileSync(join(dir, 'index.json'), JSON.stringify(i))
  const now = new Set([i.manifests[0]!.digest, m.config.digest, m.layers[0]!.digest, ...Object.values(m.annotations)])
  for (const digest of old) if (!now.has(digest)) rmSync(blob(dir, digest))
  return failed(dir)
}

test('another layer under right digests', (t) => {
  const checks = forge('forge-layer', (dir, m, put) => {
    const config = JSON.parse(readFileSync(blob(dir, m.config.digest), 'utf8')) as { rootfs: { diff_ids: string[] } }
    Object.assign(m.layers[0]!, put(tar({ name: 'bin/tiny', data: 'evil', mode: 0o755 })))
    config.rootfs.diff_ids = [m.layers[0]!.digest]
    Object.assign(m.config, put(JSON.stringify(config)))
  })
  t.deepEqual(checks.map((c) => c.part), ['layer against image.erofs'])
})

test('an executable without its stub, by a hard link taken apart', async (t) => {
  const rootfs = join(base, 'linked')
  mkdirSync(rootfs)
  writeFileSync(join(rootfs, 'a'), tinyElf(), { mode: 0o755 })
  linkSync(join(rootfs, 'a'), join(rootfs, 'b'))
  for (const path of ['a', '.']) utimesSync(join(rootfs, path), 0, 0)
  const dir = join(base, 'linked-image')
  await build(() => ({ root: fromDirectory(rootfs), config: defaultConfig }), {
    out: dir, policy: { exec: 'path+digest', egress: [] }, translate: false, stub: Buffer.from('stub'), progress: new Progress({ write: () => true }) })
  t.deepEqual(failed(dir), [])
  const m = manifest(dir), st = statSync(join(rootfs, 'a')), { mode } = statSync(rootfs)
  const stub = stubFor(Buffer.from('stub'), '/a', openLayout(dir).manifest.digest, createHash('sha256').update(tinyElf()).digest('hex'))
  const own = { uid: st.uid, gid: st.gid, mode: 0o755 }
  const check = (layer: Buffer): string | undefined => {
    const file = join(base, 'forged.tar')
    writeFileSync(file, layer)
    return checkLayer(file, new ErofsReader(openLayout(dir).erofs.path).tree(), peek(readFileSync(openLayout(dir).manifest.path)).manifest, openLayout(dir).manifest.digest)
  }
  const root = { name: './', uid: st.uid, gid: st.gid, mode: mode & 0o7777 }
  t.is(check(tar(root, { name: 'a', data: stub, ...own }, { name: 'b', type: '1', link: 'a' })), undefined)
  t.is(check(tar(root, { name: 'a', data: stub, ...own }, { name: 'b', data: tinyElf(), ...own })), '/b is not linked as in image.erofs')
  t.is(check(tar(root, { name: 'a', data: tinyElf(), ...own }, { name: 'b', type: '1', link: 'a' })), '/a is not the stub that the manifest names')
  const other = stubFor(Buffer.from('stub'), '/c', openLayout(dir).manifest.digest, createHash('sha256').update(tinyElf()).digest('hex'))
  t.is(check(tar(root, { name: 'a', data: other, ...own }, { name: 'b', type: '1', link: 'a' })), '/a is a stub for something else')
  t.is(m.layers.length, 1)
})

test('another configuration under right digests', (t) => {
  const checks = forge('forge-config', (dir, m, put) => {
    Object.assign(m.config, put(readFileSync(blob(dir, m.config.digest), 'utf8').replace('"User":"0"', '"User":"1"')))
  })
  t.deepEqual(checks.map((c) => c.part), ['config as signed'])
})

test('other parts under right digests', (t) => {
  const checks = forge('forge-parts', (dir, m, put) => {
    for (const part of ['erofs', 'megabinary']) {
      const bytes = readFileSync(blob(dir, m.annotations[`io.recompiler.${part}`]!))
      bytes[bytes.length - 1]! ^= 1
      m.annotations[`io.recompiler.${part}`] = put(bytes).digest
    }
  })
  t.deepEqual(checks.map((c) => c.part), ['image.erofs', 'megabinary'])
})

test('a manifest that another key has signed, and one that says more than was signed', (t) => {
  const own = readFileSync(openLayout(good).manifest.path, 'utf8')
  const claim = forge('forge-manifest', (_, m, put) => {
    const envelope = JSON.parse(own) as { payload: string }
    envelope.payload = Buffer.from(Buffer.from(envelope.payload, 'base64').toString().replace('"path+digest"', '"digest"')).toString('base64')
    m.annotations['io.recompiler.manifest'] = put(JSON.stringify(envelope)).digest
  })
  t.deepEqual(claim, [{ part: 'manifest', ok: false, why: 'no trusted key has signed it' }])
})

test('a blob that belongs to nothing', (t) => {
  const dir = join(base, 'extra')
  cpSync(good, dir, { recursive: true })
  writeFileSync(join(dir, 'blobs/sha256', '0'.repeat(64)), 'x')
  t.deepEqual(failed(dir).map((c) => c.part), ['layout'])
})

test.serial('an image whose key this host does not trust', (t) => {
  const keys = process.env['VKERNEL_KEYS']!
  process.env['VKERNEL_KEYS'] = join(base, 'other-keys')
  try {
    signingKey()
    t.deepEqual(failed(good), [{ part: 'manifest', ok: false, why: 'no trusted key has signed it' }])
  } finally {
    process.env['VKERNEL_KEYS'] = keys
  }
})

test('a directory that is no image', (t) => {
  t.like(verify(base), [{ ok: false, part: 'index' }])
})
