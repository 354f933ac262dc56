/** `recompiler build`: chooses the input and the place of the output. */
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { build, type Input } from '../image/build.ts'
import { readHints } from '../image/hints.ts'
import { fromHost } from '../image/from-host.ts'
import { Budget } from '../image/layers.ts'
import type { Progress } from '../image/progress.ts'
import { defaultConfig, readImage, type SourceKind } from '../image/source.ts'
import { readStub } from '../image/stub.ts'
import type { Totals } from '../image/translate.ts'
import { checkName, nameImage, ownPath } from '../image/store.ts'
import { BuildError, fromDirectory } from '../image/tree.ts'
import { checkPolicy, type Policy } from '../policy/policy.ts'
import { args, bytes, print } from './output.ts'

export function cacheDirectory(): string {
  return join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'vkernel', 'translations')
}

/** A number of bytes: 1073741824, 512M, 4G. */
export function parseSize(text: string): number {
  const m = /^([0-9]{1,15})([KMGT])?B?$/i.exec(text)
  const n = m ? Number(m[1]) * 2 ** (10 * (m[2] ? 1 + 'KMGT'.indexOf(m[2].toUpperCase()) : 0)) : 0
  if (n <= 0 || n > Number.MAX_SAFE_INTEGER) throw new BuildError(`build: --max-size ${text} is no size; write 512M or 4G`)
  return n
}

type Reader = (temp: string, progress: Progress) => Input | Promise<Input>

const options = {
  output: { type: 'string', short: 'o' }, tag: { type: 'string', short: 't' },
  rootfs: { type: 'string' }, 'from-host': { type: 'boolean' }, oci: { type: 'string' }, 'docker-archive': { type: 'string' }, image: { type: 'string' },
  exec: { type: 'string' }, policy: { type: 'string' }, egress: { type: 'string', multiple: true }, publish: { type: 'string', multiple: true }, network: { type: 'string' }, 'max-size': { type: 'string' },
  'no-translate': { type: 'boolean' }, 'no-cache': { type: 'boolean' }, 'no-stubs': { type: 'boolean' }, hints: { type: 'string' }, count: { type: 'boolean' }, json: { type: 'boolean' },
} as const

function chooseInput(values: Record<string, string | boolean | string[] | undefined>, positionals: readonly string[]): Reader {
  const image = (arg: string, kind: SourceKind): Reader => (temp, progress) =>
    readImage(arg, kind, temp, new Budget(values['max-size'] ? parseSize(String(values['max-size'])) : undefined), progress)
  const given: Reader[] = []
  const text = (name: string): string | undefined => values[name] as string | undefined
  if (text('rootfs')) given.push(() => ({ root: fromDirectory(text('rootfs')!), config: defaultConfig }))
  if (text('oci')) given.push(image(text('oci')!, 'oci'))
  if (text('docker-archive')) given.push(image(text('docker-archive')!, 'docker-archive'))
  if (text('image')) given.push(image(text('image')!, 'auto'))
  if (values['from-host']) given.push(() => ({ root: fromHost(positionals), config: defaultConfig }))
  else if (positionals.length > 1) throw new BuildError(`build: ${positionals.length} inputs are given; an image has one`)
  else if (positionals[0] !== undefined) given.push(image(positionals[0], 'auto'))
  if (values['from-host'] && positionals.length === 0) throw new BuildError('build: --from-host needs the paths of programs')
  if (given.length !== 1) throw new BuildError('build: give one input: IMAGE (an OCI layout or a docker archive), --rootfs DIR or --from-host PATH...')
  return given[0]!
}

/** The policy of `--policy FILE`, with what the options say in its place. */
function choosePolicy(values: { exec?: string | undefined; policy?: string | undefined; network?: string | undefined; egress?: string[] | undefined; publish?: string[] | undefined }): Policy {
  const { policy: file, ...given } = values
  try {
    const base = file === undefined ? {} : JSON.parse(readFileSync(file, 'utf8')) as object
    const options = Object.entries({ exec: given.exec, network: given.network, egress: given.egress, publish: given.publish }).filter(([, v]) => v !== undefined)
    return checkPolicy({ exec: 'path+digest', egress: [], ...base, ...Object.fromEntries(options) })
  } catch (e) {
    throw new BuildError(`build: ${file === undefined ? '' : `${file}: `}${(e as Error).message}`)
  }
}

/** How much of the code is translated, and which instructions are not. */
function coverage(t: Totals): string[] {
  const list = (of: Readonly<Record<string, number>>): string => Object.entries(of).slice(0, 8).map(([name, n]) => `${name} ${n}`).join(', ') + (Object.keys(of).length > 8 ? ', …' : '')
  const count = (of: Readonly<Record<string, number>>): number => Object.values(of).reduce((s, n) => s + n, 0)
  const stepped = count(t.stepped), unknown = count(t.unknown)
  const share = (n: number): string => (100 * n / t.instructions).toFixed(3)
  return [
    `covered: ${(100 * t.covered / t.text).toFixed(1)} % of the text (the rest is padding, data, and code that was not found); ${t.instructions} instructions, ${share(t.instructions - stepped - unknown)} % of them translated`,
    ...(stepped ? [`left to the interpreter: ${share(stepped)} %: ${list(t.stepped)}`] : []),
    ...(unknown ? [`unsupported (SIGILL when they run): ${share(unknown)} %: ${list(t.unknown)}`] : []),
  ]
}

export async function buildVerb(argv: string[]): Promise<number> {
  const { values, positionals } = args('build', { args: argv, allowPositionals: true, options })
  const { output, tag } = values
  if (!output && !tag) throw new BuildError('build: where to? give -o DIR or -t NAME')
  const policy = choosePolicy(values)
  const read = chooseInput(values, positionals)
  const hints = values.hints ? readHints(values.hints) : undefined
  // A name that stands for a layout elsewhere is checked before the work, not after it.
  const out = output ?? ownPath(tag!)
  if (output && tag) checkName(tag)
  const result = await build(read, {
    out, policy, translate: !values['no-translate'],
    ...(values['no-stubs'] ? {} : { stub: readStub() }),
    ...(hints ? { hints } : {}), ...(values.count ? { count: true } : {}),
    ...(values['no-cache'] ? {} : { cache: cacheDirectory() }),
  })
  if (output && tag) nameImage(tag, output)
  const { totals } = result
  print(values.json, { ...result, directory: out, ...(tag ? { name: tag } : {}) }, () => [
    `${tag ?? out}: ${result.programs} programs (${result.elfs} ELF files) ${result.digest}`,
    ...(totals.functions ? coverage(totals) : []),
    ...(totals.functions ? [`translated: ${totals.functions} functions, ${bytes(totals.text)} of x86 text to ${bytes(totals.native)} of native code (${(totals.native / totals.text).toFixed(1)} times); ${totals.cached} of ${result.elfs} files from the cache`] : []),
    ...result.refused.map((r) => `refused: ${r}`),
  ])
  return 0
}
