/**
 * A container's resolver: answers A and AAAA questions for the names that its policy allows, from the
 * host's name servers, and lets those addresses be connected to for as long as it says. Every other
 * name is REFUSED without a question to anybody.
 */
import { Resolver as Upstream } from 'node:dns/promises'
import { addon } from '../native/addon.ts'
import { addressBytes, type Egress } from '../policy/egress.ts'
import { A, AAAA, failure, NOERROR, NXDOMAIN, parseQuery, REFUSED, reply, SERVFAIL, type Answer, type Question } from './dns.ts'

/** Where it listens in the container. */
export const RESOLVER = '127.0.0.53'

/** Seconds that an address stays allowed: programs keep what they have resolved, whatever the record says. */
const MIN_GRANT = 60, MAX_GRANT = 3600
/** Questions under way for a container. */
const MAX_PENDING = 256
/** Questions taken before the daemon's other work has its turn. */
const TURN = 64

/** The host's name servers, or those of `servers` (address, or address:port). */
export function upstream(servers: readonly string[]): Upstream {
  const u = new Upstream({ timeout: 2000, tries: 2 })
  if (servers.length > 0) u.setServers(servers)
  return u
}

export class Resolver {
  private pending = 0
  private readonly upstream: Upstream
  private readonly egress: Egress
  private readonly denied: (rule: string, name: string) => void

  /** `denied`: hears of every name that gets no address, and why. */
  constructor(servers: Upstream, egress: Egress, denied: (rule: string, name: string) => void) {
    this.upstream = servers
    this.egress = egress
    this.denied = denied
  }

  /** Answers what has arrived at `socket`; `open` says whether it still is when an answer comes later. */
  readable(socket: number, open: () => boolean): void {
    for (let n = 0; n < TURN; n++) {
      const d = addon.receiveFrom(socket, 4096)
      if (d.error) return
      const q = parseQuery(d.data)
      if (q === undefined) continue
      if ('rcode' in q) {
        addon.sendTo(socket, failure(q), d.address)
        continue
      }
      const address = d.address
      const answered = this.answer(q)
      if (Buffer.isBuffer(answered)) addon.sendTo(socket, answered, address)
      else void answered.then((m) => { if (open()) addon.sendTo(socket, m, address) })
    }
  }

  /** The answer to a question. */
  answer(q: Question): Buffer | Promise<Buffer> {
    if (!this.egress.allowsName(q.name)) {
      this.denied('no rule allows the name', q.name)
      return reply(q, REFUSED)
    }
    if (q.type !== A && q.type !== AAAA) return reply(q, NOERROR)
    if (this.pending >= MAX_PENDING) return reply(q, SERVFAIL)
    this.pending++
    return this.ask(q).finally(() => { this.pending-- })
  }

  private async ask(q: Question): Promise<Buffer> {
    let records: { address: string; ttl: number }[]
    try {
      records = q.type === A ? await this.upstream.resolve4(q.name, { ttl: true }) : await this.upstream.resolve6(q.name, { ttl: true })
    } catch (e) {
      const { code } = e as { code?: string }
      return reply(q, code === 'ENOTFOUND' ? NXDOMAIN : code === 'ENODATA' ? NOERROR : SERVFAIL)
    }
    const answers: Answer[] = []
    for (const { address, ttl } of records) {
      const bytes = addressBytes(address)
      if (!bytes) continue
      const seconds = Math.min(Math.max(ttl, MIN_GRANT), MAX_GRANT)
      if (this.egress.grant(q.name, bytes, seconds * 1000)) answers.push({ address: q.type === A ? bytes.subarray(12) : bytes, ttl: Math.min(ttl, seconds) })
      else this.denied(`its address ${address} is not one of a public name`, q.name)
    }
    return reply(q, NOERROR, answers)
  }
}
