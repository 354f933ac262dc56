/** struct stat, statx, statfs and linux_dirent64 as the kernel lays them out (x86-64). */
import type { BigIntStats } from 'node:fs'
import { S_IFMT } from '../abi/fcntl.ts'
import type { Dentry, FileSystem, Inode, Time } from './inode.ts'
import type { Vfs } from './vfs.ts'

interface Facts { size: number; blocks: number; atime: Time; mtime: Time; ctime: Time }

const time = (ns: bigint): Time => ({ sec: Number(ns / 1_000_000_000n), nsec: Number(ns % 1_000_000_000n) })

/** Size and times: of the host's file where the guest writes it directly. */
function facts(vfs: Vfs, i: Inode): Facts {
  const st: BigIntStats | undefined = vfs.hostStat(i)
  if (st) return { size: Number(st.size), blocks: Number(st.blocks), atime: time(st.atimeNs), mtime: time(st.mtimeNs), ctime: time(st.ctimeNs) }
  const size = vfs.size(i)
  return { size, blocks: i.target !== undefined ? 0 : Math.ceil(size / 4096) * 8, atime: i.atime, mtime: i.mtime, ctime: i.ctime }
}

/** A 64-bit integer, exact up to 2^53, in two halves: BigInt would cost ten times as much. */
function u64(b: Buffer, at: number, v: number): void {
  b.writeUInt32LE(v >>> 0, at)
  b.writeUInt32LE(Math.floor(v / 0x1_0000_0000) >>> 0, at + 4)
}

/** Filled anew by each call and copied out at once; bytes that are no field stay zero. */
const STAT = Buffer.alloc(144)
const STATX = Buffer.alloc(256)

/** struct stat; the buffer is used again by the next call. */
export function writeStat(vfs: Vfs, i: Inode): Buffer {
  const b = STAT
  const f = facts(vfs, i)
  u64(b, 0, i.fs.dev)
  u64(b, 8, i.ino)
  u64(b, 16, Math.max(i.nlink, 0))
  b.writeUInt32LE(i.mode, 24)
  b.writeUInt32LE(i.uid, 28)
  b.writeUInt32LE(i.gid, 32)
  u64(b, 40, i.rdev)
  u64(b, 48, f.size)
  u64(b, 56, 4096)
  u64(b, 64, f.blocks)
  u64(b, 72, f.atime.sec)
  u64(b, 80, f.atime.nsec)
  u64(b, 88, f.mtime.sec)
  u64(b, 96, f.mtime.nsec)
  u64(b, 104, f.ctime.sec)
  u64(b, 112, f.ctime.nsec)
  return b
}

const STATX_BASIC_STATS = 0x7ff

/** struct statx; the buffer is used again by the next call. */
export function writeStatx(vfs: Vfs, i: Inode): Buffer {
  const b = STATX
  const f = facts(vfs, i)
  b.writeUInt32LE(STATX_BASIC_STATS, 0)
  b.writeUInt32LE(4096, 4)
  b.writeUInt32LE(Math.max(i.nlink, 0), 16)
  b.writeUInt32LE(i.uid, 20)
  b.writeUInt32LE(i.gid, 24)
  b.writeUInt16LE(i.mode, 28)
  u64(b, 32, i.ino)
  u64(b, 40, f.size)
  u64(b, 48, f.blocks)
  for (const [at, t] of [[64, f.atime], [96, f.ctime], [112, f.mtime]] as [number, Time][]) {
    u64(b, at, t.sec)
    b.writeUInt32LE(t.nsec, at + 8)
  }
  b.writeUInt32LE(i.rdev >> 8, 128)
  b.writeUInt32LE(i.rdev & 0xff, 132)
  b.writeUInt32LE(i.fs.dev, 140)
  return b
}

/** statfs(2) f_type. */
const MAGIC: Record<FileSystem['type'], number> = { overlay: 0x794c7630, proc: 0x9fa0, sysfs: 0x62656572, tmpfs: 0x01021994, devpts: 0x1cd1, host: 0xef53 }

export function writeStatfs(i: Inode, host: { bsize: number; blocks: number; bfree: number; bavail: number; files: number; ffree: number }): Buffer {
  const b = Buffer.alloc(120)
  const values = [MAGIC[i.fs.type], host.bsize, host.blocks, host.bfree, host.bavail, host.files, host.ffree, i.fs.dev, 255, host.bsize, 0x20 | (i.fs.readonly ? 1 : 0) | (i.fs.noexec ? 8 : 0)]
  values.forEach((v, n) => u64(b, 8 * n, v))
  return b
}

/** All entries of a directory, "." and ".." first, as getdents64 gives them. */
export function writeDirents(d: Dentry, list: Iterable<[string, Inode]>): Buffer {
  const records: Buffer[] = []
  const add = (name: string, i: Inode): void => {
    const len = (19 + name.length + 1 + 7) & ~7
    const r = Buffer.alloc(len)
    u64(r, 0, i.ino)
    u64(r, 8, records.length + 1)
    r.writeUInt16LE(len, 16)
    r.writeUInt8((i.mode & S_IFMT) >> 12, 18)
    r.write(name, 19, 'latin1')
    records.push(r)
  }
  add('.', d.inode)
  add('..', d.parent.inode)
  for (const [name, i] of list) add(name, i)
  return Buffer.concat(records)
}
