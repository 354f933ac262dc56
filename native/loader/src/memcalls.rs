//! mmap and its kin: decode, ask the exec gate where text is wanted, and change the address space.

use crate::cpu::Thread;
use crate::errno::{EACCES, EBADF, EINVAL, ENODEV, ENOMEM, ESPIPE, Errno, SysResult};
use crate::files::{Files, What};
use crate::mm::{Backing, HostFile, PAGE, PROT_EXEC, page_up};
use crate::{erofs, guest, host, image, mediated, mlock, process, profile, ring};
use vkernel_abi::megabinary::KIND_LIB;
use vkernel_abi::region::{MMAP_MIN_ADDR, REGION_SIZE};

pub fn mmap(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let [addr, len, prot, flags, fd, off] = a;
    let (prot, flags, fd) = (prot as i32, flags as i32, fd as i32);
    if len == 0 || off % PAGE != 0 || flags & (libc::MAP_SHARED | libc::MAP_PRIVATE) == 0 {
        return Err(EINVAL);
    }
    if len > REGION_SIZE {
        return Err(ENOMEM);
    }
    let len = page_up(len);
    // MAP_SHARED_VALIDATE is both bits.
    let kind = if flags & libc::MAP_SHARED != 0 { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let place = flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE);
    if flags & libc::MAP_ANONYMOUS != 0 {
        if prot & PROT_EXEC != 0 {
            mediated::report(t, "exec anonymous memory refused");
            return Err(EACCES);
        }
        let mut mm = process::mm();
        let at = mm.place(addr, len, place)?;
        mm.map(at, len, prot, kind | flags & libc::MAP_NORESERVE, None, Backing::Anonymous)?;
        return Ok(at as i64);
    }
    Files::check(fd)?;
    mediated::check_open(fd)?;
    if flags & libc::MAP_TYPE == libc::MAP_SHARED_VALIDATE && flags & libc::MAP_SYNC != 0 {
        return Err(crate::errno::EOPNOTSUPP);
    }
    let what = process::files().kind(fd).what;
    match what {
        What::Directory => Err(ENODEV),
        What::Path => Err(EBADF),
        What::Image => {
            let r = map_image(fd, addr, len, prot, kind | place, off);
            if r == Err(EACCES) && prot & PROT_EXEC != 0 {
                mediated::report(t, "exec mapping of an image file that is no approved text refused");
            }
            r
        }
        What::Host => map_host(t, fd, addr, len, prot, kind | place, off),
    }
}

fn map_image(fd: i32, addr: u64, len: u64, prot: i32, flags: i32, off: u64) -> SysResult {
    if flags & libc::MAP_SHARED != 0 && prot & libc::PROT_WRITE != 0 {
        return Err(EACCES);
    }
    let nid = process::files().description(fd).ok_or(EBADF)?.nid.load(std::sync::atomic::Ordering::Relaxed);
    let img = image::get();
    let elf = img.by_nid.get(&nid).copied();
    // Every ELF of the image is in the manifest and in the megabinary; nothing else is text.
    if prot & PROT_EXEC != 0 && elf.is_none() {
        return Err(EACCES);
    }
    let extent = erofs::extent(img.erofs, nid)?;
    let file = HostFile { fd: img.erofs_fd, off: extent.off + off, len: extent.size.saturating_sub(off) };
    let name: Vec<u8> = format!("/[image:{nid}]").into_bytes();
    map_file(elf, file, (addr, len), prot, flags, off, name, nid)
}

/// Maps an approved file; a library's first mapping goes to the address it was translated for.
#[allow(clippy::too_many_arguments, reason = "mmap's own arguments and what was looked up for them")]
pub fn map_file(
    elf: Option<u32>,
    file: HostFile,
    (addr, len): (u64, u64),
    prot: i32,
    flags: i32,
    off: u64,
    name: Vec<u8>,
    ino: u64,
) -> SysResult {
    let img = image::get();
    let place = flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE);
    let kind = flags & (libc::MAP_SHARED | libc::MAP_PRIVATE);
    let mut mm = process::mm();
    let mut at = None;
    if let Some(e) = elf
        && place == 0
        && addr == 0
        && off == 0
    {
        let base = img.elfs[e as usize].entry.base;
        if base >= MMAP_MIN_ADDR && base + len <= REGION_SIZE && mm.is_free(base, len) {
            at = Some(base);
        }
    }
    let at = match at {
        Some(at) => at,
        None => mm.place(addr, len, place)?,
    };
    let backing = Backing::File { name: name.into(), ino, off };
    mm.map(at, len, prot, kind, Some(file), backing)?;
    if prot & PROT_EXEC != 0 {
        let generation = mm.text_generation;
        drop(mm);
        text_mapped(elf, at, len).map_err(|_| ENOMEM)?;
        process::publish_text(generation);
    }
    Ok(at as i64)
}

/// Shows an ELF's translation at its address; hides whatever was there elsewhere.
pub fn text_mapped(elf: Option<u32>, at: u64, len: u64) -> Result<(), String> {
    let img = image::get();
    let here = elf.filter(|&e| {
        let entry = &img.elfs[e as usize].entry;
        entry.text_start <= at && at + len <= page_up(entry.text_end.max(at + len)) && at < entry.text_end
    });
    match here {
        Some(e) => {
            img.install_map(e)?;
            if img.elfs[e as usize].entry.kind != KIND_LIB {
                profile::program(e);
            }
            let mut elfs = process::elfs();
            if !elfs.contains(&e) {
                elfs.push(e);
            }
            Ok(())
        }
        None => img.clear_map(at, at + len),
    }
}

fn map_host(t: &mut Thread, fd: i32, addr: u64, len: u64, prot: i32, flags: i32, off: u64) -> SysResult {
    let node = process::files().kind(fd).node;
    let (mut source, mut elf) = (fd, None);
    if prot & PROT_EXEC != 0 {
        let (fd, e) = approved_copy(t, node, fd)?;
        source = fd;
        elf = e;
    }
    // SAFETY: fstat fills the struct.
    let st = unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        if libc::fstat(source, &mut st) != 0 {
            return Err(EBADF);
        }
        st
    };
    let len_of_file = match st.st_mode & libc::S_IFMT {
        // Beyond its end too: the kernel raises SIGBUS there, until the file has grown.
        libc::S_IFREG => len,
        libc::S_IFCHR => len,
        libc::S_IFIFO | libc::S_IFSOCK => return Err(ENODEV),
        _ => return Err(ESPIPE),
    };
    let file = HostFile { fd: source, off, len: len_of_file };
    let name = format!("/[node:{node}]").into_bytes();
    let r = map_file(elf, file, (addr, len), prot, flags, off, name, st.st_ino);
    if source != fd {
        // SAFETY: the sealed copy we received; the mapping keeps its memory.
        unsafe { libc::close(source) };
    }
    r
}

/// The sealed copy of an upper-layer file that the exec gate has approved, and its ELF index.
fn approved_copy(t: &mut Thread, node: u32, fd: i32) -> Result<(i32, Option<u32>), Errno> {
    #[cfg(feature = "bare")]
    if ring::conn() < 0 {
        return Ok((fd, bare_elf(fd)));
    }
    let _ = fd;
    if node == 0 {
        mediated::report(t, "exec mapping of a descriptor without a file refused");
        return Err(EACCES);
    }
    let w = ring::window(t)?;
    let reply = ring::call(t, libc::SYS_mmap as u32, [0, 0, 0, 0, u64::from(node), 0], w)?;
    let elf = reply.ret?;
    let copy = *reply.fds.first().ok_or(EACCES)?;
    Ok((copy, u32::try_from(elf).ok()))
}

/// In a bare run the megabinary names files by host inode.
#[cfg(feature = "bare")]
pub fn bare_elf(fd: i32) -> Option<u32> {
    // SAFETY: fstat fills the struct.
    let ino = unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &mut st);
        st.st_ino
    };
    image::get().by_nid.get(&ino).copied()
}

pub fn dispatch(nr: i64, a: [u64; 6]) -> SysResult {
    let mut mm = process::mm();
    match nr {
        libc::SYS_munmap => {
            mm.unmap(a[0], a[1])?;
            process::publish_text(mm.text_generation);
            Ok(0)
        }
        libc::SYS_mprotect => {
            mm.protect(a[0], a[1], a[2] as i32)?;
            process::publish_text(mm.text_generation);
            Ok(0)
        }
        libc::SYS_brk => Ok(mm.set_brk(a[0]) as i64),
        libc::SYS_mremap => mm.remap(a[0], a[1], a[2], a[3] as i32, a[4]).map(|v| v as i64),
        libc::SYS_mlock
        | libc::SYS_munlock
        | libc::SYS_mlock2
        | libc::SYS_mlockall
        | libc::SYS_munlockall
        | libc::SYS_mincore => mlock::dispatch(&mut mm, nr, a),
        libc::SYS_msync => {
            let flags = a[2] as i32;
            let both = libc::MS_ASYNC | libc::MS_SYNC;
            if flags & !(both | libc::MS_INVALIDATE) != 0 || !a[0].is_multiple_of(PAGE) || flags & both == both {
                return Err(EINVAL);
            }
            let len = page_up(a[1]);
            if len < a[1] || a[0] >= REGION_SIZE || len > REGION_SIZE - a[0] || !mlock::is_mapped(&mm, a[0], len) {
                return Err(ENOMEM);
            }
            // SAFETY: a checked range of the region.
            unsafe { host::call(nr, [guest::range(a[0], a[1]), a[1], a[2], 0, 0, 0]) }
        }
        _ => advise(&mm, a),
    }
}

/// madvise(2): the advice that drops pages must not reach past the guest's mappings.
fn advise(mm: &crate::mm::Mm, a: [u64; 6]) -> SysResult {
    let len = page_up(a[1]);
    if !a[0].is_multiple_of(PAGE) {
        return Err(EINVAL);
    }
    if a[0] >= REGION_SIZE || len > REGION_SIZE - a[0] {
        return Err(ENOMEM);
    }
    match a[2] as i32 {
        libc::MADV_NORMAL
        | libc::MADV_RANDOM
        | libc::MADV_SEQUENTIAL
        | libc::MADV_WILLNEED
        | libc::MADV_HUGEPAGE
        | libc::MADV_NOHUGEPAGE
        | libc::MADV_DODUMP
        | libc::MADV_DONTDUMP
        | libc::MADV_MERGEABLE
        | libc::MADV_UNMERGEABLE
        | libc::MADV_COLD
        | libc::MADV_PAGEOUT => {
            if mlock::is_mapped(mm, a[0], len) {
                Ok(0)
            } else {
                Err(ENOMEM)
            }
        }
        libc::MADV_DONTNEED | libc::MADV_FREE | libc::MADV_REMOVE => {
            let mut at = a[0];
            while at < a[0] + len {
                let Some((_, vma)) = mm.find(at) else { return Err(ENOMEM) };
                at = vma.end;
            }
            // SAFETY: the guest's own mappings.
            unsafe { host::call(libc::SYS_madvise, [guest::at(a[0]) as u64, len, a[2], 0, 0, 0]) }
        }
        libc::MADV_DONTFORK | libc::MADV_DOFORK | libc::MADV_WIPEONFORK | libc::MADV_KEEPONFORK => {
            // SAFETY: as above.
            unsafe { host::call(libc::SYS_madvise, [guest::at(a[0]) as u64, len, a[2], 0, 0, 0]) }
        }
        _ => Err(EINVAL),
    }
}
