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

export async function analyzeVerb(argv: string[]): Promise<number> {
  const { values, positionals } = args('analyze', { args: argv, allowPositionals: true, options: { json: { type: 'boolean' }, all: { type: 'boolean' } } })
  const a = await analyze(positionals)
  print(values.json, a, () => lines(a, values.all === true))
  return 0
}
