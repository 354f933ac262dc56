/** `recompiler extract`: what became of one function of an image, by the recompiler's own `extract`. */
import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ErofsReader } from '../image/erofs-reader.ts'
import { readMegabinary } from '../image/megabinary.ts'
import { openLayout } from '../image/oci.ts'
import { resolveImage } from '../image/store.ts'
import { openManifest } from '../image/verify.ts'
import { RECOMPILER } from '../image/translate.ts'
import { BuildError, eachChunk, hashExtent, lookup, writeAll } from '../image/tree.ts'
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
  const { values, positionals } = args('extract', { args: argv, allowPositionals: true, options: { elf: { type: 'string' }, symbol: { type: 'string' }, address: { type: 'string' }, json: { type: 'boolean' } } })
  const { symbol, address } = values
  const wanted = [...positionals.slice(1), ...(symbol === undefined ? [] : [symbol]), ...(address === undefined ? [] : [address])]
  if (positionals.length < 1 || wanted.length > 1) throw new BuildError('extract: usage: recompiler extract IMAGE [--elf PATH] [--symbol NAME | --address 0x…]; without a name it lists the functions')
  if (address !== undefined && !/^(0x)?[0-9a-f]{1,8}$/i.test(address)) throw new BuildError(`extract: --address ${address}: write it in hexadecimal, 0x1234`)
  const dir = resolveImage(positionals[0]!)
  const elf = choose(dir, values.elf)
  const parts = openLayout(dir)
  const found = lookup(new ErofsReader(parts.erofs.path).tree(), elf)
  if (!found?.node.source) throw new BuildError(`the image has no file ${elf}; \`recompiler analyze --all ${positionals[0]!}\` lists the programs`)
  const temp = mkdtempSync(join(tmpdir(), 'vkernel-extract-'))
  try {
    const file = join(temp, 'elf')
    const sha256 = hashExtent(found.node.source)
    const base = readMegabinary(parts.megabinary.path).entries.find((e) => e.sha256 === sha256)?.base
    const fd = openSync(file, 'wx', 0o600)
    try {
      eachChunk(found.node.source, (chunk) => writeAll(fd, chunk))
    } finally {
      closeSync(fd)
    }
    const r = spawnSync(RECOMPILER, ['extract', file, ...wanted, ...(wanted.length && base !== undefined ? [base.toString(16)] : [])], { encoding: 'utf8', maxBuffer: 1 << 28 })
    if (r.error) throw new BuildError(`cannot start the recompiler: ${r.error.message}; run \`npm run build\``)
    if (r.status !== 0) throw new BuildError(r.stderr.trim().replace(/^recompiler: /, '').replaceAll(file, elf) || `the recompiler failed (${r.signal ?? r.status})`)
    print(values.json, { elf: found.path, function: wanted[0] ?? null, text: r.stdout }, () => r.stdout.replace(/\n$/, '').split('\n'))
    return 0
  } finally {
    rmSync(temp, { recursive: true, force: true })
  }
}
