/** Class `image`: random operations on the names of an image by two processes, in a container and on a copy of the tree, line by line. */
import test from 'ava'
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, chownSync, linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { client, root, TestDaemon } from '../daemon/testing.ts'

const STEPS = 150
const SEQUENCES = Number(process.env['VKERNEL_SEQUENCES'] ?? 100)
const FIRST = Number(process.env['VKERNEL_SEED'] ?? 1)

const dir = mkdtempSync(join(tmpdir(), 'vkernel-names-'))
const d = await TestDaemon.start()
test.after.always(async () => {
  await d.remove()
  rmSync(dir, { recursive: true, force: true })
})

/** A root file system with conformance/programs/names.c as /names, and the tree it works on. */
function makeRoot(): string {
  const at = join(dir, 'root'), tree = join(at, 'tree')
  // What is mounted over in a container is there natively, too: ".." may lead to the root.
  for (const name of ['proc', 'dev', 'sys']) mkdirSync(join(at, name), { recursive: true })
  for (const name of ['', 'a', 'b', 'a/sub', 'a/sub/c', 'b/d']) mkdirSync(join(tree, name), { recursive: true })
  execFileSync('cc', ['-O1', '-static', '-o', join(at, 'names'), join(root, 'conformance/programs/names.c')])
  for (const f of ['f', 'a/f', 'a/g', 'a/sub/f', 'b/g', 'b/d/h', 'a/sub/c/n']) writeFileSync(join(tree, f), `text of ${f}`)
  linkSync(join(tree, 'f'), join(tree, 'h'))
  for (const [name, to] of [['l', 'a'], ['m', 'a/sub/f'], ['a/up', '..'], ['b/l', '../a/sub'], ['n', 'nowhere'], ['a/m', 'm'], ['b/sub', 'd/']] as const) symlinkSync(to, join(tree, name))
  chmodSync(join(tree, 'b/d'), 0o750)
  chmodSync(join(tree, 'a/g'), 0o600)
  for (const f of ['a', 'a/f', 'b/d/h', '.']) chownSync(join(tree, f), 1000, 1000)
  execFileSync('find', [at, '-exec', 'touch', '-h', '-d', '@1000000', '{}', '+'])
  return at
}

const asRoot = process.getuid!() === 0
const at = asRoot ? makeRoot() : ''
const image = join(dir, 'image')
// Before the key's own directory, which nobody else may enter.
mkdirSync(join(root, 'build/test-images'), { recursive: true })
if (asRoot) execFileSync(client, ['build', '--rootfs', at, '--no-translate', '--no-stubs', '-o', image], { stdio: 'ignore', env: { ...process.env, VKERNEL_KEYS: join(root, 'build/test-images/keys') } })

/** The first line that differs, with what came before it. */
function difference(native: string, ours: string): string | undefined {
  if (native === ours) return undefined
  const [a, b] = [native.split('\n'), ours.split('\n')]
  const n = a.findIndex((line, k) => line !== b[k])
  return `line ${n + 1}\nnative: ${a[n]}\nours:   ${b[n]}\nbefore:\n${a.slice(Math.max(0, n - 12), n).join('\n')}`
}

test('what a container did to its image\'s names is what two processes see', (t) => {
  t.timeout(600_000)
  if (!asRoot) return t.pass('needs root: chroot(2) for the native side')
  for (let seed = FIRST; seed < FIRST + SEQUENCES; seed++) {
    const uid = seed % 2 === 0 ? ['1000'] : []
    const copy = mkdtempSync('/dev/shm/vkernel-names-')
    try {
      chmodSync(copy, 0o755)
      execFileSync('cp', ['-a', `${at}/.`, copy])
      const native = spawnSync('chroot', [copy, '/names', String(seed), String(STEPS), '/tree', ...uid], { encoding: 'latin1' })
      const ours = spawnSync(client, ['run', '--rm', image, '/names', String(seed), String(STEPS), '/tree', ...uid], { encoding: 'latin1', env: { ...process.env, VKERNEL_SOCKET: d.socket } })
      t.is(native.status, 0)
      const wrong = difference(native.stdout, ours.stdout + ours.stderr)
      if (wrong !== undefined) return t.fail(`seed ${seed}, ${wrong}`)
    } finally {
      rmSync(copy, { recursive: true, force: true })
    }
  }
  t.pass()
})
