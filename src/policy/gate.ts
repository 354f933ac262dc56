/**
 * The exec gate: what may become a program, a library mapping, or a script, by content hash.
 * Image files are decided by the signed index; everything else is copied, sealed, hashed, and the
 * sealed copy is what is used. Whatever goes wrong on the way is a refusal, and a decision that
 * cannot be recorded is one too.
 */
import { createHash } from 'node:crypto'
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { EACCES, type Errno } from '../abi/errno.ts'
import { O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } from '../abi/fcntl.ts'
import { pathOf, type Dentry } from '../fs/inode.ts'
import { addon } from '../native/addon.ts'
import type { Audit, AuditEvent } from './audit.ts'

export interface ApprovedProgram { readonly path: string; readonly sha256: string; readonly kind: 'elf' | 'script'; readonly nid: number }

/** The approved programs of an image, found by what is asked for; shared by all its containers. */
export class Approvals {
  readonly exec: 'path+digest' | 'digest'
  readonly byNid = new Map<number, ApprovedProgram[]>()
  readonly byDigest = new Map<string, ApprovedProgram[]>()
  readonly elfIndex: ReadonlyMap<string, number>
  /** Files above this are refused unhashed: well above the largest program, so that a refusal tells a changed program's digest. */
  readonly limit: number

  /** `elfIndex`: index in the megabinary by ELF digest; `sizeOf`: bytes of an image file. */
  constructor(exec: 'path+digest' | 'digest', programs: readonly ApprovedProgram[], elfIndex: ReadonlyMap<string, number>, sizeOf: (nid: number) => number) {
    this.exec = exec
    this.elfIndex = elfIndex
    let largest = 0
    for (const p of programs) {
      const add = <K>(map: Map<K, ApprovedProgram[]>, key: K): void => {
        const list = map.get(key)
        if (list) list.push(p)
        else map.set(key, [p])
      }
      add(this.byNid, p.nid)
      add(this.byDigest, p.sha256)
      largest = Math.max(largest, sizeOf(p.nid))
    }
    this.limit = Math.max(2 * largest, 16 << 20)
  }
}

export interface Approved {
  readonly sha256: string
  /** A sealed copy, for what is not of the image. */
  readonly fd?: number
  readonly elf: number
  readonly kind: 'elf' | 'script'
}

export class Gate {
  private readonly approvals: Approvals
  private readonly audit: Audit
  private readonly container: string

  constructor(approvals: Approvals, audit: Audit, container: string) {
    this.approvals = approvals
    this.audit = audit
    this.container = container
  }

  /** Approves the regular file `d` as `event`, or −EACCES with an audit record; `part`: of a program that is on record itself. */
  check(d: Dentry, event: 'exec' | 'mmap', part = false): Approved | Errno {
    const { backing, fs } = d.inode
    const path = pathOf(d)
    if (fs.noexec) return this.refuse(event, path, `${fs.type} is mounted noexec`)
    if (backing?.kind === 'image') {
      const known = this.approvals.byNid.get(backing.nid)
      return known ? this.decide(event, path, known[0]!.sha256, known, undefined, part) : this.refuse(event, path, 'not in the manifest')
    }
    if (!backing && !fs.host) return this.refuse(event, path, 'not a regular file')
    let fd = -1
    let copy = -1
    try {
      fd = fs.host ? fs.host.open(d, O_RDONLY) : openSync(backing!.path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
      if (fd < 0) return this.refuse(event, path, `it could not be read (errno ${-fd})`)
      if (fstatSync(fd).size > this.approvals.limit) return this.refuse(event, path, 'far larger than every program in the manifest')
      copy = addon.sealedCopy(fd)
      if (copy < 0) return this.refuse(event, path, `it could not be copied (errno ${-copy})`)
      const sha256 = hashDescriptor(copy)
      const r = this.decide(event, path, sha256, this.approvals.byDigest.get(sha256), copy, part)
      if (typeof r !== 'number') copy = -1
      return r
    } catch (e) {
      return this.refuse(event, path, `it could not be checked (${(e as { code?: string }).code ?? 'unknown'})`)
    } finally {
      if (fd >= 0) closeSync(fd)
      if (copy >= 0) closeSync(copy)
    }
  }

  private decide(event: 'exec' | 'mmap', path: string, sha256: string, known: readonly ApprovedProgram[] | undefined, fd: number | undefined, part: boolean): Approved | Errno {
    if (!known) return this.refuse(event, path, 'digest not in the manifest', sha256)
    const { exec, elfIndex } = this.approvals
    if (exec === 'path+digest' && !known.some((p) => p.path === path)) {
      return this.refuse(event, path, 'path+digest: this digest is approved at another path', sha256)
    }
    if (!part && !this.record({ event, decision: 'allowed', path, digest: sha256, rule: exec })) return -EACCES
    return { sha256, elf: elfIndex.get(sha256) ?? -1, kind: known[0]!.kind, ...(fd === undefined ? {} : { fd }) }
  }

  /** A refusal, on record. */
  refuse(event: 'exec' | 'mmap', path: string, rule: string, digest?: string): Errno {
    this.record({ event, decision: 'denied', path, ...(digest ? { digest } : {}), rule })
    return -EACCES
  }

  /** False when the decision could not be recorded: then it is a refusal. */
  private record(event: Omit<AuditEvent, 'container'>): boolean {
    try {
      this.audit.record({ container: this.container, ...event })
      return true
    } catch (e) {
      process.stderr.write(`vkernel: the audit log cannot be written, nothing is executed: ${(e as Error).message}\n`)
      return false
    }
  }
}

const CHUNK = Buffer.alloc(1 << 20)

function hashDescriptor(fd: number): string {
  const hash = createHash('sha256')
  for (let at = 0; ;) {
    const n = readSync(fd, CHUNK, 0, CHUNK.length, at)
    if (n === 0) return hash.digest('hex')
    hash.update(CHUNK.subarray(0, n))
    at += n
  }
}
