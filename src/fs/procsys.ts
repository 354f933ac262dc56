/** The part of /proc that is about the system: the host's figures where a program sizes itself by them, constants otherwise. */
import { CPU, FEATURES } from '../abi/cpu.ts'
import type { Inode } from './inode.ts'
import { readText, type ProcFiles } from './procfs.ts'

const cpuinfo = (cpus: number): string => Array.from({ length: cpus }, (_, n) =>
  `processor\t: ${n}\nvendor_id\t: ${CPU.vendor}\ncpu family\t: ${CPU.family}\nmodel\t\t: ${CPU.model}\nmodel name\t: ${CPU.name}\n`
  + `stepping\t: ${CPU.stepping}\ncpu MHz\t\t: 2000.000\ncache size\t: 8192 KB\nphysical id\t: 0\nsiblings\t: ${cpus}\ncore id\t\t: ${n}\n`
  + `cpu cores\t: ${cpus}\nfpu\t\t: yes\ncpuid level\t: ${CPU.level}\n`
  + `flags\t\t: ${FEATURES.map((f) => f.name).join(' ')}\n\n`).join('')

/** Read once: it takes a look at every processor. */
let processors: number | undefined

export function systemEntries(make: ProcFiles, hostname: string): [string, Inode][] {
  const constant = (v: string): Inode => make.file(() => v)
  const host = (name: string): [string, Inode] => [name.split('/').at(-1)!, make.file(() => readText(`/proc/${name}`))]
  const constants = (values: Record<string, string>): [string, Inode][] => Object.entries(values).map(([k, v]) => [k, constant(`${v}\n`)])
  const cpus = processors ??= readText('/proc/cpuinfo').split('\n\n').filter(Boolean).length || 1
  return [
    ...['meminfo', 'stat', 'uptime', 'version', 'vmstat', 'diskstats', 'swaps', 'zoneinfo'].map(host),
    ['cpuinfo', constant(cpuinfo(cpus))],
    ['loadavg', make.file(() => readText('/proc/loadavg').replace(/\d+\/\d+ \d+/, '1/1 1'))],
    ['filesystems', constant('nodev\tproc\nnodev\tsysfs\nnodev\ttmpfs\nnodev\tdevpts\nnodev\toverlay\n')],
    ['cmdline', constant('\n')],
    ['devices', constant('Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n')],
    ['partitions', constant('major minor  #blocks  name\n\n')],
    ['modules', constant('')],
    ['sys', make.fixed([
      ['kernel', make.fixed([
        host('sys/kernel/osrelease'), host('sys/kernel/version'),
        ...constants({
          ostype: 'Linux', hostname, domainname: '(none)', pid_max: '4194304', 'threads-max': '65536', ngroups_max: '65536', cap_last_cap: '40',
          overflowuid: '65534', overflowgid: '65534', randomize_va_space: '0', shmmax: '18446744073692774399', shmall: '18446744073692774399',
          shmmni: '4096', sem: '32000\t1024000000\t500\t32000', msgmax: '8192', msgmnb: '16384', msgmni: '32000', core_pattern: 'core',
        }),
        ['random', make.fixed([host('sys/kernel/random/boot_id'), host('sys/kernel/random/uuid'), ...constants({ entropy_avail: '256', poolsize: '256' })])],
        ['pty', make.fixed(constants({ max: '256', nr: '0', reserve: '0' }))],
      ])],
      ['vm', make.fixed(constants({ overcommit_memory: '0', overcommit_ratio: '50', max_map_count: '65530', mmap_min_addr: '65536', swappiness: '60', nr_hugepages: '0' }))],
      ['fs', make.fixed([...constants({ 'file-max': '9223372036854775807', nr_open: '4064', 'pipe-max-size': '1048576', 'file-nr': '0\t0\t9223372036854775807' })])],
      ['net', make.fixed([
        ['core', make.fixed(constants({ somaxconn: '4096', rmem_max: '212992', wmem_max: '212992', rmem_default: '212992', wmem_default: '212992' }))],
        ['ipv4', make.fixed(constants({ ip_local_port_range: '32768\t60999', tcp_syncookies: '1', ip_forward: '0', ip_unprivileged_port_start: '1024' }))],
        ['ipv6', make.fixed([['conf', make.fixed([['all', make.fixed(constants({ disable_ipv6: '0' }))]])]])],
      ])],
    ])],
  ]
}
