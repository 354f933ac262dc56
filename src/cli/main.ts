/** The TypeScript side of `recompiler`: build, verify, inspect. The Rust client runs `run` and `exec` itself. */
import { parseArgs } from 'node:util'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { build } from '../image/build.ts'
import { fromHost } from '../image/from-host.ts'
import { verify } from '../image/verify.ts'
import { BuildError, fromDirectory } from '../image/tree.ts'

const DEFAULT_ENV = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin']

const usage = `usage:
  recompiler build -o DIR (--rootfs DIR | --from-host PATH...) [--exec path+digest|digest] [--no-translate]
  recompiler run [--rm] [-i] [-t] [-e K=V] [-w DIR] [-u USER] IMAGE PATH [ARG...]
  recompiler verify IMAGE
`

export function cacheDirectory(): string {
  return join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'vkernel', 'translations')
}

function buildVerb(argv: string[]): number {
  const { values, positionals } = parseArgs({
    args: argv, allowPositionals: true,
    options: {
      output: { type: 'string', short: 'o' }, rootfs: { type: 'string' }, 'from-host': { type: 'boolean' },
      exec: { type: 'string', default: 'path+digest' }, 'no-translate': { type: 'boolean' }, 'no-cache': { type: 'boolean' },
      json: { type: 'boolean' },
    },
  })
  if (!values.output) throw new BuildError('build: where to? give -o DIR')
  if (values.exec !== 'path+digest' && values.exec !== 'digest') throw new BuildError(`build: --exec is path+digest or digest, not ${values.exec}`)
  if (Boolean(values.rootfs) === Boolean(values['from-host'])) throw new BuildError('build: give one input, --rootfs DIR or --from-host PATH...')
  const root = values.rootfs ? fromDirectory(values.rootfs) : fromHost(positionals)
  const result = build(root, {
    out: values.output,
    policy: { exec: values.exec, egress: [] },
    config: { env: DEFAULT_ENV, cwd: '/', user: '0', cmd: [], entrypoint: [] },
    translate: !values['no-translate'],
    ...(values['no-cache'] ? {} : { cache: cacheDirectory() }),
  })
  if (values.json) console.log(JSON.stringify(result))
  else {
    console.log(`${values.output}: ${result.programs} programs (${result.elfs} ELF files) ${result.digest}`)
    for (const r of result.refused) console.log(`refused: ${r}`)
  }
  return 0
}

function main(argv: string[]): number {
  const [verb, ...rest] = argv
  switch (verb) {
    case 'build': return buildVerb(rest)
    case 'verify': {
      if (!rest[0]) throw new BuildError('verify: which image?')
      const checks = verify(rest[0])
      for (const c of checks) console.log(`${c.ok ? 'pass' : 'FAIL'} ${c.part}${c.digest ? ` sha256:${c.digest}` : ''}${c.why ? `: ${c.why}` : ''}`)
      return checks.every((c) => c.ok) ? 0 : 1
    }
    case undefined: case '--help': case 'help':
      process.stdout.write(usage)
      return 0
    default:
      process.stderr.write(`recompiler: no verb ${verb}\n${usage}`)
      return 125
  }
}

try {
  process.exitCode = main(process.argv.slice(2))
} catch (e) {
  const known = e instanceof BuildError || (e as { code?: string }).code?.startsWith('ERR_PARSE_ARGS')
  process.stderr.write(`recompiler: ${known ? (e as Error).message : (e as Error).stack}\n`)
  process.exitCode = 125
}
