//! Packets with descriptors over a socket (unix(7), SCM_RIGHTS).

/// One packet and its descriptors (close-on-exec); `None` on error.
pub fn receive(fd: i32, to: &mut [u8]) -> Option<(usize, Vec<i32>)> {
    let mut control = [0u64; 40];
    let mut iov = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    // SAFETY: the message points to live buffers; the control data is walked with the libc macros.
    unsafe {
        let mut m: libc::msghdr = std::mem::zeroed();
        m.msg_iov = &mut iov;
        m.msg_iovlen = 1;
        m.msg_control = control.as_mut_ptr().cast();
        m.msg_controllen = size_of_val(&control);
        let n = loop {
            let n = libc::recvmsg(fd, &mut m, libc::MSG_CMSG_CLOEXEC);
            if n >= 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                break n;
            }
        };
        if n < 0 {
            return None;
        }
        let mut fds = Vec::new();
        let mut c = libc::CMSG_FIRSTHDR(&m);
        while !c.is_null() {
            if (*c).cmsg_level == libc::SOL_SOCKET && (*c).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*c).cmsg_len - libc::CMSG_LEN(0) as usize) / 4;
                let data = libc::CMSG_DATA(c).cast::<i32>();
                fds.extend((0..count).map(|k| data.add(k).read_unaligned()));
            }
            c = libc::CMSG_NXTHDR(&m, c);
        }
        Some((n as usize, fds))
    }
}

/// Sends one packet with descriptors and, when asked, this process's credentials.
pub fn send(fd: i32, bytes: &[u8], fds: &[i32], credentials: bool) -> bool {
    let mut control = [0u64; 32];
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: as `receive`.
    unsafe {
        let mut m: libc::msghdr = std::mem::zeroed();
        m.msg_iov = &mut iov;
        m.msg_iovlen = 1;
        let mut len = 0;
        if !fds.is_empty() || credentials {
            m.msg_control = control.as_mut_ptr().cast();
            m.msg_controllen = size_of_val(&control);
            let mut c = libc::CMSG_FIRSTHDR(&m);
            if !fds.is_empty() {
                (*c).cmsg_level = libc::SOL_SOCKET;
                (*c).cmsg_type = libc::SCM_RIGHTS;
                (*c).cmsg_len = libc::CMSG_LEN(size_of_val(fds) as u32) as usize;
                let data = libc::CMSG_DATA(c).cast::<i32>();
                for (k, fd) in fds.iter().enumerate() {
                    data.add(k).write_unaligned(*fd);
                }
                len += libc::CMSG_SPACE(size_of_val(fds) as u32) as usize;
                c = libc::CMSG_NXTHDR(&m, c);
            }
            if credentials {
                (*c).cmsg_level = libc::SOL_SOCKET;
                (*c).cmsg_type = libc::SCM_CREDENTIALS;
                (*c).cmsg_len = libc::CMSG_LEN(size_of::<libc::ucred>() as u32) as usize;
                let cred = libc::ucred { pid: libc::getpid(), uid: libc::getuid(), gid: libc::getgid() };
                libc::CMSG_DATA(c).cast::<libc::ucred>().write_unaligned(cred);
                len += libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) as usize;
            }
            m.msg_controllen = len;
        }
        libc::sendmsg(fd, &m, libc::MSG_NOSIGNAL) == bytes.len() as isize
    }
}
