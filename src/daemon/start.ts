/** What a new process starts with: the image's configuration, overridden by the request, as docker does. */
import { S_IFMT, S_IFREG, X_OK } from '../abi/fcntl.ts'
import type { Dentry } from '../fs/inode.ts'
import { may, resolve, type Creds } from '../fs/path.ts'
import type { Config } from '../image/manifest.ts'
import type { Container } from '../task/container.ts'
import { identify, type Identity } from '../task/users.ts'
import { VkError } from './errors.ts'

export interface Mount { readonly host: string; readonly guest: string; readonly readonly: boolean; readonly tmpfs: boolean }

/** What a client asks for; what it leaves out is the image's, or the container's for `exec`. */
export interface StartRequest {
  readonly path: string | undefined
  readonly argv: readonly Buffer[]
  readonly env: readonly Buffer[]
  readonly cwd: string | undefined
  readonly user: string | undefined
  readonly tty: boolean
}

export interface Start {
  readonly path: Buffer
  readonly argv: readonly Buffer[]
  readonly env: readonly Buffer[]
  readonly cwd: Dentry
  readonly identity: Identity
  readonly creds: Creds
}

const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

const keyOf = (v: Buffer): string => v.toString('latin1').split('=', 1)[0]!

/** Later values win; a name keeps its first place. */
function environment(...lists: (readonly Buffer[])[]): Buffer[] {
  const out = new Map<string, Buffer>()
  for (const v of lists.flat()) out.set(keyOf(v), v)
  return [...out.values()]
}

/** The program that a bare name means: the first of PATH that may be executed (execvp(3)). */
function search(container: Container, name: string, env: readonly Buffer[], cwd: Dentry, creds: Creds): string {
  const path = env.find((v) => keyOf(v) === 'PATH')?.toString('latin1').slice(5) ?? ''
  for (const dir of path.split(':')) {
    const at = `${dir || '.'}/${name}`
    const d = resolve(container.vfs, cwd, at, true, creds)
    if (typeof d !== 'number' && (d.inode.mode & S_IFMT) === S_IFREG && may(d.inode, X_OK, creds)) return at
  }
  throw new VkError('VK_ERR_NOT_FOUND', `${name}: no such program in the container's PATH`)
}

/** Mounts what was asked for. */
export function mountAll(container: Container, mounts: readonly Mount[]): void {
  const { vfs } = container
  for (const m of mounts) {
    if (!m.guest.startsWith('/') || (!m.tmpfs && !m.host.startsWith('/'))) throw new VkError('VK_ERR_MOUNT', `${m.host}:${m.guest} is not two absolute paths`)
    if (m.tmpfs) {
      if (container.directory(m.guest) === undefined || m.guest === '/') throw new VkError('VK_ERR_MOUNT', `nothing can be mounted at ${m.guest}`)
      vfs.mountAt(m.guest, vfs.fileSystem('tmpfs', 'tmpfs', 'rw,nosuid,nodev,noexec,relatime', { noexec: true }), 0o1777)
      continue
    }
    let r: number
    try {
      r = vfs.mountHost(m.host, Buffer.from(m.guest).toString('latin1'), m.readonly)
    } catch (e) {
      throw new VkError('VK_ERR_MOUNT', `${m.host} cannot be mounted: ${(e as { code?: string }).code ?? (e as Error).message}`)
    }
    if (r < 0) throw new VkError('VK_ERR_MOUNT', `${m.host} cannot be mounted at ${m.guest}: a directory goes on a directory, a file on a file`)
  }
}

/** Resolves a request in `container`. Throws VkError; nothing has started then. */
export function prepare(container: Container, config: Config, q: StartRequest): Start {
  const identity = identify(container.vfs, q.user || config.user || '0')
  if (typeof identity === 'string') throw new VkError('VK_ERR_USER', identity)
  const { uid, gid, groups, home } = identity
  const creds: Creds = { uid: [uid, uid, uid], gid: [gid, gid, gid], groups }
  const workdir = q.cwd || config.cwd || '/'
  const cwd = container.directory(Buffer.from(workdir).toString('latin1'))
  if (!cwd) throw new VkError('VK_ERR_WORKDIR', `${workdir} is no directory of the container`)
  const text = (list: readonly string[]): Buffer[] => list.map((v) => Buffer.from(v))
  const defaults = [DEFAULT_PATH, `HOME=${home}`, ...(q.tty ? ['TERM=xterm'] : [])]
  const env = environment(text(defaults), text(config.env), q.env)
  const argv = q.path !== undefined ? [Buffer.from(q.path), ...q.argv.slice(1)] : text([...config.entrypoint, ...config.cmd])
  const name = argv[0]?.toString('latin1')
  if (!name) throw new VkError('VK_ERR_NO_COMMAND', 'what shall run?')
  const path = name.includes('/') ? name : search(container, name, env, cwd, creds)
  return { path: Buffer.from(path, 'latin1'), argv: q.path !== undefined && q.argv.length > 0 ? q.argv : argv, env, cwd, identity, creds }
}
