/** Sockets of a container's network namespace, from its socket maker (native/loader/src/sockets.rs). */
import { closeSync } from 'node:fs'
import { addon } from '../native/addon.ts'

/** What the maker is asked with (native/loader/src/sockets.rs KINDS). */
const KINDS = { tcp4: 0, udp4: 1, tcp6: 2, udp6: 3 } as const
export type Kind = keyof typeof KINDS

/** Milliseconds that the daemon waits for sockets: a fork, the first time. */
const PATIENCE = 2000

export class Sockets {
  private readonly channel: number
  private readonly spare: Record<Kind, number[]> = { tcp4: [], udp4: [], tcp6: [], udp6: [] }

  /** `channel`: to the maker; this object's from here on. */
  constructor(channel: number) {
    this.channel = channel
  }

  /** A fresh socket that does not block; −1: the container has none of this kind, or is gone. */
  take(kind: Kind): number {
    const spare = this.spare[kind]
    if (spare.length === 0 && addon.send(this.channel, Buffer.from([KINDS[kind]]), []) === 1 && addon.waitReadable(this.channel, PATIENCE) === 1) {
      spare.push(...addon.receive(this.channel, 1).fds)
    }
    return spare.pop() ?? -1
  }

  close(): void {
    for (const fd of [this.channel, ...Object.values(this.spare).flat()]) closeSync(fd)
  }
}
