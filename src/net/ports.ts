/** Published ports: docker's `-p [IP:][HOSTPORT]:PORT[/tcp|/udp]`. */
import { addressBytes, type Protocol } from '../policy/egress.ts'

export interface PublishedPort {
  /** 16 bytes of the host's address; undefined: all of them. */
  readonly ip: Buffer | undefined
  /** 0: any that is free. */
  readonly hostPort: number
  readonly port: number
  readonly protocol: Protocol
  readonly text: string
}

const isPort = (n: number): boolean => Number.isInteger(n) && n >= 0 && n <= 65_535

/** Reads one `-p`. Throws when it is none. */
export function parsePort(text: string): PublishedPort {
  const m = /^(?:(?:(\[[0-9a-f:]+\]|[0-9.]+):)?(\d{0,5}):)?(\d{1,5})(?:\/(tcp|udp))?$/i.exec(text)
  const ip = m?.[1] ? addressBytes(m[1].replace(/[[\]]/g, '')) : undefined
  const hostPort = Number(m?.[2] || 0), port = Number(m?.[3] ?? 0)
  if (!m || m[1] && !ip || !isPort(hostPort) || !isPort(port) || port === 0) throw new Error(`${text} is not [IP:][HOSTPORT]:PORT[/tcp|/udp]`)
  // 0.0.0.0 means IPv4's alone, as docker has it.
  return { ip, hostPort, port, protocol: (m[4]?.toLowerCase() ?? 'tcp') as Protocol, text }
}
