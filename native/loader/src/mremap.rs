//! mremap(2): moving, resizing and duplicating mappings of the region.

use crate::errno::{EFAULT, EINVAL, ENOMEM, Errno};
use crate::guest;
use crate::mm::{Backing, Mm, PAGE, host_unmap, last, page_up};
use vkernel_abi::region::REGION_SIZE;

impl Mm {
    /// mremap(2). Errors in the order of mm/mremap.c: EINVAL of the arguments, EFAULT of the old range,
    /// ENOMEM.
    pub fn remap(&mut self, old: u64, old_len: u64, new_len: u64, flags: i32, to: u64) -> Result<u64, Errno> {
        let (old_len, new_len) = (page_up(old_len), page_up(new_len));
        let has = |f: i32| flags & f != 0;
        let (fixed, stays) = (has(libc::MREMAP_FIXED), has(libc::MREMAP_DONTUNMAP));
        let may_move = has(libc::MREMAP_MAYMOVE);
        let known = libc::MREMAP_FIXED | libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
        if flags & !known != 0 || !old.is_multiple_of(PAGE) || new_len == 0 || new_len > REGION_SIZE {
            return Err(EINVAL);
        }
        if (fixed || stays) && !may_move || stays && old_len != new_len {
            return Err(EINVAL);
        }
        if fixed && (!to.is_multiple_of(PAGE) || to >= REGION_SIZE || to < old + old_len && old < to + new_len) {
            return Err(EINVAL);
        }
        let (start, vma) = self.find(old).ok_or(EFAULT)?;
        if old_len == 0 && vma.flags & libc::MAP_SHARED == 0 {
            return Err(EINVAL);
        }
        if old + old_len > vma.end {
            return Err(EFAULT);
        }
        let mut vma = vma.clone();
        if let Backing::File { off, .. } = &mut vma.backing {
            *off += old - start;
        }
        if !fixed && !stays && old_len != 0 {
            if new_len <= old_len {
                if new_len < old_len {
                    self.unmap(old + new_len, old_len - new_len)?;
                }
                return Ok(old);
            }
            if self.grow(old, old_len, new_len, &vma)? {
                return Ok(old);
            }
        }
        if !may_move {
            return Err(ENOMEM);
        }
        let to = if fixed { self.place(to, new_len, libc::MAP_FIXED)? } else { self.place(0, new_len, 0)? };
        let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | flags & libc::MREMAP_DONTUNMAP;
        // SAFETY: both ranges lie in the region.
        let p = unsafe { libc::mremap(guest::at(old).cast(), old_len as usize, new_len as usize, how, guest::at(to)) };
        if p == libc::MAP_FAILED {
            return Err(last());
        }
        self.forget(to, new_len);
        if old_len > 0 && !stays {
            self.forget(old, old_len);
            host_unmap(old, old_len)?;
        }
        vma.end = to + new_len;
        self.vmas.insert(to, vma);
        Ok(to)
    }

    /// Grows in place. The kernel does so only when nothing is behind a mapping, and the reservation
    /// is: so private anonymous memory is extended by a fresh mapping, everything else moves.
    fn grow(&mut self, old: u64, old_len: u64, new_len: u64, vma: &crate::mm::Vma) -> Result<bool, Errno> {
        let more = new_len - old_len;
        let room = old + new_len <= REGION_SIZE && vma.end == old + old_len && self.is_free(old + old_len, more);
        let plain = matches!(vma.backing, Backing::Anonymous | Backing::Heap) && vma.flags & libc::MAP_PRIVATE != 0;
        if !room || !plain {
            return Ok(false);
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        self.map(old + old_len, more, vma.prot, flags, None, vma.backing.clone())?;
        self.merge(old, new_len);
        Ok(true)
    }
}
