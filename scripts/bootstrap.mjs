#!/usr/bin/env node
/**
 * What every npm script goes through: installs what is missing, builds what has changed, then does
 * the one thing asked for. Plain JavaScript for any Node from 20 on; everything after it runs under
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

/** `npm ci`, when the lock file has changed since the last one, or nothing is installed. */
function install() {
  const stamp = join(root, 'build/install.stamp')
  const digest = createHash('sha256').update(readFileSync(join(root, 'package-lock.json'))).digest('hex')
  if (existsSync(node) && existsSync(stamp) && readFileSync(stamp, 'utf8') === digest) return
  console.error('vkernel: installing npm packages')
  must('npm', ['ci', '--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=error'])
  mkdirSync(dirname(stamp), { recursive: true })
  writeFileSync(stamp, digest)
}

if (process.platform !== 'linux' || process.arch !== 'x64') fail(`this is ${process.platform} on ${process.arch}; vkernel runs on x86-64 Linux`)
if (Number(process.versions.node.split('.')[0]) < 20) fail(`Node is ${process.version}; npm scripts need Node 20 or later to install their own`)
install()
process.exit(run(node, ['scripts/build.ts', verb, ...rest]))
