/**
 * The exec gate: what may become a program, a library mapping, or a script, by content hash.
 * Image files are decided by the signed index; everything else is copied, sealed, hashed, and the
 * sealed copy is what is used.
 */
import { createHash } from 'node:crypto'
import { closeSync, openSync, readSync } from 'node:fs'
import { EACCES, EIO, type Errno } from '../abi/errno.ts'
import { O_CLOEXEC, O_NOFOLLOW, O_RDONLY } from '../abi/fcntl.ts'
import { pathOf, type Dentry } from '../fs/inode.ts'
import { addon } from '../native/addon.ts'
import type { Audit } from './audit.ts'

export interface ApprovedProgram { readonly path: string; readonly sha256: string; readonly kind: 'elf' | 'script'; readonly nid: number }

export interface GateRules {
  readonly exec: 'path+digest' | 'digest'
  readonly programs: readonly ApprovedProgram[]
  /** Index in the megabinary by ELF digest. */
  readonly elfIndex: ReadonlyMap<string, number>
}

export interface Approved {
  readonly sha256: string
  /** A sealed copy, for what is not of the image. */
  readonly fd?: number
  readonly elf: number
  readonly kind: 'elf' | 'script'
}

export class Gate {
  private readonly byNid = new Map<number, ApprovedProgram[]>()
  private readonly byDigest = new Map<string, ApprovedProgram[]>()

  private readonly rules: GateRules
  private readonly audit: Audit
  private readonly container: string

  constructor(rules: GateRules, audit: Audit, container: string) {
    this.rules = rules
    this.audit = audit
    this.container = container
    for (const p of rules.programs) {
      this.byNid.set(p.nid, [...(this.byNid.get(p.nid) ?? []), p])
      this.byDigest.set(p.sha256, [...(this.byDigest.get(p.sha256) ?? []), p])
    }
  }

  /** Approves the regular file `d` as `event`, or −EACCES with an audit record. */
  check(d: Dentry, event: 'exec' | 'mmap'): Approved | Errno {
    const backing = d.inode.backing
    const path = pathOf(d)
    if (!backing) return this.deny(event, path, undefined, 'not a regular file')
    if (backing.kind === 'image') {
      const known = this.byNid.get(backing.nid)
      if (!known) return this.deny(event, path, undefined, 'not in the manifest')
      if (this.rules.exec === 'path+digest' && !known.some((p) => p.path === path)) {
        return this.deny(event, path, known[0]!.sha256, 'path+digest: this digest is approved at another path')
      }
      return this.approved(known[0]!)
    }
    let fd = -1
    let copy = -1
    try {
      fd = openSync(backing.path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
      copy = addon.sealedCopy(fd)
    } catch {
      return -EIO
    } finally {
      if (fd >= 0) closeSync(fd)
    }
    if (copy < 0) return copy
    const sha256 = hashDescriptor(copy)
    const known = this.byDigest.get(sha256)
    if (!known) {
      closeSync(copy)
      return this.deny(event, path, sha256, 'digest not in the manifest')
    }
    if (this.rules.exec === 'path+digest' && !known.some((p) => p.path === path)) {
      closeSync(copy)
      return this.deny(event, path, sha256, 'path+digest: this digest is approved at another path')
    }
    return { ...this.approved(known[0]!), fd: copy }
  }

  private approved(p: ApprovedProgram): Approved {
    return { sha256: p.sha256, elf: this.rules.elfIndex.get(p.sha256) ?? -1, kind: p.kind }
  }

  private deny(event: 'exec' | 'mmap', path: string, digest: string | undefined, rule: string): Errno {
    this.audit.record({ container: this.container, event, decision: 'denied', path, ...(digest ? { digest } : {}), rule })
    return -EACCES
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
