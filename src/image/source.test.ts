import test from 'ava'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { Budget } from './layers.ts'
import { Progress } from './progress.ts'
import { readImage, splitReference, type SourceImage, type SourceKind } from './source.ts'
import { tar, type Member } from './tar.fixture.ts'
import { BuildError, entries, readExtent } from './tree.ts'

const base = mkdtempSync(join(tmpdir(), 'vkernel-source-'))
test.after.always(() => rmSync(base, { recursive: true, force: true }))
let serial = 0
const fresh = (): string => {
  const dir = join(base, String(serial++))
  mkdirSync(dir)
  return dir
}

const sha = (b: Buffer | string): string => createHash('sha256').update(b).digest('hex')
const quiet = new Progress({ write: () => true })
const read = async (arg: string, kind: SourceKind = 'auto', budget = new Budget()): Promise<SourceImage> => readImage(arg, kind, fresh(), budget, quiet)
const files = (s: SourceImage): string[] => [...entries(s.root)].flatMap(({ path, node }) => (node.source ? [`${path}=${readExtent(node.source).toString()}`] : []))

const CONFIG = { Env: ['A=1', 'PATH=/bin'], Cmd: ['-c', 'true'], Entrypoint: ['/bin/sh'], WorkingDir: '/srv', User: '1000:1000' }

interface Spec { layers?: Buffer[]; diffs?: string[]; arch?: string; config?: object | null; ref?: string; edit?: (manifest: Record<string, unknown>) => void }
const plain = [tar({ name: 'a', data: 'one' }, { name: 'b', data: 'two' }), tar({ name: '.wh.a' }, { name: 'c', data: 'three' })]

/** A layout of `spec` in `dir`; several may share one. `layers` are as stored, `diffs` of what they unpack to. */
function oci(dir: string, spec: Spec = {}, manifests: object[] = []): string {
  const blobs = join(dir, 'blobs/sha256')
  mkdirSync(blobs, { recursive: true })
  const put = (b: Buffer | string, mediaType: string): object => {
    writeFileSync(join(blobs, sha(b)), b)
    return { mediaType, digest: `sha256:${sha(b)}`, size: Buffer.byteLength(b) }
  }
  const layers = spec.layers ?? plain
  const config = put(JSON.stringify({ architecture: spec.arch ?? 'amd64', os: 'linux', config: spec.config === undefined ? CONFIG : spec.config, rootfs: { type: 'layers', diff_ids: spec.diffs ?? plain.map((l) => `sha256:${sha(l)}`) } }), 'application/vnd.oci.image.config.v1+json')
  const manifest: Record<string, unknown> = { schemaVersion: 2, config, layers: layers.map((l) => put(l, 'application/vnd.oci.image.layer.v1.tar')) }
  spec.edit?.(manifest)
  manifests.push({ ...put(JSON.stringify(manifest), 'application/vnd.oci.image.manifest.v1+json'), platform: { architecture: spec.arch ?? 'amd64', os: 'linux' }, ...(spec.ref ? { annotations: { 'org.opencontainers.image.ref.name': spec.ref } } : {}) })
  writeFileSync(join(dir, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }))
  writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  return dir
}

const frames = (b: Buffer, count: number): Buffer => Buffer.concat([
  // A skippable frame before, between and after, as zstd:chunked has them.
  ...Array.from({ length: count }, (_, n) => [Buffer.from([0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2]), zstdCompressSync(b.subarray(Math.floor((n * b.length) / count), Math.floor(((n + 1) * b.length) / count)))]).flat(),
  Buffer.from([0x5f, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9]),
])

for (const [how, pack] of [
  ['tar', (b: Buffer) => b], ['gzip', (b: Buffer) => gzipSync(b)], ['gzip of two members', (b: Buffer) => Buffer.concat([gzipSync(b.subarray(0, 700)), gzipSync(b.subarray(700))])],
  ['zstd', (b: Buffer) => zstdCompressSync(b)], ['zstd of several frames', (b: Buffer) => frames(b, 5)],
] as const) {
  test(`an OCI layout with ${how} layers`, async (t) => {
    const image = await read(oci(fresh(), { layers: plain.map(pack) }))
    t.deepEqual(files(image), ['/b=two', '/c=three'])
    t.deepEqual(image.config, { env: ['A=1', 'PATH=/bin'], cmd: ['-c', 'true'], entrypoint: ['/bin/sh'], cwd: '/srv', user: '1000:1000' })
  })
}

test('a configuration that says nothing gets docker\'s defaults', async (t) => {
  const { config } = await read(oci(fresh(), { config: null }))
  t.like(config, { cwd: '/', user: '0' })
  t.regex(config.env[0]!, /^PATH=/)
})

test('one of several images by its tag; latest without one', async (t) => {
  const dir = fresh(), manifests: object[] = []
  oci(dir, { ref: 'v1', layers: [plain[0]!], diffs: [`sha256:${sha(plain[0]!)}`] }, manifests)
  await t.throwsAsync(read(`${dir}:v2`), { instanceOf: BuildError, message: /holds no image v2; name one: .*:v1/ })
  oci(dir, { ref: 'latest' }, manifests)
  t.is(files(await read(`${dir}:v1`)).length, 2)
  t.deepEqual(files(await read(dir)), ['/b=two', '/c=three'])
})

test('another architecture beside ours, and alone', async (t) => {
  const dir = fresh(), manifests: object[] = []
  oci(dir, { arch: 'arm64' }, manifests)
  await t.throwsAsync(read(dir), { instanceOf: BuildError, message: /holds no image for linux\/amd64/ })
  oci(dir, {}, manifests)
  t.is(files(await read(dir)).length, 2)
})

/** An archive as docker wrote it before (links to layers) and since version 25 (also an OCI layout). */
function docker(style: 'old' | 'new', tags: readonly string[] = ['app:v1'], layers = plain): Buffer {
  const config = JSON.stringify({ architecture: 'amd64', os: 'linux', config: CONFIG, rootfs: { type: 'layers', diff_ids: plain.map((l) => `sha256:${sha(l)}`) } })
  const name = (l: Buffer): string => (style === 'old' ? `${sha(l)}/layer.tar` : `blobs/sha256/${sha(l)}`)
  const configName = style === 'old' ? `${sha(config)}.json` : `blobs/sha256/${sha(config)}`
  return tar(
    ...layers.map((l): Member => ({ name: name(l), data: l })),
    ...(style === 'old' ? [{ name: 'again/layer.tar', type: '2', link: `../${name(layers[0]!)}` }] : [{ name: 'oci-layout', data: '{}' }, { name: 'index.json', data: '{"manifests":[]}' }]),
    { name: configName, data: config },
    { name: 'manifest.json', data: JSON.stringify(tags.map((t) => ({ Config: configName, RepoTags: [t], Layers: [style === 'old' ? 'again/layer.tar' : name(layers[0]!), ...layers.slice(1).map(name)] }))) },
  )
}

for (const [what, bytes] of [['old docker archive', docker('old')], ['docker archive that is an OCI layout too', docker('new')], ['compressed docker archive', gzipSync(docker('new'))]] as const) {
  test(`a ${what}`, async (t) => {
    const file = join(fresh(), 'image.tar')
    writeFileSync(file, bytes)
    const image = await read(file)
    t.deepEqual(files(image), ['/b=two', '/c=three'])
    t.is(image.config.user, '1000:1000')
    t.deepEqual(files(await read(`${file}:app:v1`, 'docker-archive')), ['/b=two', '/c=three'])
    await t.throwsAsync(read(`${file}:other`), { instanceOf: BuildError, message: /holds no image other; name one: .*:app:v1/ })
  })
}

test('a docker archive of two images wants a name', async (t) => {
  const file = join(fresh(), 'image.tar')
  writeFileSync(file, docker('new', ['a:1', 'b:2']))
  await t.throwsAsync(read(file), { instanceOf: BuildError, message: /holds 2 images; name one/ })
  t.is(files(await read(`${file}:b:2`)).length, 2)
})

test('an OCI layout in a tar', async (t) => {
  const dir = oci(fresh())
  const file = join(fresh(), 'image.tar')
  const blobs = readdirSync(join(dir, 'blobs/sha256'))
  writeFileSync(file, tar(...['oci-layout', 'index.json', ...blobs.map((b) => `blobs/sha256/${b}`)].map((name) => ({ name, data: readFileSync(join(dir, name)) }))))
  t.deepEqual(files(await read(file, 'oci')), ['/b=two', '/c=three'])
  t.deepEqual(files(await read(file)), ['/b=two', '/c=three'])
})

const damaged = test.macro({
  async exec(t, spec: Spec, error: RegExp, after?: (dir: string) => void, budget?: Budget) {
    const dir = oci(fresh(), spec)
    after?.(dir)
    await t.throwsAsync(read(dir, 'auto', budget), { instanceOf: BuildError, message: error })
  },
  title: (what) => `refused: ${what!}`,
})
const blob = (dir: string, b: Buffer): string => join(dir, 'blobs/sha256', sha(b))
const bomb = gzipSync(Buffer.alloc(64 << 20))

test('a layer whose bytes changed', damaged, {}, /layer 1 \(sha256:.*\) does not match its digest/, (dir) => writeFileSync(blob(dir, plain[0]!), tar({ name: 'a', data: 'ONE' }, { name: 'b', data: 'two' })))
test('a layer that unpacks to something else', damaged, { layers: plain.map((l) => gzipSync(l)), diffs: [`sha256:${sha(plain[0]!)}`, `sha256:${sha(plain[0]!)}`] }, /layer 2 .*\(diff_id\) does not match/)
test('a layer cut short', damaged, {}, /layer 1 has 100 bytes, not/, (dir) => writeFileSync(blob(dir, plain[0]!), plain[0]!.subarray(0, 100)))
test('a gzip layer cut short', damaged, { layers: [gzipSync(plain[0]!).subarray(0, 60), plain[1]!] }, /the gzip stream is damaged or truncated/)
test('a zstd layer cut short', damaged, { layers: [zstdCompressSync(plain[0]!).subarray(0, 40), plain[1]!] }, /zstd frame is truncated/)
test('an xz layer', damaged, { layers: [Buffer.from('fd377a585a0000', 'hex'), plain[1]!] }, /compressed with xz/)
test('a layer that is missing', damaged, {}, /layer 2 is missing/, (dir) => rmSync(blob(dir, plain[1]!)))
test('a digest that is a path', damaged, { edit: (m) => { (m['layers'] as { digest: string }[])[0]!.digest = 'sha256:../../../etc/passwd' } }, /named by no sha256 or sha512 digest/)
test('a configuration for another architecture than the index says', async (t) => {
  const manifests: { platform?: object }[] = []
  const dir = oci(fresh(), { arch: 'arm64' }, manifests)
  delete manifests[0]!.platform
  writeFileSync(join(dir, 'index.json'), JSON.stringify({ manifests }))
  await t.throwsAsync(read(dir), { instanceOf: BuildError, message: /the image is for linux\/arm64; only linux\/amd64/ })
})
test('more diff_ids than layers', damaged, { diffs: [...plain, plain[0]!].map((l) => `sha256:${sha(l)}`) }, /2 layers and 3 diff_ids/)
test('a configuration without a digest', damaged, { edit: (m) => { m['config'] = {} } }, /the configuration is named by no/)
test('an index that is no JSON', damaged, {}, /the index is not JSON/, (dir) => writeFileSync(join(dir, 'index.json'), '{'))
test('a layer of 64 KB that unpacks to 64 MB', damaged, { layers: [bomb], diffs: [`sha256:${sha(Buffer.alloc(64 << 20))}`] }, /more than 1048576 bytes unpacked; allow more with --max-size/, undefined, new Budget(1 << 20))

test('what a bomb leaves is bounded by the limit', async (t) => {
  const dir = oci(fresh(), { layers: [bomb], diffs: [`sha256:${sha(Buffer.alloc(64 << 20))}`] })
  const temp = fresh()
  await t.throwsAsync(readImage(dir, 'auto', temp, new Budget(1 << 20), quiet), { instanceOf: BuildError })
  const size = readdirSync(temp).reduce((n, f) => n + statSync(join(temp, f)).size, 0)
  t.true(size <= 1 << 20, `${size} bytes`)
})

test('inputs that are none say what to do', async (t) => {
  await t.throwsAsync(read('/no/such/thing:v1'), { instanceOf: BuildError, message: /no such file or directory; get an image with/ })
  await t.throwsAsync(read(fresh()), { instanceOf: BuildError, message: /is no OCI layout: it has no oci-layout; a root file system is given with --rootfs/ })
  const file = join(fresh(), 'x.tar')
  writeFileSync(file, tar({ name: 'a' }))
  await t.throwsAsync(read(file), { instanceOf: BuildError, message: /neither a docker archive nor an OCI archive/ })
  await t.throwsAsync(read(fresh(), 'docker-archive'), { instanceOf: BuildError, message: /is a directory, not a docker archive/ })
})

test('a path with a colon is a path when it exists', (t) => {
  const dir = join(fresh(), 'a:b')
  mkdirSync(dir)
  t.deepEqual(splitReference(dir), { path: dir })
  t.deepEqual(splitReference(`${dir}:c`), { path: dir, ref: 'c' })
})
