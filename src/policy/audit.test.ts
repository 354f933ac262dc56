import test from 'ava'
import { appendFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Audit, verifyAudit } from './audit.ts'

const event = (rule: string) => ({ container: 'c', event: 'exec', decision: 'denied', rule }) as const

/** A log of `count` records, closed. */
function log(t: { teardown: (f: () => void) => void }, count: number): string {
  const dir = mkdtempSync(join(tmpdir(), 'vkernel-audit-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const file = join(dir, 'sub', 'audit.jsonl')
  const a = new Audit(file)
  for (let n = 0; n < count; n++) a.record(event(`rule ${n}`))
  a.close()
  return file
}

test('the chain goes on over restarts', (t) => {
  const file = log(t, 3)
  for (let n = 0; n < 3; n++) {
    const a = new Audit(file)
    a.record(event('again'))
    t.is(a.checkpoint.seq, 4 + n)
    a.close()
  }
  const v = verifyAudit(file)
  t.true(v.ok)
  t.is(v.records, 6)
})

test('every change of a byte is found', (t) => {
  const file = log(t, 4)
  const good = readFileSync(file)
  for (let at = 0; at < good.length; at++) {
    const bad = Buffer.from(good)
    bad[at]! ^= 1
    writeFileSync(file, bad)
    const v = verifyAudit(file, { seq: 4, hash: lastHash(good) })
    t.false(v.ok, `byte ${at}`)
  }
})

const lastHash = (bytes: Buffer): string => {
  const file = join(mkdtempSync(join(tmpdir(), 'vkernel-audit-')), 'a')
  writeFileSync(file, bytes)
  const { head } = verifyAudit(file)
  rmSync(join(file, '..'), { recursive: true })
  return head.hash
}

test('a record that is missing, doubled or moved is found, and where', (t) => {
  const file = log(t, 5)
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n')
  const with_ = (list: string[]) => { writeFileSync(file, list.join('\n') + '\n'); return verifyAudit(file) }
  t.like(with_([...lines.slice(0, 2), ...lines.slice(3)]), { ok: false, line: 3 })
  t.like(with_([...lines.slice(0, 3), lines[2]!, ...lines.slice(3)]), { ok: false, line: 4 })
  t.like(with_([lines[1]!, lines[0]!, ...lines.slice(2)]), { ok: false, line: 1 })
  t.like(with_(lines), { ok: true, records: 5 })
})

test('a cut at the end is found by a checkpoint', (t) => {
  const file = log(t, 5)
  const { head } = verifyAudit(file)
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n')
  writeFileSync(file, lines.slice(0, 3).join('\n') + '\n')
  t.true(verifyAudit(file).ok)
  t.like(verifyAudit(file, head), { ok: false, why: 'the log ends at record 3, the checkpoint is 5' })
})

test('half a record of a killed daemon is cut off, on record', (t) => {
  const file = log(t, 3)
  truncateSync(file, readFileSync(file).length - 10)
  t.false(verifyAudit(file).ok)
  const a = new Audit(file)
  a.record(event('after'))
  a.close()
  t.like(verifyAudit(file), { ok: true, records: 4 })
  t.regex(readFileSync(file, 'utf8'), /bytes of an unfinished record were cut off/)
})

test('a second daemon does not get the log', (t) => {
  const file = log(t, 1)
  const a = new Audit(file)
  t.throws(() => new Audit(file), { message: /in use by another daemon/ })
  a.close()
  t.notThrows(() => { new Audit(file).close() })
})

test('a file that is no log is not continued', (t) => {
  const file = log(t, 1)
  appendFileSync(file, 'not a record\n')
  t.throws(() => new Audit(file), { message: /damaged/ })
})

const full = process.getuid!() === 0 ? test : test.skip
full('a record that cannot be written throws and leaves no half of itself', async (t) => {
  const { spawnSync } = await import('node:child_process')
  const dir = mkdtempSync(join(tmpdir(), 'vkernel-audit-'))
  t.is(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', dir]).status, 0)
  t.teardown(() => { spawnSync('umount', ['-l', dir]); rmSync(dir, { recursive: true }) })
  const a = new Audit(join(dir, 'a'))
  let written = 0
  t.throws(() => { for (;;) { a.record(event('x'.repeat(1000))); written++ } }, { code: 'ENOSPC' })
  a.close()
  t.like(verifyAudit(join(dir, 'a')), { ok: true, records: written })
})
