/**
 * What is in an image, or in single ELF files: programs with their libraries and loader, instruction
 * sets and system calls as far as the files show them, and what is not supported, with the reason.
 * Reads only; a damaged file is a finding, not an error.
 */
import { posix } from 'node:path'
import { table } from '../syscalls/table/index.ts'
import type { Entry } from '../syscalls/table/schema.ts'
import { foreign, isElf, isX86Elf, parseElf, visibleSyscalls, type ElfInfo } from './elf.ts'
import { entries, hashExtent, head, lookup, readExtent, type Inode } from './tree.ts'
import type { Megabinary } from './megabinary.ts'

export interface Library { readonly name: string; /** Where the image has it; null: nowhere on the default path. */ readonly path: string | null }

export interface ElfReport {
  readonly paths: string[]
  readonly sha256: string
  readonly interp?: string
  readonly soname?: string
  readonly needed: readonly Library[]
  /** All libraries it is loaded with, by path, itself left out. */
  readonly closure: readonly string[]
  readonly isaNeeded: readonly string[]
  /** `mov $nr, %eax; syscall` in its own text. */
  readonly syscalls: readonly string[]
  /** Imported functions that are named as a system call. */
  readonly imports: readonly string[]
  readonly unsupported?: string
  /** From the megabinary: functions translated and bytes of native code. */
  readonly functions?: number
  readonly nativeBytes?: number
}

export interface Analysis {
  readonly elfs: readonly ElfReport[]
  readonly scripts: readonly { readonly path: string; readonly interpreter: string; readonly present: boolean }[]
  /** Path → why: programs that cannot run. */
  readonly unsupported: readonly { readonly path: string; readonly why: string }[]
  /** Calls seen anywhere that the kernel does not answer (ENOSYS) or refuses. */
  readonly callsNotAnswered: readonly { readonly name: string; readonly class: Entry['class']; readonly usedBy: number }[]
  readonly callsSeen: number
}

const LIBRARY_PATH = ['/lib/x86_64-linux-gnu', '/usr/lib/x86_64-linux-gnu', '/lib64', '/usr/lib64', '/lib', '/usr/lib', '/usr/local/lib']
/** The CPU that guests see (docs/quirks.md): nothing above the baseline. */
const GUEST_ISA = 'x86-64'

const names = new Map(table.map((e) => [e.nr, e.name]))
const byName = new Map(table.map((e) => [e.name, e]))

/** A libc function's system call: __openat64 → openat. */
const callOf = (symbol: string): string | undefined =>
  [symbol, symbol.replace(/^_+/, ''), symbol.replace(/^_+/, '').replace(/64$/, '')].find((n) => byName.has(n))

function report(path: string, sha256: string, bytes: Buffer): { report: ElfReport & { paths: string[] }; info: ElfInfo } {
  const info = parseElf(bytes)
  const above = info.isaNeeded.filter((level) => level > GUEST_ISA)
  const unsupported = info.unsupported ?? (above.length ? `it needs ${above.join(', ')}; guests have the ${GUEST_ISA} baseline` : undefined)
  return {
    info,
    report: {
      paths: [path], sha256, ...(info.interp ? { interp: info.interp } : {}), ...(info.soname ? { soname: info.soname } : {}),
      needed: [], closure: [], isaNeeded: info.isaNeeded,
      syscalls: [...visibleSyscalls(bytes, info.text)].map((nr) => names.get(nr) ?? `#${nr}`).sort(),
      imports: [...new Set(info.imports.flatMap((s) => callOf(s) ?? []))].sort(),
      ...(unsupported ? { unsupported } : {}),
    },
  }
}

function summary(elfs: ElfReport[], scripts: Analysis['scripts'], unsupported: Analysis['unsupported']): Analysis {
  const users = new Map<string, number>()
  for (const e of elfs) {
    // The C library holds every call; which ones are used, its users' imports say.
    const own = /^libc\.(so|musl)/.test(e.soname ?? '') ? [] : e.syscalls
    for (const name of new Set([...own, ...e.imports])) users.set(name, (users.get(name) ?? 0) + 1)
  }
  const callsNotAnswered = [...users].sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([name, usedBy]) => {
    const call = byName.get(name)
    return !call || call.class === 'absent' || call.class === 'refused' ? [{ name, class: call?.class ?? 'absent' as const, usedBy }] : []
  })
  return { elfs, scripts, unsupported, callsNotAnswered, callsSeen: users.size }
}

/** ELF files of this host, each on its own. */
export function analyzeFiles(files: readonly { path: string; size: number }[]): Analysis {
  const elfs: ElfReport[] = [], unsupported: { path: string; why: string }[] = []
  for (const { path, size } of files) {
    const bytes = readExtent({ path, off: 0, size })
    const why = isElf(bytes) ? isX86Elf(bytes) ? undefined : foreign(bytes) ?? 'an object file or core, not a program' : 'no ELF file'
    if (why) {
      unsupported.push({ path, why })
      continue
    }
    const { report: r, info } = report(path, hashExtent({ path, off: 0, size }), bytes)
    elfs.push({ ...r, needed: info.needed.map((name) => ({ name, path: null })) })
    if (r.unsupported) unsupported.push({ path, why: r.unsupported })
  }
  return summary(elfs, [], unsupported)
}

/** The tree of an image. `mega`: to say what was translated. */
export function analyzeTree(root: Inode, mega?: Megabinary): Analysis {
  const translated = new Map(mega?.entries.map((e) => [e.sha256, e]))
  const bySha = new Map<string, { report: ElfReport & { paths: string[] }; info: ElfInfo }>()
  const digests = new Map<Inode, string>()
  const byNode = new Map<Inode, string>()
  const scripts: { path: string; interpreter: string; present: boolean }[] = []
  const unsupported: { path: string; why: string }[] = []
  for (const { path, node } of entries(root)) {
    if (!node.source) continue
    const start = head(node, 256)
    if (start.toString('latin1', 0, 2) === '#!' && node.mode & 0o111) {
      const interpreter = start.toString('latin1', 2).split('\n')[0]!.trim().split(/\s+/)[0]!
      scripts.push({ path, interpreter, present: lookup(root, interpreter)?.node.source !== undefined })
      continue
    }
    const why = foreign(start)
    if (why) unsupported.push({ path, why })
    if (!isX86Elf(start)) continue
    const sha256 = digests.get(node) ?? hashExtent(node.source)
    digests.set(node, sha256)
    const known = bySha.get(sha256)
    if (known) known.report.paths.push(path)
    else bySha.set(sha256, report(path, sha256, readExtent(node.source)))
    byNode.set(node, sha256)
  }
  const find = (name: string, info: ElfInfo, origin: string): Library => {
    const dirs = [...info.runpath.map((p) => p.replace(/\$ORIGIN|\$\{ORIGIN\}/g, origin)), ...LIBRARY_PATH]
    const at = name.includes('/') ? lookup(root, name) : dirs.map((d) => lookup(root, posix.join(d, name))).find((f) => f && byNode.has(f.node))
    return { name, path: at?.path ?? null }
  }
  const direct = new Map([...bySha].map(([sha, { report, info }]) => [sha, info.needed.map((n) => find(n, info, posix.dirname(report.paths[0]!)))]))
  const closure = (sha: string): string[] => {
    const seen = new Set<string>()
    const queue = [...direct.get(sha)!]
    for (let lib = queue.pop(); lib; lib = queue.pop()) {
      if (lib.path === null || seen.has(lib.path)) continue
      seen.add(lib.path)
      queue.push(...direct.get(byNode.get(lookup(root, lib.path)!.node)!) ?? [])
    }
    return [...seen].sort()
  }
  const elfs = [...bySha].map(([sha, { report }]): ElfReport => {
    const t = translated.get(sha)
    return { ...report, needed: direct.get(sha)!, closure: closure(sha), ...(t ? { functions: t.slotCount, nativeBytes: t.codeLen } : {}) }
  })
  for (const e of elfs) {
    const lost = e.needed.filter((l) => l.path === null).map((l) => l.name)
    const why = e.unsupported ?? (lost.length ? `the image has no ${lost.join(', ')} where the loader looks` : e.interp && !lookup(root, e.interp) ? `the image has no ${e.interp}` : undefined)
    if (why) for (const path of e.paths) unsupported.push({ path, why })
  }
  for (const s of scripts) if (!s.present) unsupported.push({ path: s.path, why: `the image has no ${s.interpreter || 'interpreter for it'}` })
  return summary(elfs, scripts, unsupported)
}
