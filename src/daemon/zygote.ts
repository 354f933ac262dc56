/** One zygote per image: verified artefacts in, container processes out. */
import { spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, openSync, readFileSync, readSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { pack, unpack } from 'msgpackr'
import { ImageFs } from '../fs/imagefs.ts'
import { openLayout } from '../image/oci.ts'
import { findImage } from '../image/store.ts'
import { openManifest } from '../image/verify.ts'
import type { Manifest } from '../image/manifest.ts'
import { addon } from '../native/addon.ts'
import { Approvals } from '../policy/gate.ts'
import { checkPolicy, type Policy } from '../policy/policy.ts'
import { VkError } from './errors.ts'
import type { Loop } from './loop.ts'

const loader = join(import.meta.dirname, '../../native/target/release/vkernel-loader')

export interface ZygoteEvent { readonly type: string; readonly id: number; readonly pid?: number; readonly status?: number; readonly what?: string }

/** Opens a part and checks that its bytes are the ones the manifest signs; the descriptor is kept. */
function openVerified(name: string, path: string, sha256: string | undefined): number {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch (e) {
    throw new VkError('VK_ERR_IMAGE', `${name} cannot be opened`, { cause: e })
  }
  const hash = createHash('sha256')
  const buf = Buffer.alloc(1 << 20)
  for (let at = 0; ;) {
    const n = readSync(fd, buf, 0, buf.length, at)
    if (n === 0) break
    hash.update(buf.subarray(0, n))
    at += n
  }
  const seen = hash.digest('hex')
  if (seen !== sha256) {
    closeSync(fd)
    throw new VkError('VK_ERR_DIGEST', `${name} is sha256:${seen}, the signed manifest says sha256:${sha256}`)
  }
  return fd
}

/** ELF digests in the megabinary's index, in order. */
function readIndex(fd: number): Map<string, number> {
  const header = Buffer.alloc(96)
  readSync(fd, header, 0, 96, 0)
  const count = header.readUInt32LE(12)
  const table = Buffer.alloc(count * 112)
  readSync(fd, table, 0, table.length, Number(header.readBigUInt64LE(16)))
  return new Map(Array.from({ length: count }, (_, n) => [table.toString('hex', n * 112, n * 112 + 32), n]))
}

/** Zygotes without a container that are kept for the next one. */
const IDLE = 8

export class Zygote {
  readonly manifest: Manifest
  readonly image: ImageFs
  readonly approvals: Approvals
  readonly policy: Policy
  private readonly child: ChildProcess
  private readonly control: number
  private readonly erofs: number
  private readonly unwatch: () => void
  private alive = true
  /** Containers that run on it. */
  private users = 0
  private readonly waiting: { readonly bytes: Buffer; readonly fds: number[] }[] = []
  private timer: NodeJS.Timeout | undefined
  private lastUsed = 0

  readonly dir: string
  private readonly onEvent: (e: ZygoteEvent) => void
  private readonly onDeath: () => void

  private constructor(dir: string, loop: Loop, onEvent: (e: ZygoteEvent) => void, onDeath: () => void) {
    this.dir = dir
    this.onEvent = onEvent
    this.onDeath = onDeath
    const checked = openManifest(dir)
    if ('ok' in checked) throw new VkError('VK_ERR_SIGNATURE', `the manifest of ${dir} is not valid: ${checked.why}`)
    this.manifest = checked
    const parts = openLayout(dir)
    const digest = (name: string): string | undefined => this.manifest.subject.find((s) => s.name === name)?.digest.sha256
    this.erofs = openVerified('image.erofs', parts.erofs.path, digest('image.erofs'))
    let mega = -1
    try {
      mega = openVerified('the megabinary', parts.megabinary.path, digest('megabinary'))
      const { programs } = this.manifest.predicate
      const policy = this.policy = checkPolicy(this.manifest.predicate.policy)
      this.image = new ImageFs(this.erofs)
      this.approvals = new Approvals(policy.exec, programs, readIndex(mega), (nid) => this.image.inode(nid).size)
      const [ours, theirs] = addon.seqpacketPair()
      if (ours === undefined || theirs === undefined) throw new VkError('VK_ERR_SPAWN', 'no descriptors for a zygote')
      this.control = ours
      const env: Record<string, string> = {}
      if (process.env['VKERNEL_TRACE']) env['VKERNEL_TRACE'] = process.env['VKERNEL_TRACE']
      this.child = spawn(loader, ['zygote'], { stdio: ['ignore', 'inherit', 'inherit', theirs, mega, this.erofs], env })
      closeSync(theirs)
    } catch (e) {
      closeSync(this.erofs)
      throw e
    } finally {
      if (mega >= 0) closeSync(mega)
    }
    this.child.on('error', () => this.died())
    this.child.on('exit', () => this.died())
    this.unwatch = loop.watch(this.control, () => this.receive())
  }

  get pid(): number {
    return this.child.pid ?? 0
  }

  private died(): void {
    if (!this.alive) return
    this.alive = false
    this.unwatch()
    clearTimeout(this.timer)
    for (const w of this.waiting.splice(0)) for (const fd of w.fds) closeSync(fd)
    closeSync(this.control)
    this.onDeath()
    // Containers on it are gone now, and with them whoever reads the image.
    closeSync(this.erofs)
  }

  private receive(): void {
    while (this.alive) {
      const p = addon.receive(this.control, 65_536)
      for (const fd of p.fds) closeSync(fd)
      if (p.error) return
      if (p.data.length === 0) return this.died()
      this.onEvent(unpack(p.data) as ZygoteEvent)
    }
  }

  /** Sends a request; its descriptors stay the caller's. */
  request(message: object, fds: readonly number[]): void {
    const bytes = pack(message)
    const sent = this.waiting.length > 0 ? -EAGAIN : this.send(bytes, fds)
    if (sent > 0) return
    if (sent === -EMSGSIZE) throw new VkError('VK_ERR_TOO_LONG', 'argument list too long')
    if (sent !== -EAGAIN) throw new VkError('VK_ERR_ZYGOTE', `the image's zygote takes no request (errno ${-sent})`)
    // Many at once: the socket takes a few packets (unix(7) max_dgram_qlen), the rest wait their turn.
    this.waiting.push({ bytes, fds: fds.map((fd) => addon.duplicate(fd)) })
    this.timer ??= setTimeout(() => this.flush(), 1)
  }

  private send(bytes: Buffer, fds: readonly number[]): number {
    return this.alive ? addon.send(this.control, bytes, [...fds]) : -EPIPE
  }

  private flush(): void {
    this.timer = undefined
    for (let next = this.waiting[0]; next; next = this.waiting[0]) {
      if (this.send(next.bytes, next.fds) === -EAGAIN) {
        this.timer = setTimeout(() => this.flush(), 1)
        return
      }
      this.waiting.shift()
      for (const fd of next.fds) closeSync(fd)
    }
  }

  acquire(): void {
    this.users++
  }

  /** A container ended; a zygote whose image was built anew, or that is one too many, ends with its last. */
  release(): void {
    this.users--
    this.lastUsed = Date.now()
    Zygote.trim()
  }

  stop(): void {
    this.child.kill('SIGKILL')
    this.died()
  }

  /** By image directory and manifest digest. */
  private static readonly running = new Map<string, Zygote>()

  private static trim(): void {
    const idle = [...Zygote.running.values()].filter((z) => z.users === 0).sort((a, b) => b.lastUsed - a.lastUsed)
    const superseded = idle.filter((z) => [...Zygote.running.values()].some((other) => other !== z && other.dir === z.dir && other.lastUsed > z.lastUsed))
    for (const z of new Set([...superseded, ...idle.slice(IDLE)])) z.stop()
  }

  /** The zygote of the image in `dir`, started and verified when there is none. */
  static of(dir: string, loop: Loop, onEvent: (e: ZygoteEvent) => void, onDeath: (z: Zygote) => void): Zygote {
    let real: string
    try {
      // A stub knows its image by the manifest's digest only.
      real = realpathSync((/^sha256:[0-9a-f]{64}$/.test(dir) ? findImage(dir.slice(7)) : undefined) ?? dir)
      readFileSync(join(real, 'oci-layout'))
    } catch {
      throw new VkError('VK_ERR_NO_IMAGE', `there is no image at ${dir}`)
    }
    // An image that was rebuilt in place has another manifest and gets a new zygote.
    const key = `${real}\0${openLayout(real).manifest.digest}`
    const known = Zygote.running.get(key)
    if (known?.alive) return known
    const z: Zygote = new Zygote(real, loop, onEvent, () => {
      if (Zygote.running.get(key) === z) Zygote.running.delete(key)
      onDeath(z)
    })
    z.lastUsed = Date.now()
    Zygote.running.set(key, z)
    return z
  }

  static stopAll(): void {
    for (const z of [...Zygote.running.values()]) z.stop()
  }
}

const EAGAIN = 11, EPIPE = 32, EMSGSIZE = 90
