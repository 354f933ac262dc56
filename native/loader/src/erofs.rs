//! Reads inodes of the image.erofs that our build wrote: extended inodes with flat, block-aligned
//! data (fs/erofs/erofs_fs.h). The image is signed, but every offset is checked all the same.

use crate::errno::{EIO, Errno};

const BLOCK: u64 = 4096;

/// Where a regular file's bytes are.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub off: u64,
    pub size: u64,
}

fn u32_at(b: &[u8], off: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(off..off + 4)?.try_into().ok()?))
}

/// The data of inode `nid`.
pub fn extent(image: &[u8], nid: u64) -> Result<Extent, Errno> {
    let find = || {
        let meta = u64::from(u32_at(image, 1024 + 40)?);
        let at = usize::try_from(meta.checked_mul(BLOCK)?.checked_add(nid.checked_mul(32)?)?).ok()?;
        let inode = image.get(at..at.checked_add(64)?)?;
        let size = u64::from_le_bytes(inode[8..16].try_into().ok()?);
        let off = u64::from(u32_at(inode, 16)?) * BLOCK;
        let inside = size == 0 || off.checked_add(size)? <= image.len() as u64;
        (inode[0] & 1 == 1 && inside).then_some(Extent { off, size })
    };
    find().ok_or(EIO)
}
