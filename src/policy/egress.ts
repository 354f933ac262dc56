/**
 * Which destinations beyond its loopback a container may connect to: a list of CIDR[:PORT[-PORT]]
 * of the signed policy. Nothing is resolved by name. Addresses are compared in their 16-byte form;
 * addresses that carry an IPv4 address (mapped, NAT64, 6to4) are judged as that address too.
 */

export interface Address {
  /** AF_INET or AF_INET6. */
  readonly family: 2 | 10
  /** 16 bytes; IPv4 as ::ffff:a.b.c.d. */
  readonly bytes: Buffer
  readonly port: number
}

interface Rule { readonly text: string; readonly net: Buffer; readonly bits: number; readonly low: number; readonly high: number }

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

/** `10.0.0.0/8:443`, `192.0.2.1`, `[2001:db8::]/32:80-90`; no port: all ports. Throws when it is none. */
export function parseRule(text: string): Rule {
  const m = /^(?:\[([0-9a-f:]+)\]|([0-9.]+))(?:\/(\d{1,3}))?(?::(\d{1,5})(?:-(\d{1,5}))?)?$/i.exec(text)
  const net = m && (m[1] ? v6(m[1]) : v4(m[2]!))
  const width = m?.[1] ? 128 : 32
  const bits = Number(m?.[3] ?? width)
  const low = Number(m?.[4] ?? 0), high = Number(m?.[5] ?? m?.[4] ?? 65_535)
  if (!net || bits > width || low > high || high > 65_535) throw new Error(`egress: ${JSON.stringify(text)} is not CIDR[:PORT[-PORT]]`)
  return { text, net, bits: bits + 128 - width, low, high }
}

const inside = (a: Buffer, net: Buffer, bits: number): boolean => {
  for (let n = 0; n < 16 && bits > 8 * n; n++) {
    const mask = bits >= 8 * (n + 1) ? 0xff : (0xff << (8 * (n + 1) - bits)) & 0xff
    if ((a[n]! ^ net[n]!) & mask) return false
  }
  return true
}

/** Never reached, whatever is allowed: cloud metadata, link-local, multicast, broadcast, "this network". */
const NEVER = ['0.0.0.0/8', '169.254.0.0/16', '168.63.129.16', '224.0.0.0/4', '240.0.0.0/4', '[fe80::]/10', '[ff00::]/8', '[fd00:ec2::254]', '[::]/127']
  .map(parseRule)

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

export class Egress {
  private readonly rules: readonly Rule[]

  constructor(list: readonly string[]) {
    this.rules = list.map(parseRule)
  }

  /** The rule that allows `a`; undefined: none does. */
  allows(a: Address): string | undefined {
    const all = forms(a.bytes)
    if (all.some((f) => NEVER.some((r) => inside(f, r.net, r.bits)))) return undefined
    // Loopback is the container's own; the host's is never meant.
    if (all.some((f) => inside(f, v4('127.0.0.0')!, 104))) return undefined
    return this.rules.find((r) => a.port >= r.low && a.port <= r.high && all.every((f) => inside(f, r.net, r.bits)))?.text
  }
}
