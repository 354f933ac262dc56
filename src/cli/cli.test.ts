import test from 'ava'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseSize } from './build.ts'
import { judge, type Probe } from './doctor.ts'
import { tinyElf } from '../image/elf.fixture.ts'
import { tar } from '../image/tar.fixture.ts'
import { BuildError } from '../image/tree.ts'

const base = mkdtempSync(join(tmpdir(), 'vkernel-cli-'))
test.after.always(() => rmSync(base, { recursive: true, force: true }))
const main = join(import.meta.dirname, 'main.ts')

interface Result { status: number | null; stdout: string; stderr: string }
const recompiler = (...args: string[]): Result => {
  const r = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', cwd: base, env: { ...process.env, HOME: base, XDG_CACHE_HOME: '', VKERNEL_KEYS: join(base, 'keys'), VKERNEL_IMAGES: join(base, 'images') } })
  return { status: r.status, stdout: r.stdout, stderr: r.stderr }
}

const layer = tar({ name: 'bin/tiny', mode: 0o755, data: tinyElf() })
const image = join(base, 'image')
test.before((t) => {
  mkdirSync(join(base, 'rootfs/bin'), { recursive: true })
  writeFileSync(join(base, 'rootfs/bin/tiny'), tinyElf(), { mode: 0o755 })
  writeFileSync(join(base, 'rootfs/bin/arm'), tinyElf({ machine: 183 }), { mode: 0o755 })
  const r = recompiler('build', '--rootfs', 'rootfs', '-o', image, '--json')
  t.is(r.status, 0, r.stderr)
  t.like(JSON.parse(r.stdout), { programs: 1, elfs: 1, directory: image })
  t.deepEqual(r.stderr.trimEnd().split('\n').map((l) => JSON.parse(l) as { ended?: boolean; stage: string }).filter((l) => l.ended).map((l) => l.stage), ['hash', 'image.erofs', 'translate', 'image'])
})

const json = (...args: string[]): Record<string, unknown> => {
  const r = recompiler(...args, '--json')
  if (r.status !== 0) throw new Error(`${r.status}: ${r.stderr}`)
  return JSON.parse(r.stdout) as Record<string, unknown>
}

test('verify: 0 for a good image, 1 and the part for a changed one', (t) => {
  t.like(json('verify', image), { ok: true })
  const bad = join(base, 'bad')
  spawnSync('cp', ['-r', image, bad])
  const name = readdirSync(join(bad, 'blobs/sha256')).find((f) => readFileSync(join(bad, 'blobs/sha256', f)).toString('latin1', 0, 8) === 'VKMEGA01')!
  const file = join(bad, 'blobs/sha256', name)
  const bytes = readFileSync(file)
  bytes[bytes.length - 1]! ^= 1
  writeFileSync(file, bytes)
  const r = recompiler('verify', bad)
  t.is(r.status, 1)
  t.regex(r.stdout, /^FAIL megabinary sha256:[0-9a-f]{64}: the manifest says sha256:/m)
})

test('inspect says what the image is', (t) => {
  t.like(json('inspect', image), { signature: 'valid', programs: 1, elfFiles: 1, translatedElfFiles: 1, policy: { exec: 'path+digest', egress: [] } })
  t.regex(recompiler('inspect', image).stdout, /^signature +valid, key [0-9a-f]{32}$/m)
})

test('analyze says what is in it and what cannot run', (t) => {
  const a = json('analyze', image) as { elfs: { syscalls: string[] }[]; unsupported: unknown[] }
  t.deepEqual(a.elfs[0]!.syscalls, ['exit_group', 'write'])
  t.deepEqual(a.unsupported, [{ path: '/bin/arm', why: 'built for ARM64; rebuild it for x86-64' }])
  t.regex(recompiler('analyze', 'rootfs/bin/arm').stdout, /rootfs\/bin\/arm: built for ARM64/)
})

test('analyze reads an image that is not built yet', (t) => {
  const config = JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { diff_ids: [`sha256:${createHash('sha256').update(layer).digest('hex')}`] } })
  writeFileSync(join(base, 'docker.tar'), tar({ name: 'layer.tar', data: layer }, { name: 'config.json', data: config }, { name: 'manifest.json', data: JSON.stringify([{ Config: 'config.json', RepoTags: null, Layers: ['layer.tar'] }]) }))
  const a = json('analyze', 'docker.tar') as { elfs: { paths: string[] }[] }
  t.deepEqual(a.elfs[0]!.paths, ['/bin/tiny'])
})

test('extract shows a function: the x86 instruction, and beside it its wasm and native code', (t) => {
  for (const how of [['400078'], ['--address', '0x400078']]) {
    const r = recompiler('extract', image, ...how, '--elf', '/bin/tiny')
    t.is(r.status, 0, r.stderr)
    const rows = r.stdout.split('\n').map((l) => [l.slice(0, 40).trim(), l.slice(41, 83).trim(), l.slice(84).trim()] as const)
    const from = rows.findIndex(([x86]) => / syscall$/.test(x86))
    const own = rows.slice(from, from + 1 + rows.slice(from + 1).findIndex(([x86]) => x86 !== ''))
    // The import 0 is `syscall`; its call is native code of this instruction.
    t.true(own.some(([, wasm]) => wasm === 'call 0'), r.stdout)
    t.true(own.some(([, , native]) => /^[0-9a-f]+ {2}call /.test(native)), r.stdout)
  }
  t.like(recompiler('extract', image, 'a', '--symbol', 'b'), { status: 125 })
  t.regex(recompiler('extract', image, '--address', 'main').stderr, /--address main: write it in hexadecimal/)
  t.like(recompiler('extract', image, 'main', '--elf', '/bin/none'), { status: 125, stderr: `recompiler: the image has no file /bin/none; \`recompiler analyze --all ${image}\` lists the programs\n` })
})

test('keys: made once, shown, exported', (t) => {
  const { publicKey } = json('keys', 'export') as { publicKey: string }
  t.regex(publicKey, /^[0-9a-f]{64}$/)
  t.is((json('keys')['trusted'] as { publicKey: string }[])[0]!.publicKey, publicKey)
  t.regex(recompiler('keys', 'generate').stderr, /would no longer start/)
  t.is(recompiler('keys', 'generate').status, 125)
})

test('images by name: build -t, images, verify, rmi', (t) => {
  const r = recompiler('build', '--rootfs', 'rootfs', '-t', 'team/tiny:v1', '--no-translate')
  t.is(r.status, 0, r.stderr)
  t.like((json('images') as unknown as { name: string }[])[0], { name: 'team/tiny:v1', linked: false })
  t.is(recompiler('verify', 'team/tiny:v1').status, 0)
  t.is(recompiler('rmi', 'team/tiny:v1').status, 0)
})

test('failures are 125: what, why, next', (t) => {
  for (const [args, message] of [
    [['nosuch'], /there is no verb "nosuch"; `recompiler help` lists them/],
    [['build', '--rootfs', 'rootfs'], /build: where to\? give -o DIR or -t NAME/],
    [['build', '-o', 'x'], /build: give one input/],
    [['build', '-o', 'x', '--rootfs', 'rootfs', 'image'], /build: give one input/],
    [['build', '-o', 'x', '--nosuch'], /build: Unknown option '--nosuch'; see `recompiler help`/],
    [['build', '-o', 'x', '--rootfs', 'nowhere'], /nowhere: no such directory/],
    [['build', '-o', 'x', 'nowhere:v1'], /nowhere:v1: no such file or directory; get an image with/],
    [['build', '-t', 'Not A Name', '--rootfs', 'rootfs'], /is no image name; names are like/],
    [['verify'], /verify: which image\?/],
    [['verify', 'nosuch'], /there is no image nosuch: .*`recompiler images` lists the names/],
    [['rmi', 'nosuch'], /there is no image nosuch/],
    [['keys', 'nosuch'], /keys: show, generate or export/],
  ] as const) {
    const r = recompiler(...args)
    t.is(r.status, 125, args.join(' '))
    t.regex(r.stderr, message)
    t.is(r.stderr.trimEnd().split('\n').length, 1, r.stderr)
  }
})

test('sizes', (t) => {
  t.is(parseSize('512'), 512)
  t.is(parseSize('4G'), 4 * 2 ** 30)
  t.is(parseSize('10mB'), 10 * 2 ** 20)
  for (const wrong of ['', '0', '-1', '1.5G', 'x', '9999999999999T']) t.throws(() => parseSize(wrong), { instanceOf: BuildError }, wrong)
})

const able: Probe = { namespaces: null, landlock: 7, seccomp: true, userNotification: true, mdwe: true, mseal: true, memfd: true, ptmx: true, nofileHard: 20_000, pidfd: true }
const host = { arch: 'x64', cgroup: 2, diskFree: 2 ** 40, diskAt: '/', missing: [] } as const

test('doctor: what is missing, whether it matters, how to get it', (t) => {
  t.true(judge(able, host).every((f) => f.ok && f.fix === undefined))
  const required = judge({ ...able, namespaces: 'unshare: EPERM', nofileHard: 1024 }, { ...host, missing: ['vkernel-loader'] }).filter((f) => !f.ok)
  t.deepEqual(required.map((f) => [f.what, f.required]), [['build', true], ['namespaces', true], ['open files (hard limit)', true]])
  const weaker = judge({ ...able, landlock: 0, mdwe: false, mseal: false }, { ...host, cgroup: 1, diskFree: 1 }).filter((f) => !f.ok)
  t.deepEqual(weaker.map((f) => [f.what, f.required]), [['Landlock', false], ['memory-deny-write-execute', false], ['mseal', false], ['cgroup', false], ['free disk', false]])
  t.true([...required, ...weaker].every((f) => f.fix))
})

test('doctor runs here', (t) => {
  const r = recompiler('doctor', '--json')
  const { ok, findings } = JSON.parse(r.stdout) as { ok: boolean; findings: { what: string; found: string }[] }
  t.is(r.status, ok ? 0 : 1)
  t.true(findings.some((f) => f.what === 'namespaces' && f.found !== 'not probed'), r.stdout)
})
