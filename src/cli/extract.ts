/** `recompiler extract`: what became of one function of an image, by the recompiler's own `extract`. */
import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ErofsReader } from '../image/erofs-reader.ts'
import { openLayout } from '../image/oci.ts'
import { resolveImage } from '../image/store.ts'
import { openManifest } from '../image/verify.ts'
import { RECOMPILER } from '../image/translate.ts'
import { BuildError, eachChunk, lookup, writeAll } from '../image/tree.ts'
import { args, print } from './output.ts'

/** The path in the image to look in: --elf, or the only program that is no library. */
function choose(dir: string, elf: string | undefined): string {
  if (elf) return elf
  const m = openManifest(dir)
  if ('ok' in m) throw new BuildError(`the manifest of ${dir} is not valid: ${m.why}; \`recompiler verify ${dir}\` checks the rest`)
  const programs = m.predicate.programs.filter((p) => p.kind === 'elf' && !/\.so(\.|$)/.test(p.path))
  if (programs.length === 1) return programs[0]!.path
  throw new BuildError(`the image holds ${programs.length} programs; say which with --elf PATH, for example --elf ${programs[0]?.path ?? '/bin/ls'}`)
}

export function extractVerb(argv: string[]): number {
  const { values, positionals } = args('extract', { args: argv, allowPositionals: true, options: { elf: { type: 'string' }, json: { type: 'boolean' } } })
  if (positionals.length < 1 || positionals.length > 2) throw new BuildError('extract: usage: recompiler extract IMAGE [SYMBOL|ADDRESS] [--elf PATH]; without a name it lists the functions')
  const dir = resolveImage(positionals[0]!)
  const elf = choose(dir, values.elf)
  const found = lookup(new ErofsReader(openLayout(dir).erofs.path).tree(), elf)
  if (!found?.node.source) throw new BuildError(`the image has no file ${elf}; \`recompiler analyze --all ${positionals[0]!}\` lists the programs`)
  const temp = mkdtempSync(join(tmpdir(), 'vkernel-extract-'))
  try {
    const file = join(temp, 'elf')
    const fd = openSync(file, 'wx', 0o600)
    try {
      eachChunk(found.node.source, (chunk) => writeAll(fd, chunk))
    } finally {
      closeSync(fd)
    }
    const r = spawnSync(RECOMPILER, ['extract', file, ...positionals.slice(1)], { encoding: 'utf8', maxBuffer: 1 << 28 })
    if (r.error) throw new BuildError(`cannot start the recompiler: ${r.error.message}; run \`npm run build\``)
    if (r.status !== 0) throw new BuildError(r.stderr.trim().replace(/^recompiler: /, '').replaceAll(file, elf) || `the recompiler failed (${r.signal ?? r.status})`)
    print(values.json, { elf: found.path, function: positionals[1] ?? null, text: r.stdout }, () => r.stdout.replace(/\n$/, '').split('\n'))
    return 0
  } finally {
    rmSync(temp, { recursive: true, force: true })
  }
}
