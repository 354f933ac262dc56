/** Archives for tests, byte by byte: what a tar program would refuse to write. */

export interface Member {
  readonly name?: string
  /** '0' file, '1' hard link, '2' symbolic link, '5' directory, …; default: '5' for a name that ends in '/', else '0'. */
  readonly type?: string
  readonly link?: string
  readonly data?: string | Buffer
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly mtime?: number
  readonly device?: readonly [number, number]
  /** Records of a pax header before it. */
  readonly pax?: Readonly<Record<string, string>>
  /** Header bytes over what is written otherwise; the checksum is made afterwards. */
  readonly patch?: (header: Buffer) => void
  /** Header bytes after the checksum was made. */
  readonly damage?: (header: Buffer) => void
}

const pad = (b: Buffer): Buffer => Buffer.concat([b, Buffer.alloc((512 - (b.length % 512)) % 512)])

function records(pax: Readonly<Record<string, string>>): Buffer {
  return Buffer.concat(Object.entries(pax).map(([key, value]) => {
    const body = Buffer.from(` ${key}=${value}\n`, 'latin1')
    let len = body.length + 1
    while (String(len).length + body.length !== len) len++
    return Buffer.concat([Buffer.from(String(len)), body])
  }))
}

export function member(m: Member): Buffer {
  const name = m.name ?? 'f'
  const data = Buffer.isBuffer(m.data) ? m.data : Buffer.from(m.data ?? '')
  const h = Buffer.alloc(512)
  h.write(name, 0, 100, 'latin1')
  h.write((m.mode ?? 0o644).toString(8).padStart(7, '0'), 100)
  h.write((m.uid ?? 0).toString(8).padStart(7, '0'), 108)
  h.write((m.gid ?? 0).toString(8).padStart(7, '0'), 116)
  h.write(data.length.toString(8).padStart(11, '0'), 124)
  h.write((m.mtime ?? 0).toString(8).padStart(11, '0'), 136)
  h.write(m.type ?? (name.endsWith('/') ? '5' : '0'), 156, 'latin1')
  h.write(m.link ?? '', 157, 100, 'latin1')
  h.write('ustar\x0000', 257, 'latin1')
  if (m.device) {
    h.write(m.device[0].toString(8).padStart(7, '0'), 329)
    h.write(m.device[1].toString(8).padStart(7, '0'), 337)
  }
  m.patch?.(h)
  h.fill(0x20, 148, 156)
  h.write(`${h.reduce((a, b) => a + b, 0).toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  m.damage?.(h)
  const before = m.pax ? member({ name: 'pax', type: 'x', data: records(m.pax) }) : Buffer.alloc(0)
  return Buffer.concat([before, h, pad(data)])
}

export const tar = (...members: readonly Member[]): Buffer => Buffer.concat([...members.map(member), Buffer.alloc(1024)])
