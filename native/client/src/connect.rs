//! The daemon's control socket: frames, descriptors, and starting a daemon when there is none.

use crate::message::{Code, Message, Reply};
use crate::tty::Terminal;
use crate::watch::Printer;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// What `main` exits with after a failure: the daemon's word, else 125.
static FAILURE: AtomicU8 = AtomicU8::new(125);

pub fn failure_status() -> u8 {
    FAILURE.load(Ordering::Relaxed)
}

/// The sentence of an `error` reply.
pub fn failure(r: Reply) -> String {
    FAILURE.store(r.status.unwrap_or(125), Ordering::Relaxed);
    let hint = r.hint.map_or(String::new(), |h| format!("\n{h}"));
    format!("{}{hint}", r.message.unwrap_or_default())
}

/// Where the project is installed: two levels above this program (bin/ or native/target/release/).
pub fn root() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors().skip(1).find(|d| d.join("src/cli/main.ts").exists()).map(PathBuf::from).unwrap_or_default()
}

fn socket_path() -> PathBuf {
    if let Some(p) = std::env::var_os("VKERNEL_SOCKET") {
        return p.into();
    }
    // SAFETY: getuid cannot fail.
    let uid = unsafe { libc::getuid() };
    if uid == 0 {
        return "/run/vkernel/vkernel.sock".into();
    }
    let dir = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| format!("/tmp/vkernel-{uid}").into(), PathBuf::from);
    dir.join("vkernel/vkernel.sock")
}

/// Makes the socket's directory with permissions for this user only; the daemon checks what is there.
fn private_directory(dir: &std::path::Path) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt;
    let mut b = std::fs::DirBuilder::new();
    b.recursive(true).mode(0o700).create(dir).map_err(|e| format!("{}: {e}", dir.display()))
}

/// Starts a daemon for this user and waits until it listens.
fn start_daemon(path: &std::path::Path) -> Result<UnixStream, String> {
    let root = root();
    let log = path.with_extension("log");
    private_directory(path.parent().unwrap_or(path))?;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(|e| format!("{}: {e}", log.display()))?;
    let copy = file.try_clone().map_err(|e| e.to_string())?;
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new(root.join("node_modules/.bin/node"));
    // Not --socket: state and audit log are where this user's daemon has them.
    command.arg(root.join("src/daemon/main.ts"));
    command.stdin(std::process::Stdio::null()).stdout(file).stderr(copy);
    // SAFETY: setsid in the child only, so that the client's terminal does not end the daemon.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
    let mut child = command
        .spawn()
        .map_err(|e| format!("cannot start the daemon: {e}; run `npm run build` in {}", root.display()))?;
    let mut deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if let Ok(s) = UnixStream::connect(path) {
            return Ok(s);
        }
        // It ended: either it could not start, or another client's was faster and answers soon.
        if matches!(child.try_wait(), Ok(Some(_))) {
            deadline = deadline.min(Instant::now() + Duration::from_secs(2));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("the daemon did not start; why is at the end of {}", log.display()))
}

/// A daemon of another user must not get our terminal and arguments: only our own and root's answer.
fn check_peer(stream: &UnixStream, path: &std::path::Path) -> Result<(), String> {
    // SAFETY: the kernel fills one ucred.
    let (r, peer, uid) = unsafe {
        let mut c: libc::ucred = std::mem::zeroed();
        let mut len = size_of::<libc::ucred>() as u32;
        let at = (&raw mut c).cast();
        (libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, at, &mut len), c.uid, libc::getuid())
    };
    if r == 0 && (peer == uid || peer == 0) {
        return Ok(());
    }
    Err(format!(
        "{} is answered by another user (uid {peer}); set VKERNEL_SOCKET to a daemon of your own",
        path.display()
    ))
}

pub struct Connection {
    stream: UnixStream,
}

impl Connection {
    pub fn open() -> Result<Self, String> {
        let path = socket_path();
        let stream = match UnixStream::connect(&path) {
            Ok(s) => s,
            Err(e) if std::env::var_os("VKERNEL_SOCKET").is_some() => {
                return Err(format!("no daemon answers on {}: {e}; start one: vkernel --socket {0}", path.display()));
            }
            Err(_) => start_daemon(&path)?,
        };
        check_peer(&stream, &path)?;
        let mut c = Self { stream };
        let hello = Message {
            r#type: "hello".into(),
            version: Some(1),
            client: Some("recompiler 0.1.0".into()),
            ..Message::default()
        };
        c.send(&hello, &[])?;
        let reply = c.receive()?;
        if reply.r#type != "hello" {
            return Err(failure(reply));
        }
        Ok(c)
    }

    pub fn send(&mut self, m: &Message, fds: &[i32]) -> Result<(), String> {
        let body = rmp_serde::to_vec_named(m).map_err(|e| e.to_string())?;
        let mut frame = (body.len() as u32).to_le_bytes().to_vec();
        frame.extend(body);
        let mut control = [0u64; 8];
        let mut iov = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        // SAFETY: the message points to live buffers.
        let n = unsafe {
            let mut h: libc::msghdr = std::mem::zeroed();
            h.msg_iov = &mut iov;
            h.msg_iovlen = 1;
            if !fds.is_empty() {
                let bytes = size_of_val(fds) as u32;
                h.msg_control = control.as_mut_ptr().cast();
                h.msg_controllen = libc::CMSG_SPACE(bytes) as usize;
                let c = libc::CMSG_FIRSTHDR(&h);
                (*c).cmsg_level = libc::SOL_SOCKET;
                (*c).cmsg_type = libc::SCM_RIGHTS;
                (*c).cmsg_len = libc::CMSG_LEN(bytes) as usize;
                for (k, fd) in fds.iter().enumerate() {
                    libc::CMSG_DATA(c).cast::<i32>().add(k).write_unaligned(*fd);
                }
            }
            libc::sendmsg(self.stream.as_raw_fd(), &h, libc::MSG_NOSIGNAL)
        };
        if n != frame.len() as isize {
            return Err(format!("the daemon does not take the request: {}", std::io::Error::last_os_error()));
        }
        Ok(())
    }

    pub fn receive(&mut self) -> Result<Reply, String> {
        let gone = |_| "the daemon is gone: the program was ended with it".to_string();
        let mut len = [0u8; 4];
        self.stream.read_exact(&mut len).map_err(gone)?;
        self.body(len)
    }

    /// The rest of a frame whose length has been read.
    fn body(&mut self, len: [u8; 4]) -> Result<Reply, String> {
        let gone = |_| "the daemon is gone: the program was ended with it".to_string();
        let len = u32::from_le_bytes(len) as usize;
        if len > 16 << 20 {
            return Err("the daemon's answer is not understood: it is too long".into());
        }
        let mut body = vec![0u8; len];
        self.stream.read_exact(&mut body).map_err(gone)?;
        rmp_serde::from_slice(&body).map_err(|e| format!("the daemon's answer is not understood: {e}"))
    }

    /// Passes signals, the terminal and the exit status through until the program ends.
    pub fn follow(
        &mut self,
        signals: i32,
        terminal: Option<Terminal>,
        mut watch: Option<&mut Printer>,
    ) -> Result<u8, String> {
        let mut terminal = terminal;
        loop {
            let (master, input) = terminal.as_ref().map_or((-1, -1), |t| (t.master, t.input));
            let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let mut p = [poll(self.stream.as_raw_fd()), poll(signals), poll(master), poll(input)];
            // SAFETY: polls four descriptors; negative ones are skipped.
            unsafe { libc::poll(p.as_mut_ptr(), 4, -1) };
            if let Some(t) = &mut terminal {
                if p[2].revents != 0 {
                    t.copy_output();
                }
                if p[3].revents != 0 {
                    t.copy_input();
                }
            }
            if p[1].revents != 0 {
                let signo = crate::tty::take_signal(signals);
                match &terminal {
                    Some(t) if signo == libc::SIGWINCH => t.copy_size(),
                    _ => {
                        self.send(&Message { r#type: "signal".into(), signo: Some(signo), ..Message::default() }, &[])?
                    }
                }
            }
            if p[0].revents != 0 {
                let m = self.receive()?;
                match m.r#type.as_str() {
                    "started" => {}
                    "exit" => {
                        if let Some(t) = &mut terminal {
                            t.drain();
                        }
                        if let Some(e) = m.error {
                            return Err(e);
                        }
                        let Some(Code::Number(code)) = m.code else { return Ok(125) };
                        return Ok(code);
                    }
                    "error" => return Err(failure(m)),
                    _ => {
                        if let Some(p) = &mut watch {
                            p.message(m);
                        }
                    }
                }
            }
        }
    }

    /// Waits for a message or a signal, at most `ms` milliseconds (negative: for ever): whether it was a message.
    pub fn wait(&self, signals: i32, ms: i32) -> Result<bool, String> {
        let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut p = [poll(self.stream.as_raw_fd()), poll(signals)];
        // SAFETY: polls two descriptors.
        unsafe { libc::poll(p.as_mut_ptr(), 2, ms) };
        if p[1].revents != 0 {
            crate::tty::take_signal(signals);
            return Ok(false);
        }
        Ok(p[0].revents != 0)
    }

    /// Waits until a detached container has started, and prints its id.
    pub fn print_id(&mut self) -> Result<u8, String> {
        loop {
            let m = self.receive()?;
            match m.r#type.as_str() {
                "started" => {
                    println!("{}", m.container.unwrap_or_default());
                    return Ok(0);
                }
                "exit" => return Err(m.error.unwrap_or_else(|| "the container ended before it started".into())),
                "error" => return Err(failure(m)),
                _ => {}
            }
        }
    }

    /// The answer to policy.
    pub fn policy(&mut self) -> Result<Reply, String> {
        let m = self.receive()?;
        if m.r#type == "policy" { Ok(m) } else { Err(failure(m)) }
    }

    /// The answer to logs, stop, wait and rm.
    pub fn outcome(&mut self, verb: &str) -> Result<u8, String> {
        if verb == "logs" {
            return self.copy_log();
        }
        let m = self.receive()?;
        match (m.r#type.as_str(), m.code) {
            ("error", _) => Err(failure(Reply { code: None, ..m })),
            ("exit", Some(Code::Number(code))) if verb == "wait" => {
                println!("{code}");
                Ok(0)
            }
            _ => Ok(0),
        }
    }

    /// A log comes as a descriptor with the reply.
    fn copy_log(&mut self) -> Result<u8, String> {
        let mut len = [0u8; 4];
        let mut control = [0u64; 4];
        let mut iov = libc::iovec { iov_base: len.as_mut_ptr().cast(), iov_len: 4 };
        let mut fd = -1;
        // SAFETY: the message points to live buffers; control data is walked with libc's macros.
        let n = unsafe {
            let mut h: libc::msghdr = std::mem::zeroed();
            h.msg_iov = &mut iov;
            h.msg_iovlen = 1;
            h.msg_control = control.as_mut_ptr().cast();
            h.msg_controllen = size_of_val(&control);
            let n = libc::recvmsg(self.stream.as_raw_fd(), &mut h, libc::MSG_CMSG_CLOEXEC | libc::MSG_WAITALL);
            let c = libc::CMSG_FIRSTHDR(&h);
            if n == 4 && !c.is_null() && (*c).cmsg_level == libc::SOL_SOCKET && (*c).cmsg_type == libc::SCM_RIGHTS {
                fd = libc::CMSG_DATA(c).cast::<i32>().read_unaligned();
            }
            n
        };
        if n != 4 {
            return Err("the daemon is gone".into());
        }
        let m = self.body(len)?;
        if fd < 0 {
            return Err(failure(m));
        }
        // SAFETY: a descriptor we just received.
        let mut log = unsafe { std::fs::File::from_raw_fd(fd) };
        let mut out = std::io::stdout().lock();
        std::io::copy(&mut log, &mut out).and_then(|_| out.flush()).map_err(|e| format!("the log: {e}"))?;
        Ok(0)
    }
}
