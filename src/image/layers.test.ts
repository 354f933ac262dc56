import test from 'ava'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { applyLayer, Budget, emptyRoot } from './layers.ts'
import { tar, member, type Member } from './tar.fixture.ts'
import { BuildError, entries, readExtent, type Inode } from './tree.ts'

const base = mkdtempSync(join(tmpdir(), 'vkernel-layers-'))
test.after.always(() => rmSync(base, { recursive: true, force: true }))

let serial = 0
/** Applies archives on top of each other. */
function apply(budget: Budget, ...layers: readonly Buffer[]): Inode {
  const root = emptyRoot()
  for (const bytes of layers) {
    const path = join(base, `in-${serial++}.tar`)
    writeFileSync(path, bytes)
    applyLayer(root, { path, off: 0, size: bytes.length }, 'layer 1', budget)
  }
  return root
}
const layered = (...layers: readonly (readonly Member[])[]): Inode => apply(new Budget(), ...layers.map((l) => tar(...l)))

/** The tree as text: `path`, `path=content`, `path->target`. */
const list = (root: Inode): string[] => [...entries(root)].slice(1).map(({ path, node }) =>
  path.slice(1) + (node.source ? `=${readExtent(node.source).toString()}` : node.target ? `->${node.target.toString()}` : node.kind === 'dir' ? '/' : ` ${node.kind}`))

const gives = test.macro({
  exec(t, layers: readonly (readonly Member[])[], expected: readonly string[]) {
    t.deepEqual(list(layered(...layers)), expected)
  },
  title: (what) => `layers: ${what!}`,
})

test('directories on the way are made', gives, [[{ name: 'a/b/c', data: 'x' }]], ['a/', 'a/b/', 'a/b/c=x'])
test('./ before names, and the root itself', gives, [[{ name: './', mode: 0o700 }, { name: './a', data: '1' }]], ['a=1'])
test('the last of two entries wins', gives, [[{ name: 'a', data: '1' }, { name: 'a', data: '2' }]], ['a=2'])
test('a file replaces a directory with all in it', gives, [[{ name: 'd/f', data: '1' }], [{ name: 'd', data: '2' }]], ['d=2'])
test('a directory replaces a symbolic link', gives, [[{ name: 'd', type: '2', link: 'e' }, { name: 'e/f' }], [{ name: 'd/' }, { name: 'd/g' }]], ['d/', 'd/g=', 'e/', 'e/f='])
test('a directory over a directory keeps what is in it', gives, [[{ name: 'd/f', data: '1' }], [{ name: 'd/', mode: 0o700 }]], ['d/', 'd/f=1'])
test('a whiteout removes a file of a lower layer', gives, [[{ name: 'd/a' }, { name: 'd/b' }], [{ name: 'd/.wh.a' }]], ['d/', 'd/b='])
test('a whiteout removes a directory of a lower layer', gives, [[{ name: 'd/a' }, { name: 'e' }], [{ name: '.wh.d' }]], ['e='])
test('a whiteout spares its own layer, whatever comes first', gives, [[{ name: 'a', data: 'old' }], [{ name: 'a', data: 'new' }, { name: '.wh.a' }]], ['a=new'])
test('an opaque directory hides lower layers only', gives, [[{ name: 'd/a' }, { name: 'd/e/x' }], [{ name: 'd/e/y' }, { name: 'd/.wh..wh..opq' }, { name: 'd/z' }]], ['d/', 'd/e/', 'd/e/y=', 'd/z='])
test('a whiteout of nothing, and one in a directory that is not there', gives, [[{ name: 'a' }], [{ name: '.wh.b' }, { name: 'x/y/.wh.z' }]], ['a='])
test('AUFS notes are no files', gives, [[{ name: '.wh..wh.plnk/1.2' }, { name: '.wh..wh.aufs' }, { name: 'a' }]], ['a='])
test('an opaque root', gives, [[{ name: 'a' }], [{ name: '.wh..wh..opq' }, { name: 'b' }]], ['b='])
test('hard links share an inode, across layers too', (t) => {
  const root = layered([{ name: 'a', data: '1' }, { name: 'b', type: '1', link: 'a' }], [{ name: 'c', type: '1', link: './b' }])
  t.is(root.children!.get('a'), root.children!.get('c'))
})
test('a hard link to a symbolic link is to the link itself', gives, [[{ name: 'l', type: '2', link: '/etc/passwd' }, { name: 'h', type: '1', link: 'l' }]], ['h->/etc/passwd', 'l->/etc/passwd'])
test('removing one name of a file keeps the other', gives, [[{ name: 'a', data: '1' }, { name: 'b', type: '1', link: 'a' }], [{ name: '.wh.a' }]], ['b=1'])
test('a file through a symbolic link lands inside the image', gives,
  [[{ name: 'usr/bin/' }, { name: 'bin', type: '2', link: 'usr/bin' }], [{ name: 'bin/sh', data: '1' }]], ['bin->usr/bin', 'usr/', 'usr/bin/', 'usr/bin/sh=1'])
test('a link that climbs stops at the image\'s root', gives,
  [[{ name: 'up', type: '2', link: '../../../../../tmp' }, { name: 'up/f', data: '1' }]], ['tmp/', 'tmp/f=1', 'up->../../../../../tmp'])
test('an absolute link starts at the image\'s root', gives,
  [[{ name: 'etc', type: '2', link: base }, { name: 'etc/f', data: '1' }]].map((l) => l.map((m) => (m.name === 'etc' ? { ...m, link: '/srv' } : m))), ['etc->/srv', 'srv/', 'srv/f=1'])
test('names that differ in Unicode form only stay two', gives,
  [[{ name: Buffer.from('é').toString('latin1'), data: '1' }, { name: Buffer.from('e\u0301').toString('latin1'), data: '2' }]], [`${Buffer.from('e\u0301').toString('latin1')}=2`, `${Buffer.from('é').toString('latin1')}=1`])
test('a pax path of any length within PATH_MAX, with its bytes', gives, [[{ pax: { path: `${'d/'.repeat(200)}\xff` }, data: '1' }]],
  [...Array.from({ length: 200 }, (_, n) => 'd/'.repeat(n + 1)), `${'d/'.repeat(200)}\xff=1`])
test('GNU long names', gives, [[{ name: '././@LongLink', type: 'L', data: `${'n'.repeat(150)}\0` }, { name: 'n', data: '1' }, { name: '././@LongLink', type: 'K', data: `${'t'.repeat(150)}\0` }, { name: 'l', type: '2', link: 't' }]],
  [`l->${'t'.repeat(150)}`, `${'n'.repeat(150)}=1`])

test('devices, fifos, owners, set-id bits and times are kept as they are, by whoever builds', (t) => {
  const root = layered([
    { name: 'null', type: '3', device: [1, 3], mode: 0o666 }, { name: 'sda', type: '4', device: [8, 300] }, { name: 'p', type: '6' },
    { name: 'su', mode: 0o4755, uid: 0, gid: 42, mtime: 1_700_000_000, data: 'x' }, { name: 'big', pax: { uid: '3000000000', mtime: '-5.5' } },
  ])
  const of = (name: string): Inode => root.children!.get(name)!
  t.like(of('null'), { kind: 'char', rdev: 0x103, mode: 0o666 })
  t.like(of('sda'), { kind: 'block', rdev: (300 & 0xff) | (8 << 8) | ((300 & ~0xff) << 12) })
  t.is(of('p').kind, 'fifo')
  t.like(of('su'), { mode: 0o4755, uid: 0, gid: 42, mtime: 1_700_000_000 })
  t.like(of('big'), { uid: 3_000_000_000, mtime: -6 })
})

/** A header whose 12-byte size field is `bytes`. */
const size = (bytes: Buffer | string): NonNullable<Member['patch']> => (h) => { Buffer.from(bytes).copy(h, 124) }
const base256 = (...bytes: number[]): Buffer => Buffer.concat([Buffer.from([bytes[0]!]), Buffer.alloc(12 - bytes.length, bytes[0] === 0xff ? 0xff : 0), Buffer.from(bytes.slice(1))])

const hostile: readonly (readonly [what: string, archive: Buffer, error: RegExp])[] = [
  ['an absolute path', tar({ name: '/etc/passwd' }), /entry "\/etc\/passwd": its name is an absolute path/],
  ['an absolute path in pax', tar({ pax: { path: '/etc/passwd' } }), /absolute path/],
  ['.. at the start', tar({ name: '../../x' }), /leaves the root/],
  ['.. in the middle', tar({ name: 'a/../../x' }), /leaves the root/],
  ['.. in a directory\'s name', tar({ name: 'a/../' }), /leaves the root/],
  ['a root that is a link', tar({ name: './', type: '2', link: '/tmp' }), /replace the root/],
  ['a file below a file', tar({ name: 'a' }, { name: 'a/b' }), /"a" is no directory/],
  ['a file through a link to a file', tar({ name: 'a' }, { name: 'l', type: '2', link: 'a' }, { name: 'l/b' }), /"a" is no directory/],
  ['links in a circle', tar({ name: 'a', type: '2', link: 'b' }, { name: 'b', type: '2', link: 'a' }, { name: 'a/f' }), /too many symbolic links/],
  ['a hard link out of the image', tar({ name: 'h', type: '1', link: '../../etc/passwd' }), /hard link target .* leaves the root/],
  ['a hard link to an absolute path', tar({ name: 'h', type: '1', link: '/etc/passwd' }), /hard link target .* absolute path/],
  ['a hard link through a link out of the image', tar({ name: 'e', type: '2', link: '/etc' }, { name: 'h', type: '1', link: 'e/passwd' }), /hard link target .* there is no "etc"/],
  ['a hard link to nothing', tar({ name: 'h', type: '1', link: 'nothing' }), /there is no "nothing"/],
  ['a hard link to a directory', tar({ name: 'd/' }, { name: 'h', type: '1', link: 'd' }), /is a directory/],
  ['a NUL in a pax path', tar({ pax: { path: 'a\0b' } }), /pax path holds a NUL/],
  ['a NUL in a pax link', tar({ type: '2', link: 'x', pax: { linkpath: '/etc\0x' } }), /pax linkpath holds a NUL/],
  ['a pax size that is negative', tar({ pax: { size: '-1' } }), /size is negative/],
  ['a pax size beyond the archive', tar({ pax: { size: '99999999999' } }), /truncated within the data/],
  ['a pax size that is no number', tar({ pax: { size: '0x10' } }), /pax size is no number/],
  ['a pax size past 2^53', tar({ pax: { size: '9999999999999999999' } }), /size is out of range/],
  ['a pax record that is too long', Buffer.concat([member({ name: 'p', type: 'x', data: '99 path=a\n' }), tar({})]), /pax header is malformed/],
  ['a pax record without end', Buffer.concat([member({ name: 'p', type: 'x', data: '9 path=ab' }), tar({})]), /pax header is malformed/],
  ['a pax header for nothing', tar({ name: 'p', type: 'x', data: '10 path=a\n' }), /ends after an extended header/],
  ['a negative size (base 256)', tar({ patch: size(base256(0xff, 0xff, 0xfe)) }), /size is negative/],
  ['a size past 2^53 (base 256)', tar({ patch: size(base256(0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0)) }), /size is out of range/],
  ['a size with a sign', tar({ patch: size('-0000000001\0') }), /size is no number/],
  ['a size beyond the archive', tar({ patch: size('77777777777\0') }), /truncated within the data/],
  ['an owner that is −1', tar({ pax: { uid: '4294967295' } }), /owner is out of range/],
  ['an extended header of 2 MB', tar({ name: 'L', type: 'L', data: Buffer.alloc(2 << 20, 'n') }, {}), /extended header has 2097152 bytes/],
  ['a GNU sparse file', tar({ type: 'S' }), /sparse file \(GNU\)/],
  ['a pax sparse file', tar({ pax: { 'GNU.sparse.major': '1' } }), /sparse file \(pax\)/],
  ['a type that tar does not have', tar({ type: 'Z' }), /type "Z"/],
  ['a wrong checksum', tar({ damage: (h) => { h[0]! ^= 1 } }), /wrong checksum/],
  ['what is no archive', Buffer.alloc(2048, 'x'), /checksum/],
  ['an archive cut within a header', tar({ name: 'a' }, { name: 'b' }).subarray(0, 700), /truncated within a header/],
  ['an archive cut within data', tar({ name: 'a', data: 'x'.repeat(3000) }).subarray(0, 1024), /truncated within the data/],
  ['a whiteout of ..', tar({ name: 'd/.wh...' }), /whiteout of no name/],
  ['a whiteout of .', tar({ name: '.wh..' }), /whiteout of no name/],
  ['a whiteout of nothing', tar({ name: '.wh.' }), /whiteout of no name/],
  ['a file within a whiteout', tar({ name: '.wh.a/b' }), /within a whiteout/],
  ['a name of 256 bytes', tar({ pax: { path: 'n'.repeat(256) } }), /longer than Linux allows/],
  ['a path of 5000 bytes', tar({ pax: { path: 'n/'.repeat(2500) } }), /longer than Linux allows/],
  ['a link to nothing', tar({ name: 'l', type: '2', link: '' }), /symbolic link has 1 to/],
  ['directories nested by way of links', tar({ type: '5', pax: { path: 'd/'.repeat(600) } }, { name: 'l', type: '2', pax: { linkpath: 'd/'.repeat(600) } }, { pax: { path: `l/${'d/'.repeat(600)}x` } }), /too long/],
]

for (const [what, archive, error] of hostile) {
  test(`refused: ${what}`, (t) => {
    const before = readdirSync(tmpdir()).length
    const e = t.throws(() => apply(new Budget(), archive), { instanceOf: BuildError, message: error })
    t.true(e.message.startsWith('layer 1: '), e.message)
    t.is(readdirSync(tmpdir()).length, before)
  })
}

test('the number of entries is limited over all layers', (t) => {
  const layer = tar(...Array.from({ length: 6 }, (_, n) => ({ name: `f${n}` })))
  t.throws(() => apply(new Budget(1 << 30, 10), layer, layer), { instanceOf: BuildError, message: /more than 10 entries/ })
})

test('nothing of an archive is written to this host', (t) => {
  const secret = join(base, 'secret')
  writeFileSync(secret, 'mine')
  const names = readdirSync(base).length
  layered([{ name: 'l', type: '2', link: base }, { name: 'l/secret', data: 'theirs' }, { name: 'h', type: '1', link: 'l/secret' }])
  t.is(readFileSync(secret, 'utf8'), 'mine')
  t.is(readdirSync(base).length, names + 1, 'only the archive itself')
})
