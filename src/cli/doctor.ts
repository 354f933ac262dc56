/** `recompiler doctor`: what programs need of this host; what is missing, and how to get it. */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statfsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { storeDirectory } from '../image/store.ts'
import { STUB } from '../image/stub.ts'
import { RECOMPILER } from '../image/translate.ts'
import { args, bytes, columns, print } from './output.ts'

/** `recompiler probe` (native/client/src/probe.rs): facts that only system calls can tell. */
export interface Probe {
  readonly namespaces: string | null
  readonly landlock: number
  readonly seccomp: boolean
  readonly userNotification: boolean
  readonly mdwe: boolean
  readonly mseal: boolean
  readonly memfd: boolean
  readonly ptmx: boolean
  readonly nofileHard: number
  readonly pidfd: boolean
}

export interface Finding {
  readonly what: string
  readonly ok: boolean
  /** False: programs run without it, but less tightly locked in. */
  readonly required: boolean
  readonly found: string
  /** How to get it; only when it is missing. */
  readonly fix?: string
}

const NOFILE = 8192, DISK = 2 * 2 ** 30

/** Judges a host. Pure: what the tests vary is in the arguments. */
export function judge(p: Probe, host: { arch: string; cgroup: 1 | 2 | 0; diskFree: number; diskAt: string; missing: readonly string[] }): Finding[] {
  const f = (what: string, ok: boolean, required: boolean, found: string, fix: string): Finding => ({ what, ok, required, found, ...(ok ? {} : { fix }) })
  return [
    f('x86-64 processor', host.arch === 'x64', true, host.arch, 'translated code is x86-64; use an x86-64 host'),
    f('build', host.missing.length === 0, true, host.missing.length ? `missing: ${host.missing.join(', ')}` : 'complete', 'run `npm run build`'),
    f('namespaces', p.namespaces === null, true, p.namespaces ?? 'user, pid, mount, net, ipc, uts, cgroup',
      'as root: sysctl -w user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0; in a container: run it with CAP_SYS_ADMIN and without its default seccomp profile'),
    f('seccomp filters', p.seccomp, true, p.seccomp ? 'yes' : 'no', 'a kernel with CONFIG_SECCOMP_FILTER'),
    f('memfd_create with seals', p.memfd, true, p.memfd ? 'yes' : 'no', 'a kernel of 3.17 or later'),
    f('pidfd', p.pidfd, true, p.pidfd ? 'yes' : 'no', 'a kernel of 5.4 or later'),
    f('open files (hard limit)', p.nofileHard >= NOFILE, true, String(p.nofileHard), `raise it to ${NOFILE} or more: LimitNOFILE= of the service, or "* hard nofile 65536" in /etc/security/limits.conf`),
    f('/dev/ptmx', p.ptmx, false, p.ptmx ? 'yes' : 'no', 'mount devpts; only -t needs it'),
    f('seccomp notification', p.userNotification, false, p.userNotification ? 'yes' : 'no', 'a kernel of 5.0 or later; refused calls are not recorded without it'),
    f('Landlock', p.landlock > 0, false, p.landlock > 0 ? `ABI ${p.landlock}` : 'no', 'a kernel of 5.13 or later with "landlock" in its lsm= list'),
    f('memory-deny-write-execute', p.mdwe, false, p.mdwe ? 'yes' : 'no', 'a kernel of 6.3 or later'),
    f('mseal', p.mseal, false, p.mseal ? 'yes' : 'no', 'a kernel of 6.10 or later'),
    f('cgroup', host.cgroup === 2, false, host.cgroup ? `version ${host.cgroup}` : 'none', 'boot with systemd.unified_cgroup_hierarchy=1; limits need version 2'),
    f('free disk', host.diskFree >= DISK, false, `${bytes(host.diskFree)} at ${host.diskAt}`, `make room: an image of 1 GB takes about 3 GB to build`),
  ]
}

function probe(client: string): Probe | undefined {
  const r = spawnSync(client, ['probe'], { encoding: 'utf8', timeout: 10_000 })
  return r.status === 0 ? JSON.parse(r.stdout) as Probe : undefined
}

/** The nearest directory that exists, so that free space can be asked for before the store is made. */
function existing(dir: string): string {
  while (!existsSync(dir)) dir = dirname(dir)
  return dir
}

function cgroupVersion(): 0 | 1 | 2 {
  if (existsSync('/sys/fs/cgroup/cgroup.controllers')) return 2
  return existsSync('/proc/self/cgroup') && readFileSync('/proc/self/cgroup', 'utf8') !== '' ? 1 : 0
}

/** Exit status 1 when something that is required is missing. */
export function doctorVerb(argv: string[]): number {
  const { values } = args('doctor', { args: argv, options: { json: { type: 'boolean' } } })
  const release = dirname(RECOMPILER)
  const wanted = { recompiler: join(release, 'recompiler'), 'vkernel-loader': join(release, 'vkernel-loader'), 'vkernel-recompiler': RECOMPILER, 'vkernel-stub': STUB }
  const missing = Object.entries(wanted).filter(([, path]) => !existsSync(path)).map(([name]) => name)
  const facts = missing.includes('recompiler') ? undefined : probe(wanted.recompiler)
  const unknown: Probe = { namespaces: 'not probed', landlock: 0, seccomp: false, userNotification: false, mdwe: false, mseal: false, memfd: false, ptmx: false, nofileHard: 0, pidfd: false }
  const at = existing(storeDirectory())
  const fs = statfsSync(at)
  const findings = judge(facts ?? unknown, { arch: process.arch, cgroup: cgroupVersion(), diskFree: fs.bavail * fs.bsize, diskAt: at, missing })
  const ok = findings.every((x) => x.ok || !x.required)
  print(values.json, { ok, findings }, () => [
    ...columns(findings.map((x) => [x.ok ? 'ok' : x.required ? 'MISSING' : 'weaker', x.what, x.found])),
    ...findings.filter((x) => !x.ok).map((x) => `${x.what}: ${x.fix!}`),
    ok ? 'this host can run images' : 'this host cannot run images yet',
  ])
  return ok ? 0 : 1
}
