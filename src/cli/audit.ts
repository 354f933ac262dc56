/** `recompiler audit verify`: is an audit log what the daemon wrote, record by record? Needs no daemon. */
import { BuildError } from '../image/tree.ts'
import { verifyAudit, type Checkpoint } from '../policy/audit.ts'
import { args, print } from './output.ts'

/** `SEQ:HASH` of a record, as an earlier run printed it. */
function checkpointOf(text: string): Checkpoint {
  const m = /^(\d{1,15}):([0-9a-f]{64})$/.exec(text)
  if (!m) throw new BuildError(`--checkpoint ${text}: it is SEQ:HASH, as \`recompiler audit verify\` prints it`)
  return { seq: Number(m[1]), hash: m[2]! }
}

/** Exit status 0: every record continues the one before it, and the checkpoint is among them; 1: it is not so. */
export function auditVerb(argv: string[]): number {
  const { values, positionals } = args('audit', { args: argv, allowPositionals: true, options: { json: { type: 'boolean' }, checkpoint: { type: 'string' } } })
  const [what, file] = positionals
  if (what !== 'verify' || file === undefined || positionals.length > 2) throw new BuildError('usage: recompiler audit verify FILE [--checkpoint SEQ:HASH]')
  const verdict = verifyAudit(file, values.checkpoint === undefined ? undefined : checkpointOf(values.checkpoint))
  const { ok, records, line, why, head } = verdict
  print(values.json, { file, ...verdict }, () => [ok
    ? `pass ${file}: ${records} records; checkpoint ${head.seq}:${head.hash} (kept elsewhere, it shows a cut at the end)`
    : `FAIL ${file}: line ${line}: ${why}; the ${records} records before it are whole. Keep the file, and compare it with a copy`])
  return ok ? 0 : 1
}
