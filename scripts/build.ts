/** Builds the project, and runs what an npm script asks for. Started by bootstrap.mjs. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { runTests } from './test.ts'

const root = join(import.meta.dirname, '..')
const verb = process.argv[2] ?? 'build'

export function must(what: string, command: string, args: string[], cwd = root): void {
  console.error(`vkernel: ${what}`)
  const r = spawnSync(command, args, { cwd, stdio: 'inherit' })
  if (r.error) {
    console.error(`vkernel: ${what}: cannot run ${command}: ${r.error.message}`)
    process.exit(1)
  }
  if (r.status !== 0) {
    console.error(`vkernel: ${what} failed: ${command} ${args.join(' ')}`)
    process.exit(r.status ?? 1)
  }
}

switch (verb) {
  case 'build':
    break
  case 'test':
    process.exit(runTests(root))
  // eslint-disable-next-line no-fallthrough -- process.exit does not return
  default:
    console.error(`vkernel: \`npm run ${verb}\` is not there yet; see docs/quirks.md`)
    process.exit(1)
}
