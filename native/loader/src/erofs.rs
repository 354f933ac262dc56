//! Reads the image.erofs that our build wrote: extended inodes with flat, block-aligned data, sorted
//! directories, symbolic links' targets behind their inodes (fs/erofs/erofs_fs.h, src/image/erofs.ts).
//! The image is signed, but every offset is checked all the same: `None` is a malformed image.

use crate::errno::{EIO, Errno};

const BLOCK: u64 = 4096;
const DIRENT: usize = 12;

/// Where a regular file's bytes are.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub off: u64,
    pub size: u64,
}

fn u16_at(b: &[u8], off: usize) -> Option<u16> {
    Some(u16::from_le_bytes(b.get(off..off + 2)?.try_into().ok()?))
}

fn u32_at(b: &[u8], off: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(off..off + 4)?.try_into().ok()?))
}

fn u64_at(b: &[u8], off: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(off..off + 8)?.try_into().ok()?))
}

/// An inode's fields.
#[derive(Clone, Copy, Debug)]
pub struct Inode<'a> {
    pub nid: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub size: u64,
    pub mtime: u64,
    block: u32,
    image: &'a [u8],
    /// Offset of what follows the inode.
    behind: usize,
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub name: &'a [u8],
    pub nid: u64,
    /// 1 regular file, 2 directory, 3 and 4 devices, 5 FIFO, 6 socket, 7 symbolic link.
    pub kind: u8,
}

/// Nid of the root directory.
pub fn root(image: &[u8]) -> Option<u64> {
    u16_at(image, 1024 + 14).map(u64::from)
}

pub fn inode(image: &[u8], nid: u64) -> Option<Inode<'_>> {
    let meta = u64::from(u32_at(image, 1024 + 40)?);
    let at = usize::try_from(meta.checked_mul(BLOCK)?.checked_add(nid.checked_mul(32)?)?).ok()?;
    let b = image.get(at..at.checked_add(64)?)?;
    (b[0] & 1 == 1).then_some(())?;
    Some(Inode {
        nid,
        mode: u32::from(u16_at(b, 4)?),
        size: u64_at(b, 8)?,
        block: u32_at(b, 16)?,
        uid: u32_at(b, 24)?,
        gid: u32_at(b, 28)?,
        mtime: u64_at(b, 32)?,
        nlink: u32_at(b, 44)?,
        image,
        behind: at + 64,
    })
}

/// The data of inode `nid`.
pub fn extent(image: &[u8], nid: u64) -> Result<Extent, Errno> {
    let i = inode(image, nid).ok_or(EIO)?;
    let off = u64::from(i.block) * BLOCK;
    let inside = i.size == 0 || off.checked_add(i.size).is_some_and(|end| end <= image.len() as u64);
    if inside { Ok(Extent { off, size: i.size }) } else { Err(EIO) }
}

impl<'a> Inode<'a> {
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    /// A symbolic link's text.
    pub fn target(&self) -> Option<&'a [u8]> {
        self.image.get(self.behind..self.behind.checked_add(usize::try_from(self.size).ok()?)?)
    }

    fn blocks(&self) -> u64 {
        self.size.div_ceil(BLOCK)
    }

    /// Block `n` of a directory and its number of entries.
    fn block(&self, n: u64) -> Option<(&'a [u8], usize)> {
        let from = u64::from(self.block).checked_add(n)?.checked_mul(BLOCK)?;
        let len = BLOCK.min(self.size - n * BLOCK);
        let b = self.image.get(usize::try_from(from).ok()?..usize::try_from(from.checked_add(len)?).ok()?)?;
        let count = usize::from(u16_at(b, 8)?) / DIRENT;
        (count > 0).then_some((b, count))
    }

    /// The entry `name` of a directory. Errors: the outer `None`, when the directory is malformed.
    pub fn lookup(&self, name: &[u8]) -> Option<Option<Entry<'a>>> {
        let (mut low, mut high) = (0, self.blocks());
        // The last block whose first name is not behind the one looked for.
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            let (b, count) = self.block(middle)?;
            if entry(b, count, 0)?.name <= name { low = middle } else { high = middle }
        }
        if low >= high {
            return Some(None);
        }
        let (b, count) = self.block(low)?;
        let (mut from, mut to) = (0, count);
        while from < to {
            let middle = from + (to - from) / 2;
            let e = entry(b, count, middle)?;
            match e.name.cmp(name) {
                std::cmp::Ordering::Equal => return Some(Some(e)),
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        Some(None)
    }

    /// Calls `each` with the entries of a directory in order, until it answers false.
    pub fn entries(&self, mut each: impl FnMut(Entry<'a>) -> bool) -> Option<()> {
        for n in 0..self.blocks() {
            let (b, count) = self.block(n)?;
            for k in 0..count {
                if !each(entry(b, count, k)?) {
                    return Some(());
                }
            }
        }
        Some(())
    }
}

fn entry(block: &[u8], count: usize, n: usize) -> Option<Entry<'_>> {
    let at = n * DIRENT;
    let from = usize::from(u16_at(block, at + 8)?);
    let name = if n + 1 < count {
        block.get(from..usize::from(u16_at(block, at + DIRENT + 8)?))?
    } else {
        let rest = block.get(from..)?;
        &rest[..rest.iter().position(|b| *b == 0).unwrap_or(rest.len())]
    };
    Some(Entry { name, nid: u64_at(block, at)?, kind: *block.get(at + 10)? })
}
