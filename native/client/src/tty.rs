//! The client's side of a terminal: a pty for the guest, raw mode, window size; and the signals that
//! are passed on.

use std::mem::MaybeUninit;

pub struct Terminal {
    pub master: i32,
    pub slave: i32,
    /// Where keys come from; −1: nowhere (any more).
    pub input: i32,
    saved: Option<libc::termios>,
}

impl Terminal {
    pub fn open(interactive: bool) -> Result<Self, String> {
        let (mut master, mut slave) = (-1, -1);
        let null = std::ptr::null_mut();
        // SAFETY: the library writes two descriptors.
        if unsafe { libc::openpty(&mut master, &mut slave, null, null.cast(), null.cast()) } != 0 {
            return Err(format!("no terminal: {}", std::io::Error::last_os_error()));
        }
        let mut t = Self { master, slave, input: if interactive { 0 } else { -1 }, saved: None };
        t.copy_size();
        if interactive {
            let mut now = MaybeUninit::<libc::termios>::uninit();
            // SAFETY: tcgetattr fills the struct when it succeeds.
            unsafe {
                if libc::tcgetattr(0, now.as_mut_ptr()) == 0 {
                    let saved = now.assume_init();
                    let mut raw = saved;
                    libc::cfmakeraw(&mut raw);
                    libc::tcsetattr(0, libc::TCSANOW, &raw);
                    t.saved = Some(saved);
                }
            }
        }
        Ok(t)
    }

    /// The guest has its copies: ours would keep the terminal alive behind its back.
    pub fn close_slave(&self) {
        // SAFETY: our own descriptor.
        unsafe { libc::close(self.slave) };
    }

    pub fn copy_size(&self) {
        let mut size = MaybeUninit::<libc::winsize>::zeroed();
        // SAFETY: the ioctls read and fill one winsize.
        unsafe {
            if libc::ioctl(0, libc::TIOCGWINSZ, size.as_mut_ptr()) == 0 {
                libc::ioctl(self.master, libc::TIOCSWINSZ, size.as_ptr());
            }
        }
    }

    /// Copies what there is; false at the end.
    fn copy(from: i32, to: i32) -> bool {
        let mut b = [0u8; 16384];
        // SAFETY: reads into and writes from a live buffer.
        unsafe {
            let n = libc::read(from, b.as_mut_ptr().cast(), b.len());
            if n <= 0 {
                return false;
            }
            let mut done = 0;
            while done < n {
                let w = libc::write(to, b.as_ptr().add(done as usize).cast(), (n - done) as usize);
                if w <= 0 {
                    return false;
                }
                done += w;
            }
        }
        true
    }

    pub fn copy_output(&mut self) {
        if !Self::copy(self.master, 1) {
            // All copies of the slave are closed; the exit message is on its way.
            self.input = -1;
            // SAFETY: our own descriptor.
            unsafe { libc::close(self.master) };
            self.master = -1;
        }
    }

    pub fn copy_input(&mut self) {
        if !Self::copy(self.input, self.master) {
            // End of input is an EOF character to the guest.
            // SAFETY: writes one byte.
            unsafe { libc::write(self.master, [4u8].as_ptr().cast(), 1) };
            self.input = -1;
        }
    }

    /// Copies the last output of a program that has ended.
    pub fn drain(&mut self) {
        loop {
            let mut p = libc::pollfd { fd: self.master, events: libc::POLLIN, revents: 0 };
            // SAFETY: polls one descriptor.
            if self.master < 0 || unsafe { libc::poll(&mut p, 1, 0) } <= 0 || p.revents & libc::POLLIN == 0 {
                return;
            }
            self.copy_output();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            // SAFETY: restores what was read.
            unsafe { libc::tcsetattr(0, libc::TCSANOW, saved) };
        }
    }
}

/// A descriptor that reads the signals which go to the guest.
pub fn forwarded_signals() -> Result<i32, String> {
    // SAFETY: blocks a set of signals and makes a signalfd for it.
    let fd = unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed().assume_init();
        for s in [
            libc::SIGINT,
            libc::SIGTERM,
            libc::SIGHUP,
            libc::SIGQUIT,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGCONT,
            libc::SIGALRM,
            libc::SIGWINCH,
        ] {
            libc::sigaddset(&mut set, s);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::signalfd(-1, &set, libc::SFD_CLOEXEC)
    };
    if fd < 0 { Err(format!("signalfd: {}", std::io::Error::last_os_error())) } else { Ok(fd) }
}

pub fn take_signal(fd: i32) -> i32 {
    let mut b = [0u8; 128];
    // SAFETY: one signalfd_siginfo is 128 bytes, its first field the number.
    unsafe { libc::read(fd, b.as_mut_ptr().cast(), b.len()) };
    i32::from_le_bytes([b[0], b[1], b[2], b[3]])
}
