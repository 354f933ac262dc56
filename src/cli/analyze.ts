/** `recompiler analyze`: an image, built or still to be built, or ELF files. */
import { existsSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { analyzeFiles, analyzeTree, type Analysis } from '../image/analyze.ts'
import { ErofsReader } from '../image/erofs-reader.ts'
import { readMegabinary } from '../image/megabinary.ts'
import { isElf } from '../image/elf.ts'
import { Budget } from '../image/layers.ts'
import { isBuilt, openLayout } from '../image/oci.ts'
import { Progress } from '../image/progress.ts'
import { readImage } from '../image/source.ts'
import { writeHints } from '../image/hints.ts'
import { hintsOf, readProfiles, type Profile } from '../image/profile.ts'
import { resolveImage } from '../image/store.ts'
import { BuildError, readExtent } from '../image/tree.ts'
import { withWorkspace } from '../image/workspace.ts'
import { args, bytes, columns, print } from './output.ts'

/** An image that is not built yet: an OCI layout or an archive. */
function analyzeSource(arg: string): Promise<Analysis> {
  const progress = new Progress()
  return withWorkspace(tmpdir(), async (temp) => {
    const { root } = await readImage(arg, 'auto', temp, new Budget(), progress)
    progress.end()
    return analyzeTree(root)
  })
}

const isElfFile = (path: string, size: number): boolean => isElf(readExtent({ path, off: 0, size: Math.min(size, 64) }))

async function analyze(positionals: readonly string[]): Promise<Analysis> {
  if (positionals.length === 0) throw new BuildError('analyze: which image, or which ELF files? see `recompiler help`')
  const stats = positionals.map((p) => statSync(p, { throwIfNoEntry: false }))
  if (positionals.length === 1 && stats[0]?.isFile() && !isElfFile(positionals[0]!, stats[0].size)) return analyzeSource(positionals[0]!)
  if (stats.every((s) => s?.isFile())) return analyzeFiles(positionals.map((path, n) => ({ path, size: stats[n]!.size })))
  if (positionals.length > 1) throw new BuildError(`analyze: ${positionals[stats.findIndex((s) => !s?.isFile())]!} is no file; give one image, or ELF files only`)
  // DIR:TAG, of a layout that somebody else made.
  if (!stats[0] && existsSync(positionals[0]!.replace(/:[^:/]*$/, ''))) return analyzeSource(positionals[0]!)
  const dir = resolveImage(positionals[0]!)
  if (!isBuilt(dir)) return analyzeSource(dir)
  const parts = openLayout(dir)
  return analyzeTree(new ErofsReader(parts.erofs.path).tree(), readMegabinary(parts.megabinary.path))
}

function lines(a: Analysis, all: boolean): string[] {
  const single = a.elfs.length <= 4 || all
  const detail = single ? a.elfs.flatMap((e) => [
    `${e.paths.join(', ')}`,
    `  sha256 ${e.sha256}`,
    ...(e.interp ? [`  interpreter ${e.interp}`] : []),
    ...e.needed.map((l) => `  needs ${l.name}${l.path ? ` → ${l.path}` : ''}`),
    ...(e.isaNeeded.length ? [`  instruction sets ${e.isaNeeded.join(' ')}`] : []),
    ...(e.syscalls.length ? [`  system calls in its text: ${e.syscalls.join(' ')}`] : []),
    ...(e.imports.length ? [`  system calls by libc: ${e.imports.join(' ')}`] : []),
    ...(e.functions === undefined ? [] : [e.nativeBytes ? `  translated: ${e.functions} functions, ${bytes(e.nativeBytes)} native` : '  not translated: it is interpreted']),
  ]) : []
  const libraries = a.elfs.filter((e) => e.soname).length
  return [
    ...detail,
    `${a.elfs.length} ELF files (${libraries} libraries), ${a.scripts.length} scripts${a.elfs.length > 4 && !all ? '; --all shows each' : ''}`,
    `${a.callsSeen} system calls seen, ${a.callsNotAnswered.length} of them not answered`,
    ...columns(a.callsNotAnswered.map((c) => [`  ${c.name}`, c.class === 'refused' ? 'refused' : 'ENOSYS', `used by ${c.usedBy}`])),
    ...(a.unsupported.length ? [`${a.unsupported.length} files cannot run as they are:`, ...a.unsupported.map((u) => `  ${u.path}: ${u.why}`)] : ['nothing speaks against running it']),
  ]
}

const options = {
  json: { type: 'boolean' }, all: { type: 'boolean' },
  profile: { type: 'string', multiple: true }, 'flame-graph': { type: 'string' }, hints: { type: 'string' },
} as const

/** What ran translated and what did not, with the causes; files that hold more are written when asked for. */
async function analyzeProfile(files: readonly string[], values: { json?: boolean | undefined; all?: boolean | undefined; 'flame-graph'?: string | undefined; hints?: string | undefined }): Promise<number> {
  const svg = values['flame-graph']
  if (svg && files.length > 1) throw new BuildError('analyze: a flame graph is of one profile')
  // A flame graph alone asks for no causes, which take discovery of every file concerned.
  const causes = !svg || values.hints !== undefined || values.json === true
  const p = await readProfiles(files, { svg, causes })
  const hints = hintsOf(p)
  if (values.hints) writeHints(values.hints, hints)
  print(values.json, p, () => profileLines(p, { causes, all: values.all === true, svg, hints: values.hints ? [...hints.values()].reduce((s, l) => s + l.length, 0) : undefined, hintFile: values.hints }))
  return 0
}

function profileLines(p: Profile, o: { causes: boolean; all: boolean; svg: string | undefined; hints: number | undefined; hintFile: string | undefined }): string[] {
  const time = p.code + p.interpreter + p.host
  const share = (n: number, of: number, digits = 1): string => `${(of ? 100 * n / of : 0).toFixed(digits)} %`
  const executed = (p.translated ?? 0) + p.interpreted
  const places = p.places.slice(0, o.all ? undefined : 15)
  return [
    `time: ${time} ms sampled: ${share(p.code, time)} translated code, ${share(p.interpreter, time)} interpreter, ${share(p.host, time)} loader and host calls`,
    p.translated === undefined
      ? `instructions: ${p.interpreted} interpreted; an image built with --count counts the translated ones too`
      : `instructions: ${executed}, of which ${share(p.translated, executed, 4)} ran translated and ${p.interpreted} were interpreted`,
    ...(o.causes ? columns(p.causes.map((c) => [`  ${c.cause}`, share(c.instructions, p.translated === undefined ? p.interpreted : executed, 4), `${c.instructions} instructions`, `${c.times} times`])) : []),
    ...(o.causes && places.length ? ['where interpretation began:', ...columns(places.map((l) => [`  ${l.path ?? '?'}`, `0x${l.vaddr.toString(16)}`, l.symbol, l.cause, String(l.instructions)]))] : []),
    ...(o.svg ? [`flame graph: ${o.svg}`] : []),
    ...(o.hintFile ? [`hints: ${o.hints} addresses in ${o.hintFile}; \`recompiler build --hints ${o.hintFile} …\` translates them`] : []),
  ]
}

export async function analyzeVerb(argv: string[]): Promise<number> {
  const { values, positionals } = args('analyze', { args: argv, allowPositionals: true, options })
  if (values.profile) return analyzeProfile([...values.profile, ...positionals], values)
  const a = await analyze(positionals)
  print(values.json, a, () => lines(a, values.all === true))
  return 0
}
