/** Containers' networks, from policy and request to what src/net does with them. */
import { closeSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT } from '../abi/errno.ts'
import { addon } from '../native/addon.ts'
import { Network } from '../net/network.ts'
import { parsePort } from '../net/ports.ts'
import { Relay } from '../net/relay.ts'
import { RESOLVER, upstream } from '../net/resolver.ts'
import type { Audit } from '../policy/audit.ts'
import { Egress } from '../policy/egress.ts'
import { parsePublish, type Policy } from '../policy/policy.ts'
import type { Container } from '../task/container.ts'
import { VkError } from './errors.ts'
import type { Loop } from './loop.ts'
import type { Zygote } from './zygote.ts'

export class Networks {
  private readonly loop: Loop
  private readonly audit: Audit
  private readonly relay: Relay
  private readonly upstream: ReturnType<typeof upstream>

  /** `dns`: name servers for containers; none: the host's. */
  constructor(loop: Loop, audit: Audit, dns: readonly string[]) {
    this.loop = loop
    this.audit = audit
    this.relay = new Relay((fd, ready) => { loop.watch(fd, ready) })
    this.upstream = upstream(dns)
  }

  make(id: string, policy: Policy): Network {
    return new Network({
      enabled: policy.egress.length > 0 || (policy.publish ?? []).length > 0,
      backend: policy.network ?? 'proxied', egress: new Egress(policy.egress), quota: policy.quota ?? {},
      relay: this.relay, upstream: this.upstream, watch: (fd, ready) => this.loop.watch(fd, ready),
      record: (event) => { this.audit.record({ container: id, ...event }) },
    })
  }

  /** The container's namespaces are there (user, network, …): starts its socket maker. */
  joined({ network }: Container, namespaces: readonly number[], zygote: Zygote): void {
    if (network.backend === 'none') return
    const [ours, theirs] = addon.seqpacketPair()
    if (ours === undefined || theirs === undefined) throw new VkError('VK_ERR_SPAWN', 'no descriptors for a socket maker')
    zygote.request({ type: 'sockets', id: 0 }, [...namespaces.slice(0, 2), theirs])
    closeSync(theirs)
    network.joined(ours)
  }
}

/** Names are asked for at the container's own resolver. */
export function resolvConf(container: Container): void {
  const file = join(container.vfs.upper, 'resolv.conf')
  writeFileSync(file, `nameserver ${RESOLVER}\n`)
  // As an image may have it: a link into a directory that is only there at run time.
  const r = container.vfs.mountHost(file, '/etc/resolv.conf', false)
  if (r < 0) throw new VkError('VK_ERR_IMAGE', '/etc/resolv.conf of the image is no file')
}

/** Listens for what is to be published. Throws VkError: not a port, not allowed, not free. */
export function publishAll(container: Container, policy: Policy, ports: readonly string[]): void {
  const allowed = (policy.publish ?? []).map(parsePublish)
  for (const text of ports) {
    let port
    try {
      port = parsePort(text)
    } catch (e) {
      throw new VkError('VK_ERR_PORT', `-p ${(e as Error).message}`)
    }
    const { port: inner, protocol } = port
    if (!allowed.some((rule) => rule(inner, protocol))) {
      container.record({ event: 'egress', decision: 'denied', rule: `no rule lets port ${inner}/${protocol} be published` })
      throw new VkError('VK_ERR_PORT', `port ${inner}/${protocol} may not be published: the signed policy has ${policy.publish?.join(', ') || 'none'}`)
    }
    const r = container.network.publish(port)
    if (r < 0) throw new VkError('VK_ERR_PORT', `-p ${text}: ${why[-r] ?? `the host refuses it (errno ${-r})`}`)
  }
}

const why: Readonly<Record<number, string>> = {
  [EACCES]: 'a port below 1024 needs root, or net.ipv4.ip_unprivileged_port_start',
  [EADDRINUSE]: 'the port is in use on the host',
  [EADDRNOTAVAIL]: 'the address is none of the host\'s',
  [EAFNOSUPPORT]: 'the host has no addresses of this kind',
}
