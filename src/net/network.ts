/**
 * The network of one container: decides what leaves it, has the relay carry it (README.md), publishes
 * ports, answers names, keeps the accounts. Everything here is synchronous; the relay's thread and the
 * resolver's answers come back through the daemon's loop.
 */
import { closeSync } from 'node:fs'
import * as E from '../abi/errno.ts'
import { addon } from '../native/addon.ts'
import type { AuditEvent } from '../policy/audit.ts'
import { Egress, parseAddress, showAddress, sockaddr, addressBytes, type Address, type Protocol } from '../policy/egress.ts'
import type { PublishedPort } from './ports.ts'
import { CONNECTED, OVER, WANTS, type Relay } from './relay.ts'
import { Resolver, RESOLVER, type upstream } from './resolver.ts'
import { Sockets, type Kind } from './sockets.ts'

export type Backend = 'proxied' | 'native'

export interface Quota {
  /** Connections and datagram destinations, both ways, in the container's life. */
  readonly connections?: number
  /** Bytes both ways together; counted where the daemon carries them. */
  readonly bytes?: number
}

export interface NetworkOptions {
  /** False: the container has its loopback and nothing else. */
  readonly enabled: boolean
  readonly backend: Backend
  readonly egress: Egress
  readonly quota: Quota
  readonly relay: Relay
  readonly upstream: ReturnType<typeof upstream>
  readonly watch: (fd: number, ready: () => void) => () => void
  readonly record: (event: Omit<AuditEvent, 'container'>) => void
}

/** The container's addresses (native/loader/src/sockets.rs), and who speaks for the host there. */
const OWN = { 4: addressBytes('198.18.0.2')!, 6: addressBytes('fd76:6b65:726e::2')! }
const HOST = { 4: addressBytes('198.18.0.1')!, 6: addressBytes('fd76:6b65:726e::1')! }

/** Datagram destinations that are kept open; the first one makes room. */
const MAX_PORTS = 1024
/** Different refusals that are counted. */
const MAX_DENIALS = 1000
/** As long as Linux tries to connect (tcp(7) tcp_syn_retries), and some. */
const CONNECT_MS = 140_000
/** Connections taken from a published port before others have their turn. */
const TURN = 64
const SOCK_STREAM = 1, SOCK_DGRAM = 2

const version = (a: Buffer): 4 | 6 => a.readUInt16LE(0) === 2 ? 4 : 6
const isMapped = (a: Address): boolean => sockaddr(a.bytes, 0).length === 16
/** The first ten, then the 100th, 1000th, …: what is repeated without end shall not fill a disk. */
const isNotable = (n: number): boolean => n <= 10 || /^10*$/.test(String(n))

export interface Denial { readonly program: string; readonly rule: string; readonly count: number }

export class Network {
  /** As the loader has it (native/loader/src/egress.rs). */
  readonly backend: Backend | 'none'
  private readonly o: NetworkOptions
  private readonly group: number
  private readonly resolver: Resolver
  private sockets: Sockets | undefined
  private closed = false
  private connections = 0
  private readonly unwatch: (() => void)[] = []
  private readonly listeners: { fd: number; port: PublishedPort; address: Buffer }[] = []
  /** Relays to the outside, by number: where they go. */
  private readonly out = new Map<number, { address: Address; protocol: Protocol }>()
  /** Far ends of datagrams: relay by address. */
  private readonly ports = new Map<string, number>()
  /** Listeners that keep connecting guests waiting, by address. */
  private readonly holds = new Map<string, { readonly fd: number; waiting: number; readonly crowded: boolean }>()
  private readonly denials = new Map<string, number>()

  constructor(o: NetworkOptions) {
    this.o = o
    this.backend = o.enabled ? o.backend : 'none'
    this.group = !o.enabled ? 0 : o.relay.group(o.quota.bytes ?? -1, () => { this.denied('', `the quota of ${o.quota.bytes} bytes is used up`) })
    this.resolver = new Resolver(o.upstream, o.egress, (rule, name) => { this.denied('', `${rule} ${name}`) })
  }

  /** The container's namespaces are there: `channel` leads to its socket maker. */
  joined(channel: number): void {
    this.sockets = new Sockets(channel)
    const dns = this.bound('udp4', sockaddr(addressBytes(RESOLVER)!, 53))
    if (dns >= 0) this.watch(dns, () => { this.resolver.readable(dns, () => !this.closed) })
    for (const l of this.listeners) this.open(l)
  }

  private watch(fd: number, ready: () => void): void {
    const stop = this.o.watch(fd, ready)
    this.unwatch.push(() => { stop(); closeSync(fd) })
  }

  /** A socket of the container, bound; −1: it cannot be. */
  private bound(kind: Kind, address: Buffer, hold = false): number {
    const fd = this.sockets?.take(kind) ?? -1
    if (fd >= 0 && addon.bindInside(fd, address, hold) >= 0) return fd
    if (fd >= 0) closeSync(fd)
    return -1
  }

  private denied(program: string, rule: string): void {
    const key = `${program}\0${rule}`
    const n = (this.denials.get(key) ?? 0) + 1
    if (n > 1 || this.denials.size < MAX_DENIALS) this.denials.set(key, n)
    if (isNotable(n)) this.o.record({ event: 'egress', decision: 'denied', ...(program ? { path: program } : {}), rule: n <= 10 ? rule : `${rule} (${n} times)` })
  }

  /** Takes one from the account of connections; false: there is none left. */
  private counted(program: string): boolean {
    const { connections, bytes } = this.o.quota
    if (bytes !== undefined && this.usage.bytes >= bytes) {
      this.denied(program, `the quota of ${bytes} bytes is used up`)
      return false
    }
    if (connections !== undefined && this.connections >= connections) {
      this.denied(program, `the quota of ${connections} connections is used up`)
      return false
    }
    this.connections++
    return true
  }

  /**
   * A guest's socket of type `kind` at `own` (a struct sockaddr) wants to talk to `address`. `native`:
   * it takes a socket of the host's for it: the result is one. Otherwise 0: it may go on.
   * Errors: EACCES: no rule, or no quota; those of the host's connect.
   */
  connect(program: string, kind: number, address: Address, own: Buffer, native: boolean): E.Errno {
    const protocol = kind === SOCK_STREAM ? 'tcp' : 'udp'
    const to = sockaddr(address.bytes, address.port)
    // An answer to what came by a published port.
    if (kind === SOCK_DGRAM && !native && this.o.enabled && addon.relaySpeaks(this.group, to)) return 0
    if (kind !== SOCK_STREAM && kind !== SOCK_DGRAM || native !== (this.backend === 'native') || this.o.egress.allows(address, protocol) === undefined) {
      this.denied(program, `no rule allows ${showAddress(address)}/${protocol}`)
      return -E.EACCES
    }
    if (native) return this.counted(program) ? addon.connectOut(kind, to) : -E.EACCES
    return kind === SOCK_DGRAM ? this.datagrams(program, address, to) : this.stream(program, address, to, own)
  }

  private stream(program: string, address: Address, to: Buffer, own: Buffer): E.Errno {
    const from = parseAddress(own)
    if (!from || from.port === 0) return -E.EINVAL
    if (!this.counted(program)) return -E.EACCES
    const v = version(to)
    // A socket that is bound to no address has the container's.
    const guest = from.bytes.subarray(0, 12).every((b) => b === 0) || isMapped(from) && from.bytes.readUInt32BE(12) === 0 ? OWN[v] : from.bytes
    const host = addon.connectOut(SOCK_STREAM, to)
    if (host < 0) return host
    const far = this.bound(`tcp${v}`, to)
    if (far < 0 || !this.hold(to)) {
      for (const fd of [host, far]) if (fd >= 0) closeSync(fd)
      return -E.EADDRNOTAVAIL
    }
    let waiting = true
    const id = this.o.relay.pair(this.group, host, far, sockaddr(guest, from.port), (kind) => {
      if (waiting && (kind === CONNECTED || kind === OVER)) {
        waiting = false
        this.release(to, kind === OVER)
      }
      if (kind === OVER) this.out.delete(id)
    })
    this.out.set(id, { address, protocol: 'tcp' })
    return 0
  }

  /** Has connecting guests wait at `to`. */
  private hold(to: Buffer): boolean {
    const key = to.toString('hex')
    const known = this.holds.get(key)
    if (known) {
      known.waiting++
      return true
    }
    const fd = this.sockets?.take(`tcp${version(to)}`) ?? -1
    const r = fd < 0 ? fd : addon.bindInside(fd, to, true)
    if (r >= 0) this.holds.set(key, { fd, waiting: 1, crowded: r === 1 })
    else if (fd >= 0) closeSync(fd)
    return r >= 0
  }

  /** `refused`: the guest is still waiting. A server of its own on that port would answer it: then it is left to its time-out. */
  private release(to: Buffer, refused: boolean): void {
    const key = to.toString('hex')
    const h = this.holds.get(key)
    if (!h) return
    if (refused && h.crowded) {
      setTimeout(() => { this.release(to, false) }, CONNECT_MS).unref()
      return
    }
    if (--h.waiting > 0) return
    this.holds.delete(key)
    closeSync(h.fd)
  }

  private datagrams(program: string, address: Address, to: Buffer): E.Errno {
    const key = to.toString('hex')
    if (this.ports.has(key)) return 0
    if (!this.counted(program)) return -E.EACCES
    const fd = this.bound(`udp${version(to)}`, to)
    if (fd < 0) return -E.EADDRNOTAVAIL
    const id = this.o.relay.port(this.group, fd, to, false, Buffer.alloc(0), () => {})
    this.ports.set(key, id)
    this.out.set(id, { address, protocol: 'udp' })
    for (const [old, relay] of this.ports) {
      if (this.ports.size <= MAX_PORTS) break
      this.ports.delete(old)
      this.cut(relay)
    }
    return 0
  }

  private cut(id: number): void {
    this.out.delete(id)
    this.o.relay.close(id)
  }

  /** Puts `rules` in force and ends what they no longer allow. Throws when they are more than was signed. */
  narrow(rules: readonly string[]): void {
    this.o.egress.narrow(rules)
    this.o.record({ event: 'policy', decision: 'reported', rule: `egress is now ${rules.join(', ') || 'nothing'}` })
    for (const [id, { address, protocol }] of this.out) if (this.o.egress.allows(address, protocol) === undefined) this.cut(id)
    const left = new Set(this.out.keys())
    for (const [key, id] of this.ports) if (!left.has(id)) this.ports.delete(key)
  }

  /** Listens on the host for `port`. Errors: −errno of the host. Connections are taken once the container is there. */
  publish(port: PublishedPort): E.Errno {
    const kind = port.protocol === 'tcp' ? SOCK_STREAM : SOCK_DGRAM
    const places = port.ip ? [port.ip] : [addressBytes('0.0.0.0')!, addressBytes('::')!]
    let { hostPort } = port
    for (const [n, ip] of places.entries()) {
      const fd = addon.listenInet(kind, sockaddr(ip, hostPort))
      // A host without IPv6.
      if (n > 0 && (fd === -E.EAFNOSUPPORT || fd === -E.EADDRNOTAVAIL)) continue
      if (fd < 0) return fd
      const address = addon.socketAddress(fd)
      hostPort = address.readUInt16BE(2)
      this.listeners.push({ fd, port, address })
    }
    return 0
  }

  /** `0.0.0.0:8080->80/tcp`, as docker shows them. */
  get published(): string[] {
    return this.listeners.map((l) => `${showAddress(parseAddress(l.address)!)}->${l.port.port}/${l.port.protocol}`)
  }

  private open(l: { fd: number; port: PublishedPort; address: Buffer }): void {
    const v = version(l.address)
    if (l.port.protocol === 'tcp') {
      this.watch(l.fd, () => { for (let n = 0; n < TURN && this.accept(l.fd, v, l.port.port); n++); })
      return
    }
    const more = (): number[] => Array.from({ length: 8 }, () => this.sockets?.take(`udp${v}`) ?? -1).filter((fd) => fd >= 0)
    const fd = l.fd
    l.fd = -1
    const id = this.o.relay.port(this.group, fd, sockaddr(OWN[v], l.port.port), true, sockaddr(HOST[v], 0), (kind) => {
      if (kind === WANTS) addon.relaySpares(id, more())
    })
    addon.relaySpares(id, more())
  }

  /** Takes one connection of the host's; false: there is none. */
  private accept(listener: number, v: 4 | 6, port: number): boolean {
    const { fd, address } = addon.acceptInet(listener)
    if (fd < 0) return false
    const inner = this.counted('') ? this.reach(parseAddress(address), v, port) : -1
    if (inner < 0) closeSync(fd)
    else this.o.relay.pair(this.group, fd, inner, Buffer.alloc(0), () => {})
    return true
  }

  /** A socket that connects to the container's `port` in the name of `peer`. */
  private reach(peer: Address | undefined, v: 4 | 6, port: number): number {
    if (!peer) return -1
    // The host's loopback would be taken for the container's.
    const loopback = isMapped(peer) ? peer.bytes[12] === 127 : peer.bytes.subarray(0, 15).every((b) => b === 0)
    // A peer by IPv6 of a guest that listens by IPv4 alone has no address of its own there.
    const ways: [4 | 6, Buffer][] = [[v, loopback ? HOST[v] : peer.bytes], ...(v === 6 ? [[4, HOST[4]] as [4, Buffer]] : [])]
    for (const [w, from] of ways) {
      let fd = this.bound(`tcp${w}`, sockaddr(from, peer.port))
      // The port is another connection's.
      if (fd < 0) fd = this.bound(`tcp${w}`, sockaddr(HOST[w], 0))
      if (fd < 0) continue
      const r = addon.connectInside(fd, sockaddr(OWN[w], port))
      if (r === 0 || r === -E.EINPROGRESS) return fd
      closeSync(fd)
    }
    return -1
  }

  get usage(): { connections: number; bytes: number; open: number } {
    return { connections: this.connections, bytes: this.o.enabled ? addon.relayBytes(this.group) : 0, open: this.out.size }
  }

  get rules(): string[] {
    return this.o.egress.list
  }

  /** What was refused, the most frequent first. */
  get refused(): Denial[] {
    return [...this.denials].map(([key, count]) => ({ program: key.split('\0')[0]!, rule: key.split('\0')[1]!, count })).sort((a, b) => b.count - a.count)
  }

  destroy(): void {
    if (this.closed) return
    this.closed = true
    // A listener that is not watched yet is closed here, the others by their watch.
    if (!this.sockets) for (const l of this.listeners) if (l.fd >= 0) closeSync(l.fd)
    for (const stop of this.unwatch.splice(0)) stop()
    if (this.o.enabled) this.o.relay.drop(this.group)
    for (const h of this.holds.values()) closeSync(h.fd)
    this.holds.clear()
    this.sockets?.close()
  }
}
