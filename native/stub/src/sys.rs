//! Linux system calls (arch/x86/entry/syscalls/syscall_64.tbl), as far as the stub needs them.

use core::arch::asm;

pub type Fd = i32;

const READ: usize = 0;
const WRITE: usize = 1;
const OPEN: usize = 2;
const POLL: usize = 7;
const LSEEK: usize = 8;
const RT_SIGPROCMASK: usize = 14;
const PREAD64: usize = 17;
const CLOSE: usize = 3;
const SOCKET: usize = 41;
const CONNECT: usize = 42;
const SENDMSG: usize = 46;
const GETCWD: usize = 79;
const GETUID: usize = 102;
const GETGID: usize = 104;
const EXIT_GROUP: usize = 231;
const SIGNALFD4: usize = 289;

const EINTR: isize = -4;
const O_CLOEXEC: usize = 0o2000000;
const SEEK_END: usize = 2;
const AF_UNIX: u16 = 1;
const SOCK_STREAM_CLOEXEC: usize = 1 | 0o2000000;
const MSG_NOSIGNAL: usize = 0x4000;
const POLLIN: i16 = 1;
const SFD_CLOEXEC: usize = 0o2000000;

/// # Safety
/// The call's own rules for its pointers.
unsafe fn call(nr: usize, a: [usize; 4]) -> isize {
    let result;
    // SAFETY: the kernel keeps everything but rax, rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") nr => result, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// # Safety
/// `at` is a NUL-terminated string that lives as long as the process.
pub unsafe fn cstr(at: *const u8) -> &'static [u8] {
    let mut len = 0;
    // SAFETY: up to and without the NUL.
    unsafe {
        while *at.add(len) != 0 {
            len += 1;
        }
        core::slice::from_raw_parts(at, len)
    }
}

pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: does not return.
        unsafe { call(EXIT_GROUP, [status as usize, 0, 0, 0]) };
    }
}

pub fn write(fd: Fd, bytes: &[u8]) {
    // SAFETY: a live buffer.
    unsafe { call(WRITE, [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0]) };
}

/// `path` ends with a NUL.
pub fn open(path: &[u8]) -> Fd {
    // SAFETY: a live, terminated path.
    unsafe { call(OPEN, [path.as_ptr() as usize, O_CLOEXEC, 0, 0]) as Fd }
}

pub fn size(fd: Fd) -> usize {
    // SAFETY: no pointers.
    unsafe { call(LSEEK, [fd as usize, 0, SEEK_END, 0]) }.max(0) as usize
}

/// Fills `to` from `off`; false when the file ends before.
pub fn read_at(fd: Fd, to: &mut [u8], off: usize) -> bool {
    // SAFETY: a live buffer.
    unsafe { call(PREAD64, [fd as usize, to.as_mut_ptr() as usize, to.len(), off]) == to.len() as isize }
}

/// Fills `to`; false at the stream's end.
pub fn read_all(fd: Fd, to: &mut [u8]) -> bool {
    let mut done = 0;
    while done < to.len() {
        // SAFETY: a live buffer.
        let n = unsafe { call(READ, [fd as usize, to[done..].as_mut_ptr() as usize, to.len() - done, 0]) };
        match n {
            EINTR => {}
            1.. => done += n as usize,
            _ => return false,
        }
    }
    true
}

pub fn getcwd(buffer: &mut [u8]) -> &[u8] {
    // SAFETY: a live buffer; the result counts the NUL.
    let n = unsafe { call(GETCWD, [buffer.as_mut_ptr() as usize, buffer.len(), 0, 0]) };
    if n > 1 { &buffer[..n as usize - 1] } else { b"/" }
}

pub fn getuid() -> u32 {
    // SAFETY: no pointers.
    unsafe { call(GETUID, [0; 4]) as u32 }
}

pub fn getgid() -> u32 {
    // SAFETY: no pointers.
    unsafe { call(GETGID, [0; 4]) as u32 }
}

/// A connection to the socket at `path`, or a negative number.
pub fn connect(path: &[u8]) -> Fd {
    #[repr(C)]
    struct Address {
        family: u16,
        path: [u8; 108],
    }
    if path.is_empty() || path.len() >= 108 {
        return -1;
    }
    let mut address = Address { family: AF_UNIX, path: [0; 108] };
    address.path[..path.len()].copy_from_slice(path);
    // SAFETY: a live address of its whole size.
    unsafe {
        let fd = call(SOCKET, [usize::from(AF_UNIX), SOCK_STREAM_CLOEXEC, 0, 0]);
        if fd >= 0 && call(CONNECT, [fd as usize, &raw const address as usize, size_of::<Address>(), 0]) < 0 {
            call(CLOSE, [fd as usize, 0, 0, 0]);
            return -1;
        }
        fd as Fd
    }
}

#[repr(C)]
struct Iovec {
    base: *const u8,
    len: usize,
}

/// struct msghdr (recvmsg(2)).
#[repr(C)]
struct Msghdr {
    name: usize,
    name_len: usize,
    iov: *const Iovec,
    iov_len: usize,
    control: *const Rights,
    control_len: usize,
    flags: usize,
}

/// struct cmsghdr with SCM_RIGHTS and room for three descriptors.
#[repr(C, align(8))]
struct Rights {
    len: usize,
    level: i32,
    kind: i32,
    fds: [Fd; 4],
}

/// Sends all of `bytes`; `fds`, at most three, ride on the first of them.
pub fn send(socket: Fd, bytes: &[u8], fds: &[Fd]) -> bool {
    let mut rights = Rights { len: 16 + 4 * fds.len(), level: 1, kind: 1, fds: [0; 4] };
    rights.fds[..fds.len()].copy_from_slice(fds);
    let mut done = 0;
    while done < bytes.len() {
        let iov = Iovec { base: bytes[done..].as_ptr(), len: bytes.len() - done };
        let with = done == 0 && !fds.is_empty();
        let message = Msghdr {
            name: 0,
            name_len: 0,
            iov: &raw const iov,
            iov_len: 1,
            control: if with { &raw const rights } else { core::ptr::null() },
            control_len: if with { (rights.len + 7) & !7 } else { 0 },
            flags: 0,
        };
        // SAFETY: the message points to live structures.
        match unsafe { call(SENDMSG, [socket as usize, &raw const message as usize, MSG_NOSIGNAL, 0]) } {
            EINTR => {}
            n @ 1.. => done += n as usize,
            _ => return false,
        }
    }
    true
}

/// Blocks `signals` and makes a descriptor that reads them.
pub fn signalfd(signals: &[u32]) -> Fd {
    let set: u64 = signals.iter().fold(0, |set, s| set | 1 << (s - 1));
    let at = &raw const set as usize;
    // SAFETY: a live set of eight bytes; SIG_BLOCK is 0.
    unsafe {
        call(RT_SIGPROCMASK, [0, at, 0, 8]);
        call(SIGNALFD4, [-1isize as usize, at, 8, SFD_CLOEXEC]) as Fd
    }
}

/// The number of the next signal of a signalfd.
pub fn take_signal(fd: Fd) -> u32 {
    let mut info = [0u8; 128];
    read_all(fd, &mut info);
    u32::from_le_bytes([info[0], info[1], info[2], info[3]])
}

/// Waits until one of two descriptors can be read (or has ended); says which.
pub fn poll(fds: [Fd; 2]) -> [bool; 2] {
    #[repr(C)]
    struct Pollfd {
        fd: Fd,
        events: i16,
        revents: i16,
    }
    let mut p = fds.map(|fd| Pollfd { fd, events: POLLIN, revents: 0 });
    // SAFETY: two live entries.
    unsafe { call(POLL, [p.as_mut_ptr() as usize, 2, -1isize as usize, 0]) };
    [p[0].revents != 0, p[1].revents != 0]
}
