#!/usr/bin/env node
/**
 * What every npm script goes through: installs what is missing, builds what has changed, then does
 * the one thing asked for. Plain JavaScript for any Node from 18 on; everything after it runs under
 * the Node 24 that the package `node` brings.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync, mkdirSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const [verb = 'build', ...rest] = process.argv.slice(2)
const node = join(root, 'node_modules/.bin/node')

function run(command, args, options = {}) {
  const r = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options })
  if (r.error) fail(`cannot run ${command}: ${r.error.message}`)
  return r.status ?? 1
}

function must(command, args, options) {
  const status = run(command, args, options)
  if (status !== 0) process.exit(status)
}

function fail(message) {
  console.error(`vkernel: ${message}`)
  process.exit(1)
}

/** Runs `make` only when the bytes of `inputs` have changed since the last success. */
function whenChanged(name, inputs, make) {
  const hash = createHash('sha256')
  for (const file of inputs) hash.update(file).update(existsSync(join(root, file)) ? readFileSync(join(root, file)) : '')
  const stamp = join(root, 'build', `${name}.stamp`)
  const digest = hash.digest('hex')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === digest) return
  make()
  mkdirSync(dirname(stamp), { recursive: true })
  writeFileSync(stamp, digest)
}

function install() {
  whenChanged('install', ['package.json', 'package-lock.json'], () => {
    console.error('vkernel: installing npm packages')
    must('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'])
  })
}

install()
process.exit(run(node, ['scripts/build.ts', verb, ...rest]))
