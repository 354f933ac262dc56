//! Descriptors in messages (SCM_RIGHTS). Hidden ones are not passed on. An image file is the image
//! itself to the host, so what travels in its place is a sealed copy of its bytes.

use crate::errno::{EINVAL, EIO, ENOMEM, EOPNOTSUPP, Errno};
use crate::files::{Files, What};
use crate::{direct, guest, mediated, process};

/// Control data with host descriptors in it; what was made for it is closed with it.
pub struct Passed {
    /// Of 8-byte words: cmsghdr wants the alignment.
    pub control: Vec<u64>,
    copies: Vec<i32>,
}

impl Drop for Passed {
    fn drop(&mut self) {
        for fd in &self.copies {
            // SAFETY: descriptors of our own.
            unsafe { libc::close(*fd) };
        }
    }
}

/// Larger image files are not passed on.
const LARGEST: usize = 256 << 20;

/// A sealed memory file with the bytes of image file `fd`, at its offset.
fn copy_of_image(fd: i32) -> Result<i32, Errno> {
    let (bytes, _, at) = direct::image_bytes(fd, Some(0))
        .map(|(bytes, d, _)| (bytes, d, d.off.load(std::sync::atomic::Ordering::Relaxed)))
        .ok_or(EOPNOTSUPP)?;
    if bytes.len() > LARGEST {
        return Err(EOPNOTSUPP);
    }
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let copy = mediated::memory_file(c"image", bytes, flags).map_err(|e| if e == EIO { ENOMEM } else { e })?;
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: seals and positions the memfd.
    unsafe {
        libc::fcntl(copy, libc::F_ADD_SEALS, seals);
        libc::lseek(copy, at as i64, libc::SEEK_SET);
    }
    Ok(copy)
}

/// The guest's control data with every descriptor checked. None: it is not whole memory of the guest's,
/// which the kernel may say. Errors: EBADF of a number that is no guest's, EINVAL of a malformed
/// header, EOPNOTSUPP of directories and O_PATH descriptors, which are names at the daemon only.
pub fn copy(control: u64, len: u64) -> Result<Option<Passed>, Errno> {
    let mut p = Passed { control: vec![0; (len as usize).div_ceil(8)], copies: Vec::new() };
    let mut bytes = vec![0u8; len as usize];
    if guest::read_bytes(control, &mut bytes).is_err() {
        return Ok(None);
    }
    let u32_at = |b: &[u8], at: usize| u32::from_le_bytes(b[at..at + 4].try_into().expect("4 bytes"));
    let mut at = 0usize;
    while at + 16 <= bytes.len() {
        let n = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let (level, kind) = (u32_at(&bytes, at + 8) as i32, u32_at(&bytes, at + 12) as i32);
        if n < 16 || n > (bytes.len() - at) as u64 {
            return Err(EINVAL);
        }
        if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            for k in 0..(n as usize - 16) / 4 {
                let place = at + 16 + 4 * k;
                let fd = Files::check(u32_at(&bytes, place) as i32)?;
                let what = process::files().kind(fd).what;
                let sent = match what {
                    What::Host => continue,
                    What::Image => copy_of_image(fd)?,
                    What::Directory | What::Path => return Err(EOPNOTSUPP),
                };
                p.copies.push(sent);
                bytes[place..place + 4].copy_from_slice(&(sent as u32).to_le_bytes());
            }
        }
        at += (n as usize).next_multiple_of(8);
    }
    for (word, b) in p.control.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0u8; 8];
        whole[..b.len()].copy_from_slice(b);
        *word = u64::from_le_bytes(whole);
    }
    Ok(Some(p))
}
