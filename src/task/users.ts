/** Users and groups by name, as the image's /etc/passwd and /etc/group say (passwd(5), group(5)). */
import { readFileSync } from 'node:fs'
import { ROOT, resolve } from '../fs/path.ts'
import type { Vfs } from '../fs/vfs.ts'

export interface Identity { readonly uid: number; readonly gid: number; readonly groups: readonly number[]; readonly home: string }

const MAX_ID = 0xffff_fffe
const MAX_FILE = 1 << 20

/** A small regular file of the container as text; empty when there is none. */
function readText(vfs: Vfs, path: string): string {
  const d = resolve(vfs, vfs.root, path, true, ROOT)
  const backing = typeof d === 'number' ? undefined : d.inode.backing
  if (!backing || typeof d === 'number' || vfs.size(d.inode) > MAX_FILE) return ''
  if (backing.kind === 'image') return vfs.image.read(vfs.image.inode(backing.nid), 0, backing.size).toString('latin1')
  try {
    return readFileSync(backing.path, 'latin1')
  } catch {
    return ''
  }
}

const lines = (vfs: Vfs, file: string): string[][] =>
  readText(vfs, file).split('\n').filter((l) => l && !l.startsWith('#')).map((l) => l.split(':'))

const number = (text: string): number | undefined => (/^\d{1,10}$/.test(text) && Number(text) <= MAX_ID ? Number(text) : undefined)

/**
 * `USER[:GROUP]`, each a name or a number. A number need not be in the files. Without a group: the
 * user's own and the supplementary ones; with one: that alone, as docker does.
 * Errors: a sentence that says what is not there.
 */
export function identify(vfs: Vfs, text: string): Identity | string {
  const [user = '', group] = text.split(/:(.*)/s)
  const users = lines(vfs, '/etc/passwd'), groups = lines(vfs, '/etc/group')
  const id = number(user)
  const row = users.find((r) => r[0] === user) ?? (id === undefined ? undefined : users.find((r) => Number(r[2]) === id && r[2] !== ''))
  const uid = row ? number(row[2] ?? '') : id
  if (uid === undefined) return `no user ${user} in the image's /etc/passwd`
  const home = row?.[5] || '/'
  const own = row ? number(row[3] ?? '') ?? 0 : 0
  if (group !== undefined) {
    const found = groups.find((r) => r[0] === group)
    const gid = found ? number(found[2] ?? '') : number(group)
    return gid === undefined ? `no group ${group} in the image's /etc/group` : { uid, gid, groups: [gid], home }
  }
  const more = groups.filter((r) => row && (r[3] ?? '').split(',').includes(row[0]!)).map((r) => number(r[2] ?? '')).filter((g) => g !== undefined)
  return { uid, gid: own, groups: [...new Set([own, ...more])].slice(0, 1024), home }
}
