import test, { type ExecutionContext } from 'ava'
import { spawnSync } from 'node:child_process'
import { chmodSync, linkSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build, type BuildResult } from './build.ts'
import { tinyElf } from './elf.fixture.ts'
import { ErofsReader } from './erofs-reader.ts'
import { fromHost } from './from-host.ts'
import { openLayout } from './oci.ts'
import { peek } from './manifest.ts'
import { Progress } from './progress.ts'
import { defaultConfig } from './source.ts'
import { BuildError, entries, fromDirectory, readExtent, type Inode } from './tree.ts'
import { verify } from './verify.ts'

const base = mkdtempSync(join(tmpdir(), 'vkernel-build-'))
process.env['VKERNEL_KEYS'] = join(base, 'keys')
test.after.always(() => rmSync(base, { recursive: true, force: true }))

const quiet = new Progress({ write: () => true })
const make = (root: () => Inode, out: string, translate = false): Promise<BuildResult> =>
  build(() => ({ root: root(), config: defaultConfig }), { out, policy: { exec: 'path+digest', egress: [] }, translate, progress: quiet })

/** A root file system with one of everything that needs no rights to make. */
function rootfs(dir: string): string {
  mkdirSync(join(dir, 'bin'), { recursive: true })
  mkdirSync(join(dir, 'empty'))
  writeFileSync(join(dir, 'bin/tiny'), tinyElf(), { mode: 0o755 })
  linkSync(join(dir, 'bin/tiny'), join(dir, 'bin/tiny2'))
  writeFileSync(join(dir, 'bin/script'), '#!/bin/tiny\n')
  chmodSync(join(dir, 'bin/script'), 0o755)
  symlinkSync('bin/tiny', join(dir, 'link'))
  writeFileSync(Buffer.from(join(dir, 'caf\xe9'), 'latin1'), 'not UTF-8 in its name')
  writeFileSync(join(dir, 'data'), Buffer.alloc(10_000, 'd'))
  for (const name of ['bin/tiny', 'bin/script', 'data', 'bin', 'empty', '.']) utimesSync(join(dir, name), 1_600_000_000, 1_600_000_000)
  return dir
}

const list = (root: Inode): unknown[] => [...entries(root)].map(({ path, node }) => [
  path, node.kind, node.mode, node.uid, node.gid, node.mtime, node.rdev, node.target?.toString('latin1'), node.source && readExtent(node.source).toString('latin1')])

test('two builds of one input have one digest, translated too', async (t) => {
  const dir = rootfs(join(base, 'same'))
  const [a, b] = [await make(() => fromDirectory(dir), join(base, 'a'), true), await make(() => fromDirectory(dir), join(base, 'b'), true)]
  t.is(a.digest, b.digest)
  t.deepEqual(readdirSync(join(base, 'a/blobs/sha256')), readdirSync(join(base, 'b/blobs/sha256')))
  t.like(a, { programs: 3, elfs: 1, refused: [] })
})

test('image.erofs holds the tree as it was', async (t) => {
  const dir = rootfs(join(base, 'tree'))
  await make(() => fromDirectory(dir), join(base, 'tree-image'))
  const back = new ErofsReader(openLayout(join(base, 'tree-image')).erofs.path).tree()
  t.deepEqual(list(back), list(fromDirectory(dir)))
  const bin = back.children!.get('bin')!.children!
  t.is(bin.get('tiny'), bin.get('tiny2'))
})

test('a large directory, devices and times before 1970 survive image.erofs and the layer', async (t) => {
  const root = fromDirectory(rootfs(join(base, 'large')))
  const many = root.children!.get('empty')!
  const plain = { uid: 3_000_000, gid: 0, mtime: -5, rdev: 0, mode: 0o600 }
  for (let n = 0; n < 3000; n++) many.children!.set(`${n}${'-'.repeat(n % 200)}`, { ...plain, kind: 'file', source: { path: '/dev/null', off: 0, size: 0 } })
  root.children!.set('null', { ...plain, kind: 'char', rdev: 0x103 })
  root.children!.set('disk', { ...plain, kind: 'block', rdev: (300 & 0xff) | (8 << 8) | ((300 & ~0xff) << 12) })
  root.children!.set('pipe', { ...plain, kind: 'fifo' })
  const out = join(base, 'large-image')
  await make(() => root, out)
  t.deepEqual(list(new ErofsReader(openLayout(out).erofs.path).tree()), list(root))
  t.deepEqual(verify(out).filter((c) => !c.ok), [], 'the layer holds the same')
})

test('a build that fails leaves the old image and nothing else', async (t) => {
  const home = join(base, 'failing')
  mkdirSync(home)
  const out = join(home, 'image')
  const { digest } = await make(() => fromDirectory(rootfs(join(base, 'ok'))), out)
  const e = await t.throwsAsync(make(() => { throw new BuildError('no input') }, out), { instanceOf: BuildError })
  t.is(e.message, 'no input')
  t.deepEqual(readdirSync(home), ['image'])
  t.true(readFileSync(join(out, 'index.json'), 'utf8').includes(digest))
})

test('what a killed build left is removed a day later, nothing else', async (t) => {
  const home = join(base, 'stale')
  for (const name of ['.build-old', '.build-new', '.other', 'image-of-mine']) mkdirSync(join(home, name), { recursive: true })
  for (const name of ['.build-old', '.other', 'image-of-mine']) utimesSync(join(home, name), 1_600_000_000, 1_600_000_000)
  await make(() => fromDirectory(rootfs(join(base, 'stale-rootfs'))), join(home, 'image'))
  t.deepEqual(readdirSync(home).sort(), ['.build-new', '.other', 'image', 'image-of-mine'])
})

test('an output that is something else is not replaced', async (t) => {
  const out = join(base, 'mine')
  mkdirSync(out)
  writeFileSync(join(out, 'file'), 'x')
  await t.throwsAsync(make(() => fromDirectory(base), out), { instanceOf: BuildError, message: /is no image; choose another/ })
  t.is(readFileSync(join(out, 'file'), 'utf8'), 'x')
})

test('what cannot run is refused with the reason; the rest is built', async (t) => {
  const dir = rootfs(join(base, 'refused'))
  writeFileSync(join(dir, 'bin/arm'), tinyElf({ machine: 183 }))
  writeFileSync(join(dir, 'bin/old'), tinyElf({ machine: 3, class: 1 }))
  writeFileSync(join(dir, 'bin/textrel.so'), tinyElf({ type: 3, dynamic: [[22, 0]] }))
  writeFileSync(join(dir, 'bin/wx'), tinyElf({ flags: 7 }))
  const r = await make(() => fromDirectory(dir), join(base, 'refused-image'))
  t.deepEqual(r.refused.map((x) => x.replace(/;.*/, '')).sort(), [
    '/bin/arm: built for ARM64', '/bin/old: built for 32-bit x86', '/bin/textrel.so: it relocates its own code (DT_TEXTREL)', '/bin/wx: a segment is writable and executable (self-modifying code)'])
  t.is(r.programs, 3)
})

test('stubs stand for executables in the layer only', async (t) => {
  const out = join(base, 'stubbed')
  await build(() => ({ root: fromDirectory(rootfs(join(base, 'stub-rootfs'))), config: defaultConfig }), {
    out, policy: { exec: 'path+digest', egress: [] }, translate: false, progress: quiet,
    stub: Buffer.from('stub'),
  })
  const { manifest } = peek(readFileSync(openLayout(out).manifest.path))
  t.deepEqual(manifest.predicate.stub?.paths, ['/bin/script', '/bin/tiny'], 'a hard link of one that has a stub is a link to it')
  t.deepEqual(verify(out).filter((c) => !c.ok), [])
  const tree = new ErofsReader(openLayout(out).erofs.path).tree()
  t.deepEqual(readExtent(tree.children!.get('bin')!.children!.get('tiny')!.source!), tinyElf())
})

/** Runs a program of the host; undefined, with a line in the log, when it is not installed. */
function tool(t: ExecutionContext, command: string, args: readonly string[]): string | undefined {
  const r = spawnSync(command, args, { encoding: 'utf8' })
  if ((r.error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') {
    t.log(`skipped: ${command} is not installed`)
    t.pass()
    return undefined
  }
  t.is(r.status, 0, `${command}: ${r.stdout}${r.stderr}`)
  return r.stdout
}

const host = join(base, 'host')
test.before(() => make(() => fromHost(['/bin/true']), host))

test('skopeo reads the layout', (t) => {
  const out = tool(t, 'skopeo', ['inspect', `oci:${host}`])
  if (out !== undefined) t.like(JSON.parse(out), { Architecture: 'amd64', Os: 'linux' })
})

test('umoci unpacks the layout', (t) => {
  const bundle = join(base, 'bundle')
  if (tool(t, 'umoci', ['unpack', '--rootless', '--image', `${host}:latest`, bundle]) === undefined) return
  t.deepEqual(readFileSync(join(bundle, 'rootfs', realpathSync('/bin/true'))), readFileSync('/bin/true'))
})

test('fsck.erofs finds no error in image.erofs', (t) => {
  tool(t, 'fsck.erofs', [openLayout(host).erofs.path])
})

test('dump.erofs reads image.erofs', (t) => {
  const out = tool(t, 'dump.erofs', ['-s', openLayout(host).erofs.path])
  if (out !== undefined) t.regex(out, /0xE0F5E1E2/)
})
