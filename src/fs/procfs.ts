/**
 * /proc: what programs really read. Facts about processes come from the host's procfs, numbers
 * translated to the container's PID namespace and terminals; a container sees its own processes only.
 * Facts about the system are the host's where a program sizes itself by them (procsys.ts).
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { S_IFDIR, S_IFLNK, S_IFREG } from '../abi/fcntl.ts'
import { pathOf, type Dentry, type Inode, type Special } from './inode.ts'
import type { Creds } from './path.ts'
import { systemEntries } from './procsys.ts'
import { slaveDevice } from './ptys.ts'
import type { Vfs } from './vfs.ts'

/** What procfs asks of the container. */
export interface ProcSource {
  /** Process that is looking. */
  current(): ProcTask | undefined
  /** All processes, by guest pid. */
  tasks(): ProcTask[]
  readonly hostname: string
  /** Number in the container of the host's pseudo-terminal. */
  terminal(hostIndex: number): number | undefined
  /** Link text of another process's descriptor. */
  descriptor(t: ProcTask, fd: number): string
}

export interface ProcTask {
  readonly hostPid: number
  readonly guestPid: number
  readonly creds: Creds
  readonly exe: Dentry | undefined
  readonly cwd: Dentry
  readonly cmdline: Buffer
  readonly environ: Buffer
}

/** Makes the files of /proc. */
export class ProcFiles {
  private readonly vfs: Vfs
  private readonly fs: Inode['fs']

  constructor(vfs: Vfs, fs: Inode['fs']) {
    this.vfs = vfs
    this.fs = fs
  }

  private inode(mode: number, special: Special, owner?: ProcTask): Inode {
    return Object.assign(this.vfs.newInode(mode, owner?.creds.uid[1] ?? 0, owner?.creds.gid[1] ?? 0, this.fs), { special })
  }

  file(make: () => string | Buffer, owner?: ProcTask, mode = 0o444, sink = false): Inode {
    return this.inode(S_IFREG | mode, { kind: 'text', make, sink }, owner)
  }

  maps(own: () => boolean, owner: ProcTask): Inode {
    return this.inode(S_IFREG | 0o444, { kind: 'maps', own }, owner)
  }

  link(target: () => string, node?: () => Dentry | undefined, owner?: ProcTask): Inode {
    return this.inode(S_IFLNK | 0o777, { kind: 'link', target, ...(node ? { node } : {}) }, owner)
  }

  descriptor(fd: number, owner: ProcTask): Inode {
    return this.inode(S_IFLNK | 0o700, { kind: 'fd', fd }, owner)
  }

  dynamic(list: () => [string, Inode][], find: (name: string) => Inode | undefined, owner?: ProcTask, fds?: (open: readonly number[]) => [string, Inode][]): Inode {
    return this.inode(S_IFDIR | (fds ? 0o500 : 0o555), { kind: 'dynamic', list, find, ...(fds ? { fds } : {}) }, owner)
  }

  fixed(entries: [string, Inode][], owner?: ProcTask): Inode {
    const map = new Map(entries)
    return this.dynamic(() => entries, (name) => map.get(name), owner)
  }
}

export const readText = (file: string): string => {
  try { return readFileSync(file, 'latin1') } catch { return '' }
}

const numbers = (dir: string): number[] => {
  try { return readdirSync(dir).map(Number).sort((a, b) => a - b) } catch { return [] }
}

/** Last number of NSpid: the id inside the innermost namespace. */
export const innerId = (status: string): number => Number(/^NSpid:\s+(.*)$/m.exec(status)?.[1]?.split(/\s+/).at(-1) ?? 0)

const HIDDEN_FDS = 4064
const NET = ['dev', 'tcp', 'tcp6', 'udp', 'udp6', 'unix', 'route', 'if_inet6', 'sockstat', 'snmp', 'netlink', 'raw', 'arp', 'ipv6_route', 'protocols']

export function mountProc(vfs: Vfs, source: ProcSource): void {
  const fs = vfs.fileSystem('proc', 'proc', 'rw,nosuid,nodev,noexec,relatime', { noexec: true })
  const proc = vfs.mountAt('/proc', fs, 0o555)
  const make = new ProcFiles(vfs, fs)

  /** A process that has been waited for is gone at once, though the daemon hears of it later. */
  const alive = (t: ProcTask): boolean => existsSync(`/proc/${t.hostPid}/stat`)
  const translate = (hostPid: number): number => source.tasks().find((t) => t.hostPid === hostPid)?.guestPid ?? 0
  const isSelf = (t: ProcTask): boolean => source.current()?.hostPid === t.hostPid

  /** stat: process ids and the terminal become the container's (proc(5): fields 1, 4–8). */
  /** Who reads about itself is running, though the host sees it wait for the answer. */
  const reads = (t: ProcTask, id: number): boolean => source.current()?.hostPid === t.hostPid && id === t.guestPid
  const stat = (raw: string, t: ProcTask, id: number): string => {
    const close = raw.lastIndexOf(')')
    if (close < 0) return ''
    const comm = raw.slice(raw.indexOf('('), close + 1)
    const f = raw.slice(close + 2).split(' ')
    for (const n of [1, 2, 3, 5]) if (Number(f[n]) > 0) f[n] = String(translate(Number(f[n])))
    if (reads(t, id)) f[0] = 'R'
    const tty = Number(f[4])
    const index = tty === 0 ? undefined : source.terminal((((tty >> 8) & 0xfff) - 136 << 20) | (tty & 0xff) | ((tty >> 12) & 0xfff00))
    f[4] = String(index === undefined ? 0 : slaveDevice(index))
    return `${id} ${comm} ${f.join(' ')}`
  }
  const status = (raw: string, t: ProcTask, id: number): string => raw.split('\n').flatMap((line) => {
    const [key = '', value = ''] = line.split(':\t')
    switch (key) {
      case 'Tgid': return [`Tgid:\t${t.guestPid}`]
      case 'Pid': return [`Pid:\t${id}`]
      case 'State': return [reads(t, id) ? 'State:\tR (running)' : line]
      case 'PPid': return [`PPid:\t${translate(Number(value))}`]
      case 'Uid': return [`Uid:\t${[...t.creds.uid, t.creds.uid[1]].join('\t')}`]
      case 'Gid': return [`Gid:\t${[...t.creds.gid, t.creds.gid[1]].join('\t')}`]
      case 'Groups': return [`Groups:\t${t.creds.groups.map((g) => `${g} `).join('')}`]
      default: return /^(NS|Cap|Speculation|THP|untag|x86|Seccomp_)/.test(key) ? [] : [line]
    }
  }).join('\n')
  const limits = (t: ProcTask): string =>
    readText(`/proc/${t.hostPid}/limits`).replace(/^(Max open files +)(\d+)( +)\d+ +/m, (_, head: string, soft: string) => `${head}${soft.padEnd(21)}${String(HIDDEN_FDS).padEnd(21)}`)

  const fdDir = (t: ProcTask): Inode => {
    const entry = (n: number): Inode => (isSelf(t) ? make.descriptor(n, t) : make.link(() => source.descriptor(t, n), undefined, t))
    const entries = (fds: readonly number[]): [string, Inode][] => fds.filter((n) => n < HIDDEN_FDS).map((n) => [String(n), entry(n)])
    const find = (name: string): Inode | undefined => {
      if (!/^\d{1,4}$/.test(name) || Number(name) >= HIDDEN_FDS) return undefined
      // One's own are known to the loader alone; others' are looked up.
      return isSelf(t) || numbers(`/proc/${t.hostPid}/fd`).includes(Number(name)) ? entry(Number(name)) : undefined
    }
    const own = make.dynamic(() => entries(numbers(`/proc/${t.hostPid}/fd`)), find, t, entries)
    const others = make.dynamic(() => entries(numbers(`/proc/${t.hostPid}/fd`)), find, t)
    return isSelf(t) ? own : others
  }

  /** Files that a process and each of its threads have. `at`: the host's directory; `id`: its number in the container. */
  const common = (t: ProcTask, at: string, id: number): [string, Inode][] => [
    ['stat', make.file(() => stat(readText(`${at}/stat`), t, id), t)],
    ['status', make.file(() => status(readText(`${at}/status`), t, id), t)],
    ['statm', make.file(() => readText(`${at}/statm`), t)],
    ['comm', make.file(() => readText(`${at}/comm`), t, 0o644, true)],
    ['cmdline', make.file(() => t.cmdline, t)],
    ['environ', make.file(() => t.environ, t, 0o400)],
    ['maps', make.maps(() => isSelf(t), t)],
    ['mounts', make.file(() => mounts(vfs), t)],
    ['mountinfo', make.file(() => mountInfo(vfs), t)],
    ['limits', make.file(() => limits(t), t)],
    ['io', make.file(() => 'rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n', t, 0o400)],
    ['oom_score_adj', make.file(() => '0\n', t, 0o644, true)],
    ['oom_score', make.file(() => '0\n', t)],
    ['wchan', make.file(() => '0', t)],
    ['sched', make.file(() => '', t)],
    ['schedstat', make.file(() => readText(`${at}/schedstat`), t)],
    ['loginuid', make.file(() => '4294967295', t)],
    ['sessionid', make.file(() => '4294967295', t)],
    ['cgroup', make.file(() => '0::/\n', t)],
    ['exe', make.link(() => '', () => t.exe, t)],
    ['cwd', make.link(() => '/', () => t.cwd, t)],
    ['root', make.link(() => '/', () => t.creds.root ?? vfs.root, t)],
    ['uid_map', make.file(() => '         0          0 4294967295\n', t)],
    ['gid_map', make.file(() => '         0          0 4294967295\n', t)],
    ['setgroups', make.file(() => 'allow\n', t)],
  ]

  /** task/: threads by their number in the container. */
  const taskDir = (t: ProcTask): Inode => {
    const threads = (): [string, Inode][] => numbers(`/proc/${t.hostPid}/task`).flatMap((host): [string, Inode][] => {
      const at = `/proc/${t.hostPid}/task/${host}`
      const id = innerId(readText(`${at}/status`))
      return id > 0 ? [[String(id), make.fixed(common(t, at, id), t)]] : []
    })
    return make.dynamic(threads, (name) => (/^[1-9]\d*$/.test(name) ? threads().find(([n]) => n === name)?.[1] : undefined), t)
  }

  const netDir = (): Inode => make.dynamic(
    () => NET.map((name): [string, Inode] => [name, netFile(name)]),
    (name) => (NET.includes(name) ? netFile(name) : undefined))
  const netFile = (name: string): Inode => make.file(() => readText(`/proc/${source.current()?.hostPid ?? 0}/net/${name}`))

  const known = new WeakMap<ProcTask, Inode>()
  const processDir = (t: ProcTask): Inode => {
    const old = known.get(t)
    if (old && old.uid === t.creds.uid[1]) return old
    const at = `/proc/${t.hostPid}`
    const fixed = new Map([...common(t, at, t.guestPid), ['net', netDir()] as [string, Inode], ['task', taskDir(t)] as [string, Inode]])
    const dir = make.dynamic(() => [...fixed, ['fd', fdDir(t)]], (name) => (name === 'fd' ? fdDir(t) : fixed.get(name)), t)
    known.set(t, dir)
    return dir
  }

  const top: [string, Inode][] = [
    ...systemEntries(make, source.hostname),
    ['mounts', make.link(() => 'self/mounts')],
    ['net', make.link(() => 'self/net')],
    ['self', make.link(() => String(source.current()?.guestPid ?? 1))],
    ['thread-self', make.link(() => `${source.current()?.guestPid ?? 1}/task/${source.current()?.guestPid ?? 1}`)],
  ]
  const byName = new Map(top)
  proc.inode.special = {
    kind: 'dynamic',
    list: () => [...source.tasks().filter(alive).map((t): [string, Inode] => [String(t.guestPid), processDir(t)]), ...top],
    find: (name) => {
      const entry = byName.get(name)
      if (entry) return entry
      const t = /^[1-9]\d*$/.test(name) ? source.tasks().find((t) => t.guestPid === Number(name) && alive(t)) : undefined
      return t && processDir(t)
    },
  }
}

/** What is mounted, with octal escapes as in fstab(5). */
const mountTable = (vfs: Vfs): { source: string; at: string; type: string; options: string; dev: number }[] => vfs.mounts.map(({ at, fs }) => ({
  source: fs.source, at: pathOf(at).replace(/[ \t\n\\]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`),
  // What a host's file system is, is the host's own.
  type: fs.type === 'host' ? 'ext4' : fs.type, options: fs.options, dev: fs.dev,
}))

const mounts = (vfs: Vfs): string => mountTable(vfs).map((m) => `${m.source} ${m.at} ${m.type} ${m.options} 0 0\n`).join('')

/** proc(5) mountinfo: id, parent, major:minor, root, mount point, options, -, type, source, super options. */
const mountInfo = (vfs: Vfs): string => mountTable(vfs).map((m, n) =>
  `${20 + n} ${n === 0 ? 19 : 20} 0:${m.dev} / ${m.at} ${m.options} - ${m.type} ${m.source} ${m.options.split(',')[0]}\n`).join('')
