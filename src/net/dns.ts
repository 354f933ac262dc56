/** DNS messages (RFC 1035), as much as a stub resolver's question and its answer need. */

export const A = 1, AAAA = 28
export const NOERROR = 0, FORMERR = 1, SERVFAIL = 2, NXDOMAIN = 3, NOTIMP = 4, REFUSED = 5

export interface Question {
  readonly id: number
  readonly recursion: boolean
  /** In lower case, without a dot at its end. */
  readonly name: string
  readonly type: number
  /** The question's bytes as they came, for the answer. */
  readonly bytes: Buffer
}

export interface Answer { readonly address: Buffer; readonly ttl: number }

const HEADER = 12
/** What fits where nothing else was agreed (RFC 1035, 2.3.4). */
const MAX = 512

/** The question of a query; a number: the rcode it deserves; undefined: no answer at all. */
export function parseQuery(m: Buffer): Question | { readonly id: number; readonly rcode: number } | undefined {
  if (m.length < HEADER) return undefined
  const id = m.readUInt16BE(0), flags = m.readUInt16BE(2)
  // An answer, which nobody asked for.
  if (flags & 0x8000) return undefined
  if ((flags >> 11 & 15) !== 0) return { id, rcode: NOTIMP }
  if (m.readUInt16BE(4) !== 1) return { id, rcode: FORMERR }
  const labels: string[] = []
  let at = HEADER
  for (;;) {
    const n = m[at]
    // No compression: there is nothing before a question to point to.
    if (n === undefined || n > 63 || at + 1 + n > m.length || at - HEADER > 255) return { id, rcode: FORMERR }
    at += 1 + n
    if (n === 0) break
    labels.push(m.toString('latin1', at - n, at).toLowerCase())
  }
  if (at + 4 > m.length) return { id, rcode: FORMERR }
  // A dot inside a label, or another class: no name that a rule could be for.
  if (labels.some((l) => l.includes('.')) || m.readUInt16BE(at + 2) !== 1) return { id, rcode: REFUSED }
  return { id, recursion: (flags & 0x100) !== 0, name: labels.join('.'), type: m.readUInt16BE(at), bytes: m.subarray(HEADER, at + 4) }
}

function header(id: number, rcode: number, recursion: boolean, questions: number, answers: number): Buffer {
  const h = Buffer.alloc(HEADER)
  h.writeUInt16BE(id, 0)
  h.writeUInt16BE(0x8080 | (recursion ? 0x100 : 0) | rcode, 2)
  h.writeUInt16BE(questions, 4)
  h.writeUInt16BE(answers, 6)
  return h
}

export const failure = (q: { readonly id: number; readonly rcode: number }): Buffer => header(q.id, q.rcode, true, 0, 0)

/** The answer to `q`: as many of `answers` as fit into 512 bytes, so that it is never truncated. */
export function reply(q: Question, rcode: number, answers: readonly Answer[] = []): Buffer {
  const records: Buffer[] = []
  let size = HEADER + q.bytes.length
  for (const { address, ttl } of answers) {
    const r = Buffer.alloc(12 + address.length)
    if ((size += r.length) > MAX) break
    // A pointer to the question's name.
    r.writeUInt16BE(0xc000 | HEADER, 0)
    r.writeUInt16BE(q.type, 2)
    r.writeUInt16BE(1, 4)
    r.writeUInt32BE(ttl, 6)
    r.writeUInt16BE(address.length, 10)
    address.copy(r, 12)
    records.push(r)
  }
  return Buffer.concat([header(q.id, rcode, q.recursion, 1, records.length), q.bytes, ...records])
}
