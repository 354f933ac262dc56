/**
 * The daemon's loop: one epoll set over guests' doorbells, connections, zygotes, clients, and Node's
 * own loop. Handlers are synchronous; Node's loop gets a turn whenever it has something to do.
 */
import { addon } from '../native/addon.ts'

const NODE = 0
/** Rounds with work for the rings alone, after which Node's loop gets its turn. */
const TURNS = 16

/** Runs a handler. One that throws is a bug of ours: it is told, and the other containers go on. */
function attempt<T>(run: () => T): T | undefined {
  try {
    return run()
  } catch (e) {
    process.stderr.write(`vkernel: bug in the loop: ${(e as Error).stack}\n`)
    return undefined
  }
}

export class Loop {
  private readonly ep = addon.epollCreate()
  private readonly handlers = new Map<number, { fd: number; ready: () => void }>()
  private nextId = 1
  private stopped = false
  private readonly ids = new Int32Array(64)
  /** Called before the loop sleeps; true: there is work, do not sleep. */
  beforeSleep: () => boolean = () => false
  afterSleep: () => void = () => {}

  constructor() {
    addon.epollAdd(this.ep, addon.loopFd(), NODE)
  }

  /** Calls `ready` whenever `fd` is readable; returns how to stop that. */
  watch(fd: number, ready: () => void): () => void {
    const id = this.nextId++
    this.handlers.set(id, { fd, ready })
    addon.epollAdd(this.ep, fd, id)
    return () => {
      if (this.handlers.delete(id)) addon.epollDel(this.ep, fd)
    }
  }

  stop(): void {
    this.stopped = true
  }

  start(): void {
    const turn = (): void => {
      let node = false
      for (let n = 0; !this.stopped && !node; n++) {
        const busy = attempt(() => this.beforeSleep()) === true
        const timer = addon.loopTimeout()
        const timeout = busy ? 0 : 1000
        // A pending setImmediate makes libuv's timeout 0: it is our own, so it does not count.
        const ready = addon.epollWait(this.ep, timer > 0 ? Math.min(timeout, timer) : timeout, this.ids)
        this.afterSleep()
        for (let k = 0; k < ready; k++) {
          const id = this.ids[k]!
          if (id === NODE) node = true
          else attempt(() => this.handlers.get(id)?.ready())
        }
        // Node's own turn costs as much as several answers.
        if (ready <= 0 && !(busy && n < TURNS)) node = true
      }
      if (!this.stopped) setImmediate(turn)
    }
    turn()
  }
}
