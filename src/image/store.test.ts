import test from 'ava'
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { checkName, listImages, nameImage, ownPath, removeImage, resolveImage, storePath } from './store.ts'
import { BuildError } from './tree.ts'

const base = mkdtempSync(join(tmpdir(), 'vkernel-store-'))
test.after.always(() => rmSync(base, { recursive: true, force: true }))
let serial = 0
const fresh = (): string => join(base, String(serial++))
/** Enough of a layout to have a digest. */
function layout(dir: string): string {
  const sha = 'a'.repeat(64), digest = `sha256:${sha}`
  mkdirSync(join(dir, 'blobs/sha256'), { recursive: true })
  writeFileSync(join(dir, 'index.json'), JSON.stringify({ manifests: [{ digest }] }))
  writeFileSync(join(dir, 'blobs/sha256', sha), JSON.stringify({ annotations: Object.fromEntries(['erofs', 'megabinary', 'manifest'].map((p) => [`io.recompiler.${p}`, digest])) }))
  return dir
}

test('names become paths in the store', (t) => {
  t.is(storePath('debian', '/s'), '/s/debian')
  t.is(storePath('debian:latest', '/s'), '/s/debian')
  t.is(storePath('example.org:5000/team/app:v2', '/s'), '/s/example.org:5000+team+app:v2')
  for (const wrong of ['', '.', '..', '../x', 'a/../b', '/a', 'a/', 'A', 'a b', 'a\0', '.hidden', 'a+b', 'n'.repeat(201), 'a:b/c:']) {
    t.throws(() => storePath(wrong, '/s'), { instanceOf: BuildError, message: /is no image name/ }, wrong)
  }
})

test('a directory that exists comes before a name', (t) => {
  const store = fresh()
  layout(join(store, 'debian'))
  t.is(resolveImage('debian', store), join(store, 'debian'))
  t.is(resolveImage('debian:latest', store), join(store, 'debian'))
  t.is(resolveImage(store, store), store)
  for (const none of ['nothing', '/no/such/dir', '../debian', 'Debian']) {
    t.throws(() => resolveImage(none, store), { instanceOf: BuildError, message: /no such directory, and no such name in .*recompiler images/ }, none)
  }
})

test('a name for a layout elsewhere; listing; removing the name keeps the layout', (t) => {
  const store = fresh(), dir = layout(fresh())
  layout(join(store, 'own'))
  nameImage('team/app:v1', dir, store)
  nameImage('team/app:v1', dir, store)
  t.deepEqual(listImages(store).map((i) => [i.name, i.dir, i.linked, i.digest]), [['own', join(store, 'own'), false, 'a'.repeat(64)], ['team/app:v1', dir, true, 'a'.repeat(64)]])
  t.is(resolveImage('team/app:v1', store), dir)
  removeImage('team/app:v1', store)
  t.true(existsSync(join(dir, 'index.json')))
  removeImage('own', store)
  t.deepEqual(listImages(store), [])
  t.throws(() => removeImage('own', store), { instanceOf: BuildError, message: /there is no image own/ })
})

test('a name is either the store\'s or stands for another place', (t) => {
  const store = fresh(), dir = layout(fresh())
  layout(join(store, 'own'))
  t.throws(() => checkName('own', store), { instanceOf: BuildError, message: /recompiler rmi own/ })
  t.throws(() => nameImage('own', dir, store), { instanceOf: BuildError })
  nameImage('other', dir, store)
  t.throws(() => ownPath('other', store), { instanceOf: BuildError, message: /other stands for .*recompiler rmi other/ })
  t.is(ownPath('own', store), join(store, 'own'))
})

test('a damaged image and a name of nothing are listed as such', (t) => {
  const store = fresh()
  mkdirSync(join(store, 'damaged'), { recursive: true })
  symlinkSync('/no/such/place', join(store, 'gone'))
  t.deepEqual(listImages(store).map((i) => [i.name, i.digest, i.size]), [['damaged', undefined, 0], ['gone', undefined, 0]])
  t.throws(() => resolveImage('gone', store), { instanceOf: BuildError })
  removeImage('gone', store)
  t.deepEqual(listImages(join(store, 'none')), [])
})
