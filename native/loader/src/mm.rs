//! The guest's address space: mmap and its kin over the 4 GiB region, and the VMA table that is the
//! guest's view of it (/proc/self/maps, and where code may be executed).
//!
//! Invariant: the host mapping of a VMA has its protection without PROT_EXEC; everything in the
//! region that is no VMA is PROT_NONE.

use crate::errno::{EACCES, EEXIST, EINVAL, ENOMEM, Errno};
use crate::guest;
use std::collections::BTreeMap;
use vkernel_abi::region::{EXE_END, LIB_BASE, MMAP_MIN_ADDR, REGION_SIZE};

pub const PAGE: u64 = 4096;
pub const PROT_EXEC: i32 = libc::PROT_EXEC;

/// What a VMA shows, and where its bytes come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Backing {
    Anonymous,
    /// A file: name for /proc/self/maps, device-and-inode, file offset of the first byte.
    File {
        name: std::sync::Arc<[u8]>,
        ino: u64,
        off: u64,
    },
    Stack,
    Heap,
    /// System V shared memory, attached at `start`.
    Segment {
        id: i32,
        start: u64,
    },
}

#[derive(Clone, Debug)]
pub struct Vma {
    pub end: u64,
    pub prot: i32,
    pub flags: i32,
    pub backing: Backing,
    /// Mapped executable from an approved file and never writable since.
    pub text: bool,
}

pub struct Mm {
    pub vmas: BTreeMap<u64, Vma>,
    pub brk_start: u64,
    pub brk: u64,
    /// Changes whenever text appears or goes: decode caches and instances follow it.
    pub text_generation: u64,
    /// mlockall(MCL_FUTURE): what is mapped from now on is locked; with MCL_ONFAULT, when touched.
    pub lock_future: Option<i32>,
}

/// The host side of a file mapping.
pub struct HostFile {
    pub fd: i32,
    pub off: u64,
    /// Bytes of the file from `off` on that may be mapped; what lies behind is inaccessible.
    pub len: u64,
}

pub fn page_up(v: u64) -> u64 {
    (v + PAGE - 1) & !(PAGE - 1)
}

fn host_map(addr: u64, len: u64, prot: i32, flags: i32, fd: i32, off: u64) -> Result<(), Errno> {
    // SAFETY: the range lies in the region (checked by every caller), which this module owns.
    let p = unsafe {
        libc::mmap(guest::at(addr).cast(), len as usize, prot & !PROT_EXEC, flags | libc::MAP_FIXED, fd, off as i64)
    };
    if p == libc::MAP_FAILED { Err(last()) } else { Ok(()) }
}

pub fn last() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Takes `addr..addr+len` back to inaccessible.
pub fn host_unmap(addr: u64, len: u64) -> Result<(), Errno> {
    host_map(addr, len, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1, 0)
}

impl Mm {
    pub fn new() -> Self {
        Self { vmas: BTreeMap::new(), brk_start: 0, brk: 0, text_generation: 1, lock_future: None }
    }

    /// Forgets everything: the address space of a new program.
    pub fn reset(&mut self) -> Result<(), Errno> {
        self.vmas.clear();
        self.text_generation += 1;
        self.brk_start = 0;
        self.brk = 0;
        self.lock_future = None;
        host_unmap(0, REGION_SIZE)
    }

    pub fn find(&self, addr: u64) -> Option<(u64, &Vma)> {
        let (start, vma) = self.vmas.range(..=addr).next_back()?;
        (addr < vma.end).then_some((*start, vma))
    }

    /// Bytes of approved text from `pc` on.
    pub fn executable(&self, pc: u64) -> usize {
        match self.find(pc) {
            Some((_, vma)) if vma.prot & PROT_EXEC != 0 && vma.text => (vma.end - pc) as usize,
            _ => 0,
        }
    }

    pub fn is_free(&self, addr: u64, len: u64) -> bool {
        self.vmas.range(..addr + len).next_back().is_none_or(|(_, vma)| vma.end <= addr)
    }

    /// Highest free range of `len` bytes below `top` and not below `bottom`.
    fn gap(&self, len: u64, bottom: u64, top: u64) -> Option<u64> {
        let mut end = top;
        for (start, vma) in self.vmas.range(..top).rev() {
            if vma.end < end && end - vma.end >= len && end - len >= bottom {
                return Some(end - len);
            }
            end = end.min(*start);
            if end < bottom + len {
                return None;
            }
        }
        (end >= bottom + len).then(|| end - len)
    }

    /// Splits the VMA that contains `addr` so that a VMA starts there.
    fn split(&mut self, addr: u64) {
        let Some((start, vma)) = self.find(addr) else { return };
        if start == addr {
            return;
        }
        let mut upper = vma.clone();
        if let Backing::File { off, .. } = &mut upper.backing {
            *off += addr - start;
        }
        self.vmas.get_mut(&start).expect("just found").end = addr;
        self.vmas.insert(addr, upper);
    }

    /// Starts of the VMAs inside `addr..addr+len`, after splitting at both ends.
    fn isolate(&mut self, addr: u64, len: u64) -> Vec<u64> {
        self.split(addr);
        self.split(addr + len);
        self.vmas.range(addr..addr + len).map(|(s, _)| *s).collect()
    }

    pub fn forget(&mut self, addr: u64, len: u64) {
        for start in self.isolate(addr, len) {
            if let Some(vma) = self.vmas.remove(&start)
                && vma.text
            {
                self.text_generation += 1;
            }
        }
    }

    /// Where a mapping of `len` bytes goes (mmap(2), MAP_FIXED and MAP_FIXED_NOREPLACE).
    pub fn place(&self, addr: u64, len: u64, flags: i32) -> Result<u64, Errno> {
        if len == 0 || len > REGION_SIZE {
            return Err(if len == 0 { EINVAL } else { ENOMEM });
        }
        let fits = |a: u64| a >= MMAP_MIN_ADDR && a + len <= REGION_SIZE;
        if flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) != 0 {
            if !addr.is_multiple_of(PAGE) {
                return Err(EINVAL);
            }
            if addr > REGION_SIZE - len {
                return Err(ENOMEM);
            }
            if !fits(addr) {
                return Err(crate::errno::EPERM);
            }
            if flags & libc::MAP_FIXED == 0 && !self.is_free(addr, len) {
                return Err(EEXIST);
            }
            return Ok(addr);
        }
        let hint = addr & !(PAGE - 1);
        if hint != 0 && hint < REGION_SIZE && fits(hint) && self.is_free(hint, len) {
            return Ok(hint);
        }
        self.gap(len, EXE_END, LIB_BASE).or_else(|| self.gap(len, MMAP_MIN_ADDR, REGION_SIZE - (1 << 24))).ok_or(ENOMEM)
    }

    /// Maps at `addr` (from `place`), replacing what was there.
    pub fn map(
        &mut self,
        addr: u64,
        len: u64,
        prot: i32,
        flags: i32,
        file: Option<HostFile>,
        backing: Backing,
    ) -> Result<(), Errno> {
        let kind = flags & (libc::MAP_SHARED | libc::MAP_PRIVATE);
        match &file {
            None => {
                let noreserve = flags & libc::MAP_NORESERVE;
                host_map(addr, len, prot, kind | libc::MAP_ANONYMOUS | noreserve, -1, 0)?;
            }
            Some(f) => {
                let mapped = page_up(f.len).min(len);
                if mapped > 0 {
                    host_map(addr, mapped, prot, kind, f.fd, f.off)?;
                }
                if mapped < len {
                    host_unmap(addr + mapped, len - mapped)?;
                }
            }
        }
        self.forget(addr, len);
        if let Some(onfault) = self.lock_future {
            // Best effort, as mmap(2) says of MAP_LOCKED.
            // SAFETY: what was mapped above.
            unsafe { libc::syscall(libc::SYS_mlock2, guest::at(addr), len, onfault) };
        }
        let text = prot & PROT_EXEC != 0 && prot & libc::PROT_WRITE == 0 && file.is_some();
        if text {
            self.text_generation += 1;
        }
        self.vmas.insert(addr, Vma { end: addr + len, prot, flags: kind, backing, text });
        Ok(())
    }

    pub fn unmap(&mut self, addr: u64, len: u64) -> Result<(), Errno> {
        let len = page_up(len);
        if !addr.is_multiple_of(PAGE) || len == 0 || addr >= REGION_SIZE || len > REGION_SIZE - addr {
            return Err(EINVAL);
        }
        self.forget(addr, len);
        host_unmap(addr, len)
    }

    /// mprotect(2). PROT_EXEC is granted only to text that was mapped executable from an approved
    /// file and has not been writable since.
    pub fn protect(&mut self, addr: u64, len: u64, prot: i32) -> Result<(), Errno> {
        let len = page_up(len);
        if !addr.is_multiple_of(PAGE) {
            return Err(EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        if addr >= REGION_SIZE || len > REGION_SIZE - addr {
            return Err(ENOMEM);
        }
        let mut covered = addr;
        for (start, vma) in self.vmas.range(..addr + len) {
            if vma.end <= addr {
                continue;
            }
            if *start > covered {
                return Err(ENOMEM);
            }
            if prot & PROT_EXEC != 0 && (!vma.text || prot & libc::PROT_WRITE != 0) {
                return Err(EACCES);
            }
            covered = vma.end;
        }
        if covered < addr + len {
            return Err(ENOMEM);
        }
        // SAFETY: the range lies in the region.
        let r = unsafe { libc::mprotect(guest::at(addr).cast(), len as usize, prot & !PROT_EXEC) };
        if r != 0 {
            return Err(last());
        }
        for start in self.isolate(addr, len) {
            let vma = self.vmas.get_mut(&start).expect("isolated");
            vma.prot = prot;
            if vma.text && prot & libc::PROT_WRITE != 0 {
                vma.text = false;
                self.text_generation += 1;
            }
        }
        self.merge(addr, len);
        Ok(())
    }

    /// Joins equal neighbours around a range, as /proc/self/maps shows them.
    pub fn merge(&mut self, addr: u64, len: u64) {
        let first = self.vmas.range(..addr).next_back().map_or(addr, |(s, _)| *s);
        let starts: Vec<u64> = self.vmas.range(first..=addr + len).map(|(s, _)| *s).collect();
        for pair in starts.windows(2).rev() {
            let (a, b) = (&self.vmas[&pair[0]], &self.vmas[&pair[1]]);
            let continues = match (&a.backing, &b.backing) {
                (Backing::File { name: n, ino: i, off: o }, Backing::File { name, ino, off }) => {
                    n == name && i == ino && o + (a.end - pair[0]) == *off
                }
                (x, y) => x == y,
            };
            if a.end == pair[1] && a.prot == b.prot && a.flags == b.flags && a.text == b.text && continues {
                let end = b.end;
                self.vmas.remove(&pair[1]);
                self.vmas.get_mut(&pair[0]).expect("present").end = end;
            }
        }
    }

    /// brk(2): the new break, or the old one when it cannot move.
    pub fn set_brk(&mut self, to: u64) -> u64 {
        if to < self.brk_start || to >= REGION_SIZE {
            return self.brk;
        }
        let (old, new) = (page_up(self.brk), page_up(to));
        if new > old {
            if !self.is_free(old, new - old) {
                return self.brk;
            }
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let rw = libc::PROT_READ | libc::PROT_WRITE;
            if self.map(old, new - old, rw, flags, None, Backing::Heap).is_err() {
                return self.brk;
            }
            self.merge(old, new - old);
        } else if new < old && self.unmap(new, old - new).is_err() {
            return self.brk;
        }
        self.brk = to;
        to
    }

    /// A System V segment was attached at `addr` by the host.
    pub fn attached(&mut self, addr: u64, len: u64, prot: i32, id: i32) {
        self.forget(addr, len);
        let backing = Backing::Segment { id, start: addr };
        self.vmas.insert(addr, Vma { end: addr + len, prot, flags: libc::MAP_SHARED, backing, text: false });
    }

    /// The text of /proc/self/maps.
    pub fn maps(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (start, vma) in &self.vmas {
            let bit = |mask: i32, c: char| if vma.prot & mask != 0 { c } else { '-' };
            let (off, ino) = match &vma.backing {
                Backing::File { off, ino, .. } => (*off, *ino),
                _ => (0, 0),
            };
            let device = if ino == 0 { "00:00" } else { "00:1b" };
            let head = format!(
                "{start:08x}-{:08x} {}{}{}{} {off:08x} {device} {ino} ",
                vma.end,
                bit(libc::PROT_READ, 'r'),
                bit(libc::PROT_WRITE, 'w'),
                bit(PROT_EXEC, 'x'),
                if vma.flags & libc::MAP_SHARED != 0 { 's' } else { 'p' },
            );
            out.extend_from_slice(head.as_bytes());
            let name: &[u8] = match &vma.backing {
                Backing::File { name, .. } => name,
                Backing::Stack => b"[stack]",
                Backing::Heap => b"[heap]",
                Backing::Segment { .. } => b"/SYSV00000000 (deleted)",
                Backing::Anonymous => b"",
            };
            if !name.is_empty() {
                out.resize(out.len() + 73usize.saturating_sub(head.len()), b' ');
                out.extend_from_slice(name);
            }
            out.push(b'\n');
        }
        out
    }
}

impl Default for Mm {
    fn default() -> Self {
        Self::new()
    }
}
