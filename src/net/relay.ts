/** The daemon's end of the relay (native/seccomp-notify/src/relay.rs): numbers for what it carries, and its events. */
import { addon } from '../native/addon.ts'

/** RelayEvent.kind. */
export const OVER = 0, CONNECTED = 1, WANTS = 2, QUOTA = 3

type Told = (kind: number, errno: number) => void

export class Relay {
  private next = 1
  private started = false
  private readonly told = new Map<number, { readonly group: number; readonly hear: Told }>()
  private readonly quotas = new Map<number, () => void>()
  private readonly watch: (fd: number, ready: () => void) => void

  /** `watch`: calls back whenever a descriptor is readable. */
  constructor(watch: (fd: number, ready: () => void) => void) {
    this.watch = watch
  }

  /** A group with at most `limit` bytes (below zero: any number); `used`: it has carried them. */
  group(limit: number, used: () => void): number {
    if (!this.started) {
      const fd = addon.relayStart()
      if (fd < 0) throw new Error(`the relay cannot be started (errno ${-fd})`)
      this.started = true
      this.watch(fd, () => { this.events() })
    }
    const id = this.next++
    this.quotas.set(id, used)
    addon.relayLimit(id, limit)
    return id
  }

  private events(): void {
    for (const e of addon.relayEvents()) {
      if (e.kind === QUOTA) this.quotas.get(e.id)?.()
      else this.told.get(e.id)?.hear(e.kind, e.errno)
      if (e.kind === OVER) this.told.delete(e.id)
    }
  }

  /** addon.relayPair; `hear` is told of CONNECTED, then OVER. */
  pair(group: number, host: number, inner: number, then: Buffer, hear: Told): number {
    const id = this.next++
    this.told.set(id, { group, hear })
    addon.relayPair(id, group, host, inner, then)
    return id
  }

  /** addon.relayPort; `hear` is told of WANTS. */
  port(group: number, socket: number, to: Buffer, inside: boolean, standIn: Buffer, hear: Told): number {
    const id = this.next++
    this.told.set(id, { group, hear })
    addon.relayPort(id, group, socket, to, inside, standIn)
    return id
  }

  close(id: number): void {
    this.told.delete(id)
    addon.relayClose(id)
  }

  /** Ends a group with all that is its. */
  drop(group: number): void {
    this.quotas.delete(group)
    for (const [id, t] of this.told) if (t.group === group) this.told.delete(id)
    addon.relayDrop(group)
  }
}
