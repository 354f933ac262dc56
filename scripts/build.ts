/** Builds the project, then does what an npm script asks for. Started by bootstrap.mjs. */
import { join } from 'node:path'
import { buildNative } from './native.ts'
import { root } from './stamp.ts'
import { fail, must, say } from './system.ts'

const [verb = 'build', ...rest] = process.argv.slice(2)
const node = process.execPath

/** What each verb does after the build; the exit status. Loaded when asked for. */
const verbs: Record<string, () => number | Promise<number>> = {
  build: () => {
    say('built: bin/recompiler, bin/vkernel')
    return 0
  },
  start: async () => (await import('./start.ts')).start(),
  test: async () => (await import('./test.ts')).runTests('short'),
  'test:long': async () => (await import('./test.ts')).runTests('long'),
  check: async () => (await import('./test.ts')).runTests('check'),
  conformance: () => onDebianImage('comparing command lines with native Linux', 'conformance/commands.ts'),
  'conformance:calls': () => {
    must('comparing system calls with native Linux', node, [join(root, 'scripts/daemon.ts'), node, join(root, 'conformance/run.ts'), ...rest])
    return 0
  },
  bench: () => onDebianImage('measuring', 'bench/run.ts', rest.includes('services')),
}

/** Runs a script on the Debian root file system, or the one with services, and its image, with a daemon of its own. */
async function onDebianImage(what: string, script: string, services = false): Promise<number> {
  const { DEBIAN, SERVICES, makeRootfs, makeRootfsImage } = await import('./rootfs.ts')
  const of = services ? SERVICES : DEBIAN
  const why = makeRootfs(of)
  if (why) fail(why)
  makeRootfsImage(of)
  must(what, node, [join(root, 'scripts/daemon.ts'), node, join(root, script), '--rootfs', of.rootfs, '--image', of.image, ...rest])
  return 0
}

const run = verbs[verb]
if (!run) fail(`no verb ${verb}`, `npm run ${Object.keys(verbs).join(' | ')}`)
buildNative()
try {
  process.exit(await run())
} catch (e) {
  fail((e as Error).message)
}
