/** The policy that a manifest signs: its fields, and the check that a build and a start make of them. */
import { Egress } from './egress.ts'

export interface Policy {
  /** `path+digest`: only at its own path; `digest`: anywhere. */
  readonly exec: 'path+digest' | 'digest'
  /** Destinations beyond the container's loopback (egress.ts); empty: none. */
  readonly egress: readonly string[]
  /** Who carries what leaves the container: the daemon (`proxied`, the default), or sockets of the host that the guest holds. */
  readonly network?: 'proxied' | 'native'
  /** Ports of the container that may be published: PORT[-PORT][/tcp|/udp]. */
  readonly publish?: readonly string[]
  readonly quota?: {
    /** Connections and datagram destinations, both ways, in a container's life. */
    readonly connections?: number
    /** Bytes both ways together; a proxied container's only. */
    readonly bytes?: number
  }
}

const isStrings = (v: unknown): v is string[] => Array.isArray(v) && v.every((s) => typeof s === 'string')
const isCount = (v: unknown): boolean => v === undefined || typeof v === 'number' && Number.isSafeInteger(v) && v >= 0

/** `PORT[-PORT][/tcp|/udp]` as a predicate. Throws when it is none. */
export function parsePublish(text: string): (port: number, protocol: 'tcp' | 'udp') => boolean {
  const m = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp))?$/.exec(text)
  const low = Number(m?.[1]), high = Number(m?.[2] ?? m?.[1])
  if (!m || low < 1 || high > 65_535 || low > high) throw new Error(`policy: publish: ${JSON.stringify(text)} is not PORT[-PORT][/tcp|/udp]`)
  return (port, protocol) => port >= low && port <= high && (m[3] === undefined || m[3] === protocol)
}

/** `v` as a policy. Throws an Error that names the field when it is none. */
export function checkPolicy(v: unknown): Policy {
  const wrong = (what: string): Error => new Error(`policy: ${what}`)
  if (typeof v !== 'object' || v === null || Array.isArray(v)) throw wrong('it is no object')
  const p = v as Record<string, unknown>
  for (const key of Object.keys(p)) {
    if (!['exec', 'egress', 'network', 'publish', 'quota'].includes(key)) throw wrong(`there is no field ${JSON.stringify(key)}`)
  }
  if (p['exec'] !== 'path+digest' && p['exec'] !== 'digest') throw wrong('exec is path+digest or digest')
  if (!isStrings(p['egress'])) throw wrong('egress is a list of rules')
  new Egress(p['egress'])
  if (p['network'] !== undefined && p['network'] !== 'proxied' && p['network'] !== 'native') throw wrong('network is proxied or native')
  if (p['publish'] !== undefined && !isStrings(p['publish'])) throw wrong('publish is a list of ports')
  for (const rule of p['publish'] ?? []) parsePublish(rule)
  const quota = p['quota'] ?? {}
  if (typeof quota !== 'object' || Array.isArray(quota)) throw wrong('quota is an object')
  for (const [key, n] of Object.entries(quota)) {
    if ((key !== 'connections' && key !== 'bytes') || !isCount(n)) throw wrong(`quota has connections and bytes, whole numbers, not ${key} ${JSON.stringify(n)}`)
  }
  if (p['network'] === 'native' && 'bytes' in quota) throw wrong('quota.bytes needs the network proxied: nobody counts what a native socket carries')
  return v as Policy
}
