//! The stack a new program finds: strings, environment, auxiliary vector (x86-64 psABI 3.4.1,
//! fs/binfmt_elf.c create_elf_tables).

use crate::errno::{E2BIG, Errno};
use crate::{guest, host, process};
use vkernel_abi::region::STACK_TOP;

pub struct Contents<'a> {
    pub argv: &'a [Vec<u8>],
    pub envp: &'a [Vec<u8>],
    pub execfn: &'a [u8],
    pub phdr: u64,
    pub phnum: u64,
    pub entry: u64,
    pub base: u64,
}

const AT_MINSIGSTKSZ: u64 = 51;
/// Our signal frame with its FXSAVE image, rounded up to Linux's MINSIGSTKSZ.
const MINSIGSTKSZ: u64 = 2048;

/// Writes the stack; returns rsp.
pub fn build(c: &Contents) -> Result<u64, Errno> {
    let mut strings = Vec::new();
    let mut place = |s: &[u8]| {
        strings.extend_from_slice(s);
        strings.push(0);
        strings.len() - s.len() - 1
    };
    let argv: Vec<usize> = c.argv.iter().map(|s| place(s)).collect();
    let envp: Vec<usize> = c.envp.iter().map(|s| place(s)).collect();
    let execfn = place(c.execfn);
    let platform = place(b"x86_64");
    let mut random = [0u8; 16];
    // SAFETY: fills a live buffer.
    unsafe { host::call(libc::SYS_getrandom, [random.as_mut_ptr() as u64, 16, 0, 0, 0, 0]) }?;
    strings.resize(strings.len().next_multiple_of(16), 0);
    let random_at = strings.len();
    strings.extend_from_slice(&random);
    let base = (STACK_TOP - 16 - strings.len() as u64) & !63;
    let creds = process::creds().clone();
    let hwcap = u64::from(vkernel_semantics::host_ops::cpuid(1, 0)[3]);
    let at = |off: usize| base + off as u64;
    let auxv: [(u64, u64); 18] = [
        (libc::AT_HWCAP, hwcap),
        (libc::AT_PAGESZ, 4096),
        (libc::AT_CLKTCK, 100),
        (libc::AT_PHDR, c.phdr),
        (libc::AT_PHENT, 56),
        (libc::AT_PHNUM, c.phnum),
        (libc::AT_BASE, c.base),
        (libc::AT_FLAGS, 0),
        (libc::AT_ENTRY, c.entry),
        (libc::AT_UID, u64::from(creds.uid[0])),
        (libc::AT_EUID, u64::from(creds.uid[1])),
        (libc::AT_GID, u64::from(creds.gid[0])),
        (libc::AT_EGID, u64::from(creds.gid[1])),
        (libc::AT_SECURE, 0),
        (AT_MINSIGSTKSZ, MINSIGSTKSZ),
        (libc::AT_RANDOM, at(random_at)),
        (libc::AT_EXECFN, at(execfn)),
        (libc::AT_PLATFORM, at(platform)),
    ];
    let mut words = vec![argv.len() as u64];
    words.extend(argv.iter().map(|o| at(*o)));
    words.push(0);
    words.extend(envp.iter().map(|o| at(*o)));
    words.push(0);
    words.extend(auxv.iter().flat_map(|(k, v)| [*k, *v]));
    words.extend([libc::AT_NULL, 0]);
    let rsp = (base - words.len() as u64 * 8) & !15;
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    guest::write_bytes(base, &strings).map_err(|_| E2BIG)?;
    guest::write_bytes(rsp, &bytes).map_err(|_| E2BIG)?;
    Ok(rsp)
}
