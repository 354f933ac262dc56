/**
 * Which destinations beyond its loopback a container may talk to: rules of the signed policy,
 *
 *     DESTINATION[:PORT[-PORT]][/tcp|/udp]     DESTINATION: CIDR, [CIDR6], NAME or *.NAME
 *
 * no port: all ports; no protocol: both. Addresses are compared in their 16-byte form; addresses that
 * carry an IPv4 address (mapped, NAT64, 6to4) are judged as that address too. A name's addresses are
 * those that the container's resolver has handed out for it (`grant`), for as long as it said.
 */

export interface Address {
  /** AF_INET or AF_INET6. */
  readonly family: 2 | 10
  /** 16 bytes; IPv4 as ::ffff:a.b.c.d. */
  readonly bytes: Buffer
  readonly port: number
}

export type Protocol = 'tcp' | 'udp'

interface Scope { readonly text: string; readonly low: number; readonly high: number; readonly protocol: Protocol | undefined }
interface NetRule extends Scope { readonly net: Buffer; readonly bits: number }
/** `name`: in lower case, without the `*.` of a rule for what is below it. */
interface NameRule extends Scope { readonly name: string; readonly below: boolean }
type Rule = NetRule | NameRule

const MAPPED = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])

const v4 = (text: string): Buffer | undefined => {
  const parts = text.split('.')
  if (parts.length !== 4 || !parts.every((p) => /^(0|[1-9]\d{0,2})$/.test(p) && Number(p) < 256)) return undefined
  return Buffer.concat([MAPPED, Buffer.from(parts.map(Number))])
}

const v6 = (text: string): Buffer | undefined => {
  const halves = text.split('::')
  if (halves.length > 2) return undefined
  const groups = (half: string): number[] | undefined => {
    const list = half === '' ? [] : half.split(':')
    return list.every((g) => /^[0-9a-f]{1,4}$/i.test(g)) ? list.map((g) => parseInt(g, 16)) : undefined
  }
  const head = groups(halves[0]!), tail = groups(halves[1] ?? '')
  if (!head || !tail) return undefined
  const missing = 8 - head.length - tail.length
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined
  const b = Buffer.alloc(16)
  const all = [...head, ...Array.from({ length: missing }, () => 0), ...tail]
  all.forEach((g, n) => b.writeUInt16BE(g, 2 * n))
  return b
}

const NAME = /^(\*\.)?((?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)$/

/** Reads a rule. Throws when it is none. */
export function parseRule(text: string): Rule {
  const wrong = (): Error => new Error(`egress: ${JSON.stringify(text)} is not DESTINATION[:PORT[-PORT]][/tcp|/udp] with an address, a network or a name`)
  const m = /^(\[[0-9a-f:]+\](?:\/\d{1,3})?|[^:/[\]]+(?:\/\d{1,3})?)(?::(\d{1,5})(?:-(\d{1,5}))?)?(?:\/(tcp|udp))?$/i.exec(text)
  if (!m) throw wrong()
  const [, to, first, last, protocol] = m
  const low = Number(first ?? 0), high = Number(last ?? first ?? 65_535)
  if (low > high || high > 65_535) throw wrong()
  const scope = { text, low, high, protocol: protocol?.toLowerCase() as Protocol | undefined }
  const cidr = /^(?:\[([0-9a-f:]+)\]|([0-9.]+))(?:\/(\d{1,3}))?$/i.exec(to!)
  if (cidr) {
    const net = cidr[1] ? v6(cidr[1]) : v4(cidr[2]!)
    const width = cidr[1] ? 128 : 32
    const bits = Number(cidr[3] ?? width)
    if (!net || bits > width) throw wrong()
    return { ...scope, net, bits: bits + 128 - width }
  }
  const name = NAME.exec(to!.toLowerCase())
  if (!name || name[2]!.length > 253) throw wrong()
  return { ...scope, name: name[2]!, below: name[1] !== undefined }
}

const network = (text: string): NetRule => parseRule(text) as NetRule

const inside = (a: Buffer, net: Buffer, bits: number): boolean => {
  for (let n = 0; n < 16 && bits > 8 * n; n++) {
    const mask = bits >= 8 * (n + 1) ? 0xff : (0xff << (8 * (n + 1) - bits)) & 0xff
    if ((a[n]! ^ net[n]!) & mask) return false
  }
  return true
}

/** Never reached, whatever is allowed: cloud metadata, link-local, multicast, broadcast, "this network". */
const NEVER = ['0.0.0.0/8', '169.254.0.0/16', '168.63.129.16', '224.0.0.0/4', '240.0.0.0/4', '[fe80::]/10', '[ff00::]/8', '[fd00:ec2::254]', '[::]/127']
  .map(network)

/** Where a public name has no business to lead: a name's answer with one of these is taken for rebinding. */
const PRIVATE = ['10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '172.16.0.0/12', '192.0.0.0/24', '192.168.0.0/16', '198.18.0.0/15', '[fc00::]/7', '[fec0::]/10']
  .map(network)

/** The address itself, and the IPv4 address it carries. */
function forms(a: Buffer): Buffer[] {
  const embedded = (at: number): Buffer => Buffer.concat([MAPPED, a.subarray(at, at + 4)])
  if (inside(a, v6('64:ff9b::')!, 96)) return [a, embedded(12)]
  if (a[0] === 0x20 && a[1] === 0x02) return [a, embedded(2)]
  if (inside(a, v6('::')!, 96)) return [a, embedded(12)]
  return [a]
}

/** sockaddr_in or sockaddr_in6; undefined: neither. */
export function parseAddress(b: Buffer): Address | undefined {
  const family = b.length >= 2 ? b.readUInt16LE(0) : 0
  if (family === 2 && b.length >= 8) return { family, bytes: Buffer.concat([MAPPED, b.subarray(4, 8)]), port: b.readUInt16BE(2) }
  if (family === 10 && b.length >= 24) return { family, bytes: Buffer.from(b.subarray(8, 24)), port: b.readUInt16BE(2) }
  return undefined
}

export function showAddress(a: Address): string {
  const ip4 = a.bytes.subarray(0, 12).equals(MAPPED)
  const ip = ip4 ? [...a.bytes.subarray(12)].join('.') : `[${Array.from({ length: 8 }, (_, n) => a.bytes.readUInt16BE(2 * n).toString(16)).join(':')}]`
  return `${ip}:${a.port}`
}

/** A sockaddr_in or sockaddr_in6 of an address; IPv4 addresses as IPv4, however they came. */
export function sockaddr(bytes: Buffer, port: number): Buffer {
  const ip4 = bytes.subarray(0, 12).equals(MAPPED)
  const b = Buffer.alloc(ip4 ? 16 : 28)
  b.writeUInt16LE(ip4 ? 2 : 10, 0)
  b.writeUInt16BE(port, 2)
  bytes.copy(b, ip4 ? 4 : 8, ip4 ? 12 : 0)
  return b
}

/** 16 bytes of a textual address; undefined: it is none. */
export const addressBytes = (text: string): Buffer | undefined => text.includes(':') ? v6(text) : v4(text)

const applies = (r: Scope, port: number, protocol: Protocol): boolean =>
  port >= r.low && port <= r.high && (r.protocol === undefined || r.protocol === protocol)

const names = (r: NameRule, name: string): boolean => r.below ? name.endsWith(`.${r.name}`) : name === r.name

/** Whether `a` allows nothing that `b` does not. */
function within(a: Rule, b: Rule): boolean {
  if (a.low < b.low || a.high > b.high || b.protocol !== undefined && a.protocol !== b.protocol) return false
  if ('net' in a) return 'net' in b && a.bits >= b.bits && inside(a.net, b.net, b.bits)
  if ('net' in b) return false
  return a.below ? b.below && (a.name === b.name || a.name.endsWith(`.${b.name}`)) : names(b, a.name)
}

/** Addresses of names that are remembered at a time. */
const MAX_GRANTS = 10_000

export class Egress {
  private readonly signed: readonly Rule[]
  private rules: readonly Rule[]
  /** By address, in hex: the name it was handed out for, and until when (ms). */
  private readonly grants = new Map<string, Map<string, number>>()

  constructor(list: readonly string[]) {
    this.signed = this.rules = list.map(parseRule)
  }

  /** The rules in force. */
  get list(): string[] {
    return this.rules.map((r) => r.text)
  }

  /** The rule that allows `a`; undefined: none does. */
  allows(a: Address, protocol: Protocol, now = Date.now()): string | undefined {
    const all = forms(a.bytes)
    if (all.some((f) => NEVER.some((r) => inside(f, r.net, r.bits)))) return undefined
    // Loopback is the container's own; the host's is never meant.
    if (all.some((f) => inside(f, v4('127.0.0.0')!, 104))) return undefined
    for (const r of this.rules) {
      if ('net' in r && applies(r, a.port, protocol) && all.every((f) => inside(f, r.net, r.bits))) return r.text
    }
    for (const [name, until] of this.grants.get(a.bytes.toString('hex')) ?? []) {
      const rule = until > now && this.rules.find((r) => 'name' in r && names(r, name) && applies(r, a.port, protocol))
      if (rule) return `${rule.text} (${name})`
    }
    return undefined
  }

  /** Whether a rule is for `name`, in lower case and without a dot at its end. */
  allowsName(name: string): boolean {
    return this.rules.some((r) => 'name' in r && names(r, name))
  }

  /**
   * The resolver says that `name` has the address `bytes` for `ms` milliseconds. False: it may not
   * have it. An address of the host's surroundings is never a name's, unless a rule has the number.
   */
  grant(name: string, bytes: Buffer, ms: number, now = Date.now()): boolean {
    const all = forms(bytes)
    const numbered = this.rules.some((r) => 'net' in r && all.every((f) => inside(f, r.net, r.bits)))
    if (all.some((f) => NEVER.some((r) => inside(f, r.net, r.bits)))) return false
    if (!numbered && all.some((f) => PRIVATE.some((r) => inside(f, r.net, r.bits)))) return false
    const key = bytes.toString('hex')
    const known = this.grants.get(key) ?? new Map<string, number>()
    known.set(name, Math.max(known.get(name) ?? 0, now + ms))
    this.grants.delete(key)
    this.grants.set(key, known)
    for (const old of this.grants.keys()) {
      if (this.grants.size <= MAX_GRANTS) break
      this.grants.delete(old)
    }
    return true
  }

  /** Puts `list` in force. Throws when a rule of it allows more than the signed ones. */
  narrow(list: readonly string[]): void {
    const rules = list.map(parseRule)
    for (const r of rules) {
      if (!this.signed.some((s) => within(r, s))) throw new Error(`egress: ${r.text} is more than the signed policy allows (${this.signed.map((s) => s.text).join(', ') || 'nothing'})`)
    }
    this.rules = rules
  }
}
