/**
 * /proc: what programs really read. Facts about processes come from the host's procfs, numbers
 * translated to the container's PID namespace; facts about the system are the host's where a program
 * sizes itself by them, and constants where they would only tell about the host.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { S_IFDIR, S_IFLNK, S_IFREG } from '../abi/fcntl.ts'
import type { Dentry, Inode, Special } from './inode.ts'
import type { Vfs } from './vfs.ts'

/** What procfs asks of the container. */
export interface ProcSource {
  /** Process that is looking. */
  current(): ProcTask | undefined
  /** All processes, by guest pid. */
  tasks(): ProcTask[]
  readonly hostname: string
  mounts(): string
}

export interface ProcTask {
  readonly hostPid: number
  readonly guestPid: number
  exe(): Dentry | undefined
  cmdline(): string
  cwd(): Dentry | undefined
}

const text = (file: string): string => {
  try { return readFileSync(file, 'latin1') } catch { return '' }
}

export function mountProc(vfs: Vfs, source: ProcSource, mount: (name: string, mode: number) => Dentry): void {
  const proc = mount('proc', 0o555)
  const file = (make: () => string | Buffer): Inode =>
    Object.assign(vfs.newInode(S_IFREG | 0o444, 0, 0, 'proc'), { special: { kind: 'text', make } satisfies Special })
  const dir = (): Inode => vfs.newInode(S_IFDIR | 0o555, 0, 0, 'proc')
  const link = (target: () => string, node?: () => Dentry | undefined): Inode =>
    Object.assign(vfs.newInode(S_IFLNK | 0o777, 0, 0, 'proc'), { special: { kind: 'link', target, ...(node ? { node } : {}) } satisfies Special })
  const dynamic = (list: () => [string, Inode][], find: (name: string) => Inode | undefined): Inode =>
    Object.assign(dir(), { special: { kind: 'dynamic', list, find } satisfies Special })
  const fixed = (entries: [string, Inode][]): Inode => {
    const map = new Map(entries)
    return dynamic(() => entries, (name) => map.get(name))
  }

  const translate = (hostPid: number): number => source.tasks().find((t) => t.hostPid === hostPid)?.guestPid ?? 0

  /** stat: the pid fields become the container's (proc(5): 1, 4, 5, 6, 8). */
  const stat = (t: ProcTask): string => {
    const raw = text(`/proc/${t.hostPid}/stat`)
    const close = raw.lastIndexOf(')')
    const comm = raw.slice(raw.indexOf('('), close + 1)
    const f = raw.slice(close + 2).split(' ')
    for (const n of [1, 2, 3, 5]) if (Number(f[n]) > 0) f[n] = String(translate(Number(f[n])))
    return `${t.guestPid} ${comm} ${f.join(' ')}`
  }
  const status = (t: ProcTask): string => text(`/proc/${t.hostPid}/status`).split('\n').flatMap((line) => {
    const [key, value = ''] = line.split(':\t')
    if (/^(Tgid|Pid|PPid)$/.test(key!)) return [`${key}:\t${key === 'PPid' ? translate(Number(value)) : t.guestPid}`]
    if (/^(NS|Seccomp|NoNewPrivs|Cap|Cpus_allowed|Mems_allowed|Speculation|THP|untag|x86)/.test(key!)) return []
    return [line]
  }).join('\n')

  const fdDir = (t: ProcTask): Inode => {
    const self = (): boolean => source.current()?.hostPid === t.hostPid
    const entry = (n: number): Inode => Object.assign(link(() => fdTarget(t, n)), self()
      ? { special: { kind: 'fd', fd: n } satisfies Special, mode: S_IFLNK | 0o777 } : {})
    const numbers = (): number[] => {
      try { return readdirSync(`/proc/${t.hostPid}/fd`).map(Number).filter((n) => n < 4064).sort((a, b) => a - b) } catch { return [0, 1, 2] }
    }
    return dynamic(() => numbers().map((n) => [String(n), entry(n)]), (name) => (/^\d+$/.test(name) && Number(name) < 4064 ? entry(Number(name)) : undefined))
  }

  const processDir = (t: ProcTask): Inode => fixed([
    ['stat', file(() => stat(t))],
    ['status', file(() => status(t))],
    ['statm', file(() => text(`/proc/${t.hostPid}/statm`))],
    ['comm', file(() => text(`/proc/${t.hostPid}/comm`))],
    ['cmdline', file(() => t.cmdline())],
    ['maps', Object.assign(vfs.newInode(S_IFREG | 0o444, 0, 0, 'proc'), { special: { kind: 'maps' } satisfies Special })],
    ['mounts', file(() => source.mounts())],
    ['mountinfo', file(() => source.mounts().split('\n').filter(Boolean).map((l, n) => {
      const [dev, at, type, opts] = l.split(' ')
      return `${20 + n} 19 0:${20 + n} / ${at} ${opts} - ${type} ${dev} ${opts}\n`
    }).join(''))],
    ['limits', file(() => text(`/proc/${t.hostPid}/limits`))],
    ['oom_score_adj', file(() => '0\n')],
    ['oom_score', file(() => '0\n')],
    ['cgroup', file(() => '0::/\n')],
    ['exe', link(() => '', () => t.exe())],
    ['cwd', link(() => '/', () => t.cwd())],
    ['root', link(() => '/', () => vfs.root)],
    ['fd', fdDir(t)],
  ])

  const cpus = text('/proc/cpuinfo').split('\n\n').filter(Boolean).length || 1
  const cpuinfo = Array.from({ length: cpus }, (_, n) =>
    `processor\t: ${n}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 15\nmodel name\t: vkernel x86-64 baseline CPU\n`
    + `stepping\t: 1\ncpu MHz\t\t: 2000.000\ncache size\t: 8192 KB\nphysical id\t: 0\nsiblings\t: ${cpus}\ncore id\t\t: ${n}\n`
    + `cpu cores\t: ${cpus}\nfpu\t\t: yes\ncpuid level\t: 4\n`
    + 'flags\t\t: fpu tsc cx8 cmov clflush mmx fxsr sse sse2 syscall nx lm lahf_lm\n\n').join('')
  const sys = (entries: [string, Inode][]): Inode => fixed(entries)
  const constant = (v: string): Inode => file(() => v)
  const top: [string, Inode][] = [
    ['meminfo', file(() => text('/proc/meminfo'))],
    ['cpuinfo', constant(cpuinfo)],
    ['stat', file(() => text('/proc/stat'))],
    ['uptime', file(() => text('/proc/uptime'))],
    ['loadavg', file(() => text('/proc/loadavg').replace(/\d+\/\d+ \d+/, '1/1 1'))],
    ['version', file(() => text('/proc/version'))],
    ['filesystems', constant('nodev\tproc\nnodev\ttmpfs\nnodev\toverlay\n')],
    ['vmstat', file(() => text('/proc/vmstat'))],
    ['mounts', link(() => 'self/mounts')],
    ['self', link(() => String(source.current()?.guestPid ?? 1))],
    ['thread-self', link(() => `${source.current()?.guestPid ?? 1}`)],
    ['sys', sys([
      ['kernel', sys([
        ['osrelease', file(() => text('/proc/sys/kernel/osrelease'))],
        ['ostype', constant('Linux\n')],
        ['version', file(() => text('/proc/sys/kernel/version'))],
        ['hostname', constant(`${source.hostname}\n`)],
        ['domainname', constant('(none)\n')],
        ['pid_max', constant('4194304\n')],
        ['ngroups_max', constant('65536\n')],
        ['cap_last_cap', constant('40\n')],
        ['overflowuid', constant('65534\n')],
        ['overflowgid', constant('65534\n')],
        ['random', sys([
          ['boot_id', file(() => text('/proc/sys/kernel/random/boot_id'))],
          ['uuid', file(() => text('/proc/sys/kernel/random/uuid'))],
          ['entropy_avail', constant('256\n')],
        ])],
      ])],
      ['vm', sys([['overcommit_memory', constant('0\n')], ['max_map_count', constant('65530\n')], ['mmap_min_addr', constant('65536\n')]])],
      ['fs', sys([['file-max', constant('9223372036854775807\n')], ['nr_open', constant('4064\n')], ['pipe-max-size', constant('1048576\n')]])],
      ['net', sys([['core', sys([['somaxconn', constant('4096\n')]])]])],
    ])],
  ]
  const byName = new Map(top)
  const processes = new Map<number, Inode>()
  const processOf = (t: ProcTask): Inode => {
    let inode = processes.get(t.hostPid)
    if (!inode) {
      inode = processDir(t)
      if (processes.size > 4096) processes.clear()
      processes.set(t.hostPid, inode)
    }
    return inode
  }
  proc.inode.special = {
    kind: 'dynamic',
    list: () => [...source.tasks().map((t): [string, Inode] => [String(t.guestPid), processOf(t)]), ...top],
    find: (name) => {
      if (byName.has(name)) return byName.get(name)
      const t = /^[1-9]\d*$/.test(name) ? source.tasks().find((t) => t.guestPid === Number(name)) : undefined
      return t && processOf(t)
    },
  }
}

/** What a link in another process's fd directory shows. */
function fdTarget(t: ProcTask, n: number): string {
  try {
    const target = readlinkSync(`/proc/${t.hostPid}/fd/${n}`)
    return /^(pipe|socket|anon_inode):/.test(target) ? target : '/'
  } catch {
    return '/'
  }
}
