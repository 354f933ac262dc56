/**
 * The container's pseudo-terminals: /dev/pts/N counts from 0 here, whatever number the host gave.
 *
 * A terminal is kept as an O_PATH descriptor of its slave's device file. That neither opens the
 * terminal nor keeps it alive, and when the master is closed the file behind it is dead: a number
 * that the host gives to somebody else later is never opened by mistake.
 */
import { closeSync, fstatSync, openSync } from 'node:fs'
import { ENOSPC, EIO, type Errno } from '../abi/errno.ts'
import * as F from '../abi/fcntl.ts'
import { addon } from '../native/addon.ts'

export interface Pty {
  /** Number in the container. */
  readonly index: number
  readonly hostIndex: number
  /** O_PATH descriptor of the host's device file. */
  readonly slave: number
  readonly uid: number
}

const PATH = F.O_PATH | F.O_CLOEXEC
const LIMIT = 256
const MAJOR = 136

/** st_rdev of a slave, as user space packs it (makedev(3), minors below 256). */
export const slaveDevice = (index: number): number => (MAJOR << 8) | index

export class Ptys {
  private readonly byIndex = new Map<number, Pty>()

  private add(hostIndex: number, slave: number, uid: number): Pty | Errno {
    for (const [index, pty] of this.byIndex) if (!this.alive(pty)) this.drop(index)
    let index = 0
    while (this.byIndex.has(index)) index++
    if (index >= LIMIT) return -ENOSPC
    const pty = { index, hostIndex, slave, uid }
    this.byIndex.set(index, pty)
    return pty
  }

  private drop(index: number): void {
    closeSync(this.byIndex.get(index)!.slave)
    this.byIndex.delete(index)
  }

  private alive(pty: Pty): boolean {
    return fstatSync(pty.slave).nlink > 0
  }

  /** A new pair: the master's descriptor, which is the caller's, and what is known of it. */
  create(flags: number, uid: number): { master: number; pty: Pty } | Errno {
    const master = addon.openPty(flags & F.O_NONBLOCK)
    if (master < 0) return master
    let slave = -1
    try {
      const hostIndex = addon.ptyNumber(master)
      slave = openSync(`/dev/pts/${hostIndex}`, PATH)
      const pty = this.add(hostIndex, slave, uid)
      if (typeof pty !== 'number') return { master, pty }
    } catch { /* no devpts of the host's at /dev/pts */ }
    closeSync(master)
    if (slave >= 0) closeSync(slave)
    return slave >= 0 ? -ENOSPC : -EIO
  }

  /** The terminal that the client made and passed as standard stream `fd`. */
  adopt(fd: number, uid: number): Pty | undefined {
    const { rdev } = fstatSync(fd)
    // 64-bit dev_t: major bits 8–19, minor bits 0–7 and 20–31 (makedev(3)).
    const major = (rdev >>> 8) & 0xfff, minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00)
    if (major < MAJOR || major > MAJOR + 7) return undefined
    const hostIndex = ((major - MAJOR) << 20) | minor
    const known = this.ofHost(hostIndex)
    if (known) return known
    const slave = openSync(`/proc/self/fd/${fd}`, PATH)
    const pty = this.add(hostIndex, slave, uid)
    if (typeof pty !== 'number') return pty
    closeSync(slave)
    return undefined
  }

  find(index: number): Pty | undefined {
    const pty = this.byIndex.get(index)
    return pty && this.alive(pty) ? pty : undefined
  }

  list(): Pty[] {
    return [...this.byIndex.values()].filter((p) => this.alive(p))
  }

  /** The container's terminal behind the host's number. */
  ofHost(hostIndex: number): Pty | undefined {
    return this.list().find((p) => p.hostIndex === hostIndex)
  }

  /** An open of the slave. */
  open(pty: Pty, flags: number): number {
    return addon.reopen(pty.slave, (flags & (F.O_ACCMODE | F.O_NONBLOCK)) | F.O_NOCTTY)
  }

  destroy(): void {
    for (const index of [...this.byIndex.keys()]) this.drop(index)
  }
}
