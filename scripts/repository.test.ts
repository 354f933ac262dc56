/** What the documents promise about the repository is there. */
import test from 'ava'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { repositoryFiles } from './files.ts'
import { root } from './stamp.ts'

const read = (f: string): string => readFileSync(join(root, f), 'utf8')
const files = repositoryFiles()
const documents = files.filter((f) => f.endsWith('.md'))
const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
/** Made by a build or a test run, so named but not in the repository. */
const MADE = /^(build|bin|node_modules|native\/target)\//

test('every npm script that a document names exists', (t) => {
  const wrong = documents.flatMap((f) => [...read(f).matchAll(/\bnpm (?:run ([\w:-]+)|(start|test)\b)/g)]
    .map((m) => m[1] ?? m[2]!).filter((name) => !(name in scripts)).map((name) => `${f}: npm run ${name}`))
  t.deepEqual(wrong, [])
})

test('CONTRIBUTING names every npm script', (t) => {
  const text = read('CONTRIBUTING.md')
  const named = (s: string): boolean => text.includes(`\`npm run ${s}\``) || text.includes(`\`npm ${s}\``)
  t.deepEqual(Object.keys(scripts).filter((s) => !named(s)), [])
})

test('every link to a file leads somewhere', (t) => {
  const wrong = documents.flatMap((f) => [...read(f).matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)]
    .map((m) => m[1]!).filter((to) => !/^[a-z]+:/.test(to) && !existsSync(join(root, dirname(f), to)))
    .map((to) => `${f}: ${to}`))
  t.deepEqual(wrong, [])
})

test('every path in backticks exists', (t) => {
  const wrong = documents.flatMap((f) => [...read(f).matchAll(/`((?:src|native|scripts|docs|conformance|systemd|bench)\/[\w./-]*\w)\/?`/g)]
    .map((m) => m[1]!).filter((p) => !MADE.test(p) && !existsSync(join(root, p))).map((p) => `${f}: ${p}`))
  t.deepEqual(wrong, [])
})

test('every document that the sources refer to exists', (t) => {
  const sources = files.filter((f) => /\.(ts|mjs|js|rs)$/.test(f))
  const wrong = sources.flatMap((f) => [...read(f).matchAll(/\bdocs\/[\w./-]+\.md\b/g)]
    .filter((m) => !existsSync(join(root, normalize(m[0])))).map((m) => `${f}: ${m[0]}`))
  t.deepEqual(wrong, [])
})

test('dependencies have exact versions', (t) => {
  const p = JSON.parse(read('package.json')) as Record<'dependencies' | 'devDependencies', Record<string, string>>
  t.deepEqual(Object.entries({ ...p.dependencies, ...p.devDependencies }).filter(([, v]) => !/^\d+\.\d+\.\d+$/.test(v)), [])
})

test('each hardening line of the units has a reason above its group', (t) => {
  const bare = ['systemd/vkernel.service', 'systemd/vkernel.socket', 'systemd/vkernel.slice'].flatMap((f) => {
    // A group is a run of lines without a blank or a section head; it starts with a comment.
    return read(f).split(/\n\n|\n(?=\[)/).filter((g) => /^(?:\[Service\]|\[Socket\]|\[Slice\])?[\s\S]*=/.test(g) && !/^\[(Unit|Install)\]/.test(g))
      .filter((g) => !g.includes('#')).map((g) => `${f}: ${g.split('\n')[0]}`)
  })
  t.deepEqual(bare, [])
})
