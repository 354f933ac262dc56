/** The whole way of a stub: build, unpack the ordinary image, run what stands there under a daemon. */
import test from 'ava'
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root, TestDaemon } from '../daemon/testing.ts'
import { applyLayer, Budget, emptyRoot } from '../image/layers.ts'
import { blobPath, readJson, type Descriptor } from '../image/oci.ts'
import { STUB } from '../image/stub.ts'
import { lookup, readExtent } from '../image/tree.ts'

const base = mkdtempSync(join(tmpdir(), 'vkernel-stub-run-'))
Object.assign(process.env, { HOME: base, XDG_CACHE_HOME: '', VKERNEL_KEYS: join(root, 'build/test-images/keys'), VKERNEL_IMAGES: join(base, 'images'), VKERNEL_SOCKET: join(base, 's') })
let daemon: TestDaemon | undefined

test.after.always(async () => {
  await daemon?.remove()
  rmSync(base, { recursive: true, force: true })
})

/** Writes the executable of the image's layer that `path` names to the host; returns where. */
function unpack(path: string): string {
  const dir = join(base, 'images/tools')
  const { manifests: [image] } = readJson(join(dir, 'index.json')) as { manifests: Descriptor[] }
  const { layers: [layer] } = readJson(blobPath(dir, image!.digest)) as { layers: Descriptor[] }
  const blob = blobPath(dir, layer!.digest)
  const tree = emptyRoot()
  applyLayer(tree, { path: blob, off: 0, size: statSync(blob).size }, 'the layer', new Budget())
  const file = join(base, path.replaceAll('/', '-'))
  writeFileSync(file, readExtent(lookup(tree, path)!.node.source!))
  chmodSync(file, 0o755)
  return file
}

test('programs of an unpacked image run under the daemon', async (t) => {
  if (![STUB, join(root, 'native/target/release/vkernel-loader'), join(root, 'build/addon.node')].every(existsSync)) {
    t.log('skipped: the native parts are not built (npm run build)')
    return t.pass()
  }
  const built = spawnSync(process.execPath, [join(root, 'src/cli/main.ts'), 'build', '-t', 'tools', '--no-translate', '--from-host', '/bin/cat', '/bin/sh', '/bin/false'], { encoding: 'utf8' })
  t.is(built.status, 0, built.stderr)
  const program = (path: string): string => unpack(realpathSync(path))
  const sh = program('/bin/sh'), cat = program('/bin/cat'), no = program('/bin/false')
  t.true(statSync(cat).size < 64 << 10, 'it is a stub')
  const alone = spawnSync(cat, [], { encoding: 'utf8' })
  t.is(alone.status, 125)
  t.regex(alone.stderr, /no vkernel daemon answers/)

  daemon = await TestDaemon.start({ dir: base })
  const run = (file: string, args: string[], input = ''): [number | null, string, string] => {
    const r = spawnSync(file, args, { encoding: 'utf8', env: { ...process.env, MARK: 'passed on' }, input, cwd: '/', timeout: 60_000 })
    return [r.status, r.stdout, r.stderr]
  }
  t.deepEqual(run(cat, [], 'through stdin\n'), [0, 'through stdin\n', ''])
  t.deepEqual(run(no, []), [1, '', ''])
  t.deepEqual(run(sh, ['-c', 'echo "$MARK" "$1"; pwd; echo err >&2; exit 7', 'sh', 'argument']), [7, 'passed on argument\n/\n', 'err\n'])
})
