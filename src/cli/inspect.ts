/** `recompiler inspect`: what an image is: manifest, policy, sizes, counts. */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { ErofsReader } from '../image/erofs-reader.ts'
import { open, peek, trustedKeys } from '../image/manifest.ts'
import { readMegabinary } from '../image/megabinary.ts'
import { openLayout, type Part } from '../image/oci.ts'
import { resolveImage } from '../image/store.ts'
import type { Policy } from '../policy/policy.ts'
import { BuildError } from '../image/tree.ts'
import { args, bytes, columns, one, print } from './output.ts'

function facts(dir: string): Record<string, unknown> & { signature: string } {
  const parts = openLayout(dir)
  for (const [name, { path }] of Object.entries(parts)) if (!existsSync(path)) throw new BuildError(`${dir}: the ${name} blob is missing; build the image again`)
  const envelope = readFileSync(parts.manifest.path)
  const { manifest, keyids } = peek(envelope)
  const checked = open(envelope, trustedKeys())
  const { programs, policy, config, abi, target, version } = manifest.predicate
  const mega = readMegabinary(parts.megabinary.path)
  const size = (part: Part): { digest: string; size: number } => ({ digest: `sha256:${parts[part].digest}`, size: statSync(parts[part].path).size })
  return {
    directory: dir,
    signature: typeof checked === 'string' ? checked : 'valid', keyids,
    abi, target, version, policy, config,
    parts: { manifest: size('manifest'), 'image.erofs': size('erofs'), megabinary: size('megabinary') },
    inodes: new ErofsReader(parts.erofs.path).inodes,
    programs: programs.filter((p) => p.kind === 'elf').length,
    scripts: programs.filter((p) => p.kind === 'script').length,
    elfFiles: mega.entries.length,
    translatedElfFiles: mega.entries.filter((e) => e.codeLen > 0).length,
    functions: mega.entries.reduce((n, e) => n + e.slotCount, 0),
    guestTextBytes: mega.entries.reduce((n, e) => n + e.textEnd - e.textStart, 0),
    nativeCodeBytes: mega.entries.reduce((n, e) => n + e.codeLen, 0),
  }
}

/** Exit status 1 when the signature is not valid: what is shown is then anybody's word. */
export function inspectVerb(argv: string[]): number {
  const { values, positionals } = args('inspect', { args: argv, allowPositionals: true, options: { json: { type: 'boolean' } } })
  const f = facts(resolveImage(one('inspect', positionals, 'image')))
  print(values.json, f, () => {
    const { policy, config, parts } = f as unknown as {
      policy: Policy
      config: { env: string[]; cwd: string; user: string; cmd: string[]; entrypoint: string[] }
      parts: Record<string, { digest: string; size: number }>
    }
    const row = (name: string, value: unknown): [string, string] => [name, String(value)]
    return columns([
      row('directory', f['directory']),
      row('signature', f.signature === 'valid' ? `valid, key ${String(f['keyids'])}` : `NOT VALID: ${f.signature}`),
      row('target', `${String(f['target'])}, abi ${String(f['abi'])}, version ${String(f['version'])}`),
      ...Object.entries(parts).map(([name, p]) => row(name, `${p.digest} ${bytes(p.size)}`)),
      row('policy', `exec ${policy.exec}; egress ${policy.egress.join(', ') || 'none'}; publish ${policy.publish?.join(', ') ?? 'none'}; network ${policy.network ?? 'proxied'}`),
      ...Object.entries(policy.quota ?? {}).map(([name, n]) => row('quota', `${n} ${name}`)),
      row('entrypoint', JSON.stringify(config.entrypoint)), row('cmd', JSON.stringify(config.cmd)),
      row('cwd, user', `${config.cwd}, ${config.user}`),
      ...config.env.map((e) => row('env', e)),
      row('files', `${String(f['inodes'])} inodes`),
      row('programs', `${String(f['programs'])} ELF paths (${String(f['elfFiles'])} files), ${String(f['scripts'])} scripts`),
      row('translated', `${String(f['translatedElfFiles'])} ELF files, ${String(f['functions'])} functions, ${bytes(f['guestTextBytes'] as number)} of x86 → ${bytes(f['nativeCodeBytes'] as number)} native`),
    ])
  })
  return f.signature === 'valid' ? 0 : 1
}
