/**
 * For tests: a small interpreted image of this host's programs, made once and kept in build/, and
 * real daemons on it, each with a directory of its own. Clients are the real one, bin/recompiler's.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build } from '../image/build.ts'
import { fromHost } from '../image/from-host.ts'
import { Progress } from '../image/progress.ts'
import { defaultConfig } from '../image/source.ts'
import { directory, place, type Inode } from '../image/tree.ts'
import type { Config } from '../image/manifest.ts'
import type { Policy } from '../policy/policy.ts'

export const root = join(import.meta.dirname, '../..')
export const client = join(root, 'native/target/release/recompiler')
const cache = join(root, 'build/test-images')

/** Programs of every test image, from wherever this host has them. */
const PROGRAMS = ['bash', 'cat', 'chmod', 'chown', 'cp', 'cut', 'df', 'env', 'head', 'id', 'ln', 'ls', 'mkdir', 'mkfifo', 'mktemp', 'mv', 'ps', 'pwd', 'readlink', 'rm', 'rmdir',
  'seq', 'sha256sum', 'sleep', 'sort', 'stat', 'sync', 'tail', 'touch', 'tr', 'true', 'tty', 'wc']

/** C programs of conformance/programs that are in it too. */
const PROBES = ['probe', 'talk']

const where = (name: string): string => {
  const at = ['/bin', '/usr/bin'].map((d) => join(d, name)).find((p) => existsSync(p))
  if (!at) throw new Error(`${name} is not on this host; the tests need it`)
  return at
}

/** The C program of conformance/programs, compiled once. */
export function program(name: string): string {
  const source = join(root, 'conformance/programs', `${name}.c`)
  const out = join(cache, `${name}-${createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 16)}`)
  if (existsSync(out)) return out
  mkdirSync(cache, { recursive: true })
  const fresh = `${out}.${process.pid}`
  const r = spawnSync('cc', ['-O1', '-o', fresh, source], { encoding: 'utf8' })
  if (r.status !== 0) throw new Error(`cc ${source}: ${r.error?.message ?? r.stderr}`)
  renameSync(fresh, out)
  return out
}

const file = (path: string, mode: number): Inode =>
  ({ kind: 'file', mode, uid: 0, gid: 0, mtime: 0, rdev: 0, source: { path, off: 0, size: statSync(path).size } })

function tree(): Inode {
  const base = fromHost(PROGRAMS.map(where))
  const text = (at: string, body: string, mode = 0o644): void => {
    const host = join(cache, `text-${createHash('sha256').update(body).digest('hex').slice(0, 16)}`)
    if (!existsSync(host)) writeFileSync(host, body)
    place(base, at, file(host, mode))
  }
  text('/etc/passwd', 'root:x:0:0:root:/root:/bin/bash\nmail:x:8:8:mail:/var/mail:/bin/false\nguest:x:1000:1001::/home/guest:/bin/bash\n')
  text('/etc/group', 'root:x:0:\nmail:x:8:guest\ntty:x:5:\nguest:x:1001:\nextra:x:2000:guest,mail\n')
  text('/script', '#!/bin/bash\necho "script $0 $*"\n', 0o755)
  text('/not-executable', 'text\n')
  for (const name of PROBES) place(base, `/usr/bin/${name}`, file(program(name), 0o755))
  place(base, '/home/guest', { ...directory(0o755), uid: 1000, gid: 1001 })
  return base
}

/** Environment of builds, daemons and clients: keys and caches of the tests' own. */
const environment = (): NodeJS.ProcessEnv => ({ ...process.env, VKERNEL_KEYS: join(cache, 'keys') })

/** Directory of the test image with `policy` and `config`; built when it, or what it is made by, is new. */
export async function testImage(policy: Partial<Policy> = {}, config: Partial<Config> = {}): Promise<string> {
  mkdirSync(cache, { recursive: true })
  process.env['VKERNEL_KEYS'] = join(cache, 'keys')
  const hash = createHash('sha256').update(JSON.stringify([policy, config]))
  // What decides the image's bytes: the build's own sources, the format, the programs.
  for (const dir of ['src/image', 'native/abi/src']) {
    for (const f of readdirSync(join(root, dir)).filter((f) => /\.(ts|rs)$/.test(f) && !f.includes('.test.')).sort()) hash.update(readFileSync(join(root, dir, f)))
  }
  hash.update(readFileSync(import.meta.filename))
  for (const p of [...PROGRAMS.map(where), ...PROBES.map(program)]) hash.update(`${p} ${statSync(p).mtimeMs}`)
  const recompiler = statSync(join(root, 'native/target/release/vkernel-recompiler'))
  hash.update(`${recompiler.mtimeMs}`)
  const out = join(cache, `image-${hash.digest('hex').slice(0, 16)}`)
  if (existsSync(out)) return out
  const fresh = mkdtempSync(`${out}.`)
  rmSync(fresh, { recursive: true })
  await build(() => ({ root: tree(), config: { ...defaultConfig, ...config } }), {
    out: fresh, translate: false, policy: { exec: 'path+digest', egress: [], ...policy }, progress: new Progress({ write: () => true }),
  })
  try {
    renameSync(fresh, out)
  } catch {
    // Another test process was faster.
    rmSync(fresh, { recursive: true, force: true })
  }
  return out
}

export interface Outcome { readonly status: number | string; readonly stdout: string; readonly stderr: string }

export interface AuditLine { readonly seq: number; readonly event: string; readonly decision: string; readonly path?: string; readonly digest?: string; readonly rule: string }

/** A real daemon with a directory of its own. */
export class TestDaemon {
  readonly dir: string
  readonly socket: string
  readonly audit: string
  private child: ChildProcess | undefined
  private readonly prefix: readonly string[]
  private readonly state: string
  private readonly options: readonly string[]
  log = ''

  private constructor(dir: string, prefix: readonly string[], state: string | undefined, audit: string | undefined, options: readonly string[]) {
    this.dir = dir
    this.socket = join(dir, 's')
    this.audit = audit ?? join(dir, 'audit.jsonl')
    this.prefix = prefix
    this.options = options
    this.state = state ?? join(dir, 'state')
  }

  /** `prefix`: a command that starts the daemon's (setpriv …); `dir`: for what it leaves; `state`: its state directory; `options`: of its command line. */
  static async start(o: { prefix?: readonly string[]; dir?: string; state?: string; audit?: string; options?: readonly string[] } = {}): Promise<TestDaemon> {
    const d = new TestDaemon(o.dir ?? mkdtempSync(join(tmpdir(), 'vkernel-test-')), o.prefix ?? [], o.state, o.audit, o.options ?? [])
    await d.boot()
    return d
  }

  get pid(): number {
    return this.child!.pid!
  }

  /** Starts it, again after its end. Throws what it says when it does not come up. */
  boot(): Promise<void> {
    const [command, ...args] = [...this.prefix, process.execPath, join(root, 'src/daemon/main.ts'), '--socket', this.socket, '--state', this.state, '--audit', this.audit, ...this.options] as [string, ...string[]]
    this.log = ''
    const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'], env: environment() })
    this.child = child
    return new Promise((done, failed) => {
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        this.log += text
        if (this.log.includes('vkernel: listening on')) done()
      })
      // Not at its exit: what it has said may come after that.
      child.on('close', (code, signal) => failed(new Error(`the daemon ended (${code ?? signal}): ${this.log}`)))
    })
  }

  /** Starts a client and leaves it running. */
  spawn(args: readonly string[], prefix: readonly string[] = []): ChildProcess {
    const [command, ...rest] = [...prefix, client, ...args]
    return spawn(command!, rest, { env: { ...environment(), VKERNEL_SOCKET: this.socket }, stdio: ['pipe', 'pipe', 'pipe'] })
  }

  /** Runs a client to its end. */
  command(args: readonly string[], input = '', prefix: readonly string[] = []): Promise<Outcome> {
    return outcomeOf(this.spawn(args, prefix), input)
  }

  /** `recompiler run` of a shell command. */
  async sh(image: string, text: string, options: readonly string[] = []): Promise<Outcome> {
    return this.command(['run', ...options, image, '/bin/bash', '-c', text])
  }

  /** What the audit log says, from record `after` on. */
  records(after = 0): AuditLine[] {
    return readFileSync(this.audit, 'utf8').split('\n').filter(Boolean).map((l) => JSON.parse(l) as AuditLine).filter((r) => r.seq > after)
  }

  denials(after = 0): AuditLine[] {
    return this.records(after).filter((r) => r.decision === 'denied')
  }

  get lastSeq(): number {
    return this.records().at(-1)?.seq ?? 0
  }

  /** Descriptors that it has open. */
  fds(pid = this.pid): number {
    return readdirSync(`/proc/${pid}/fd`).length
  }

  /** Its zygotes. */
  zygotes(): number[] {
    return childrenOf(this.pid)
  }

  end(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | string> {
    const child = this.child
    if (!child || child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child?.exitCode ?? child?.signalCode ?? 0)
    return new Promise((done) => {
      child.on('exit', (code, sig) => done(code ?? sig ?? 0))
      child.kill(signal)
    })
  }

  /** Ends it and removes its directory. */
  async remove(): Promise<void> {
    await this.end()
    for (const line of readFileSync('/proc/self/mounts', 'latin1').split('\n').reverse()) {
      const at = line.split(' ')[1]
      if (at?.startsWith(`${this.dir}/`)) spawnSync('umount', ['-l', at])
    }
    rmSync(this.dir, { recursive: true, force: true })
  }
}

export function outcomeOf(child: ChildProcess, input = ''): Promise<Outcome> {
  return new Promise((done, failed) => {
    let stdout = '', stderr = ''
    child.stdout!.setEncoding('latin1').on('data', (d: string) => { stdout += d })
    child.stderr!.setEncoding('latin1').on('data', (d: string) => { stderr += d })
    child.stdin!.on('error', () => {})
    child.stdin!.end(input)
    child.on('error', failed)
    child.on('close', (code, signal) => done({ status: code ?? signal ?? '', stdout, stderr }))
  })
}

export function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number)
  } catch {
    return []
  }
}

/** Resident memory of a process, kB. */
export const rss = (pid: number): number => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))![1])

export const alive = (pid: number): boolean => {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))
  } catch {
    return false
  }
}

/** Waits until `condition` holds; false after five seconds. */
export async function until(condition: () => boolean): Promise<boolean> {
  for (let n = 0; n < 500; n++) {
    if (condition()) return true
    await new Promise((r) => setTimeout(r, 10))
  }
  return false
}

export const links = (dir: string): string[] => readdirSync(dir).flatMap((n) => { try { return [readlinkSync(join(dir, n))] } catch { return [] } })
