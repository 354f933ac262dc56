/** `recompiler verify`: every check with its result and digest; needs no daemon and no network. */
import { resolveImage } from '../image/store.ts'
import { verify } from '../image/verify.ts'
import { args, one, print } from './output.ts'

/** Exit status 0: every check passed; 1: at least one failed. */
export function verifyVerb(argv: string[]): number {
  const { values, positionals } = args('verify', { args: argv, allowPositionals: true, options: { json: { type: 'boolean' } } })
  const dir = resolveImage(one('verify', positionals, 'image'))
  const checks = verify(dir)
  const ok = checks.every((c) => c.ok)
  print(values.json, { image: dir, ok, checks }, () => [
    ...checks.map((c) => `${c.ok ? 'pass' : 'FAIL'} ${c.part}${c.digest ? ` sha256:${c.digest}` : ''}${c.why ? `: ${c.why}` : ''}`),
    ok ? `${dir}: ${checks.length} checks passed` : `${dir}: ${checks.filter((c) => !c.ok).length} of ${checks.length} checks failed; do not run it, build it again`,
  ])
  return ok ? 0 : 1
}
