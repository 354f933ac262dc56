//! The daemon's control socket: frames, descriptors, and starting a daemon when there is none.

use crate::tty::Terminal;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Serialize, Deserialize, Default, Debug)]
pub struct Message {
    pub r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signo: Option<i32>,
    #[serde(skip_serializing)]
    pub code: Option<Code>,
    #[serde(skip_serializing)]
    pub error: Option<String>,
    #[serde(skip_serializing)]
    pub message: Option<String>,
    #[serde(skip_serializing)]
    pub hint: Option<String>,
    #[serde(skip_serializing)]
    pub containers: Option<Vec<Container>>,
}

/// `code` is an exit code in `exit` and a name in `error`.
#[derive(Deserialize, Debug)]
#[serde(untagged)]
pub enum Code {
    Number(u8),
    Name(#[allow(dead_code, reason = "shown in Debug only; the message says it in words")] String),
}

#[derive(Deserialize, Debug)]
pub struct Container {
    pub id: String,
    pub image: String,
    pub pid: i32,
    pub tasks: u32,
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

/// Starts a daemon for this user and waits until it listens.
fn start_daemon(path: &std::path::Path) -> Result<UnixStream, String> {
    let root = root();
    let log = path.with_extension("log");
    std::fs::create_dir_all(path.parent().unwrap_or(path)).map_err(|e| format!("{}: {e}", path.display()))?;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let copy = file.try_clone().map_err(|e| e.to_string())?;
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new(root.join("node_modules/.bin/node"));
    command.arg(root.join("src/daemon/main.ts")).arg("--socket").arg(path);
    command.stdin(std::process::Stdio::null()).stdout(file).stderr(copy);
    // SAFETY: setsid in the child only, so that the client's terminal does not end the daemon.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
    command.spawn().map_err(|e| format!("cannot start the daemon: {e}; run `npm run build` in {}", root.display()))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if let Ok(s) = UnixStream::connect(path) {
            return Ok(s);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("the daemon did not start within 10 s; its log is {}", log.display()))
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
        let mut c = Self { stream };
        let hello = Message { r#type: "hello".into(), version: Some(1), client: Some("recompiler 0.1.0".into()), ..Message::default() };
        c.send(&hello, &[])?;
        let reply = c.receive()?;
        if reply.r#type != "hello" {
            return Err(reply.message.unwrap_or_else(|| "the daemon did not greet".into()));
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

    pub fn receive(&mut self) -> Result<Message, String> {
        let gone = |_| "the daemon is gone: the program was ended with it".to_string();
        let mut len = [0u8; 4];
        self.stream.read_exact(&mut len).map_err(gone)?;
        let mut body = vec![0u8; u32::from_le_bytes(len) as usize];
        self.stream.read_exact(&mut body).map_err(gone)?;
        rmp_serde::from_slice(&body).map_err(|e| format!("the daemon's answer is not understood: {e}"))
    }

    /// Passes signals, the terminal and the exit status through until the program ends.
    pub fn follow(&mut self, signals: i32, terminal: Option<Terminal>) -> Result<u8, String> {
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
                    _ => self.send(&Message { r#type: "signal".into(), signo: Some(signo), ..Message::default() }, &[])?,
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
                    "error" => {
                        let hint = m.hint.map_or(String::new(), |h| format!("\n{h}"));
                        return Err(format!("{}{hint}", m.message.unwrap_or_default()));
                    }
                    _ => {}
                }
            }
        }
    }
}

pub fn ps() -> Result<u8, String> {
    let mut c = Connection::open()?;
    c.send(&Message { r#type: "ps".into(), ..Message::default() }, &[])?;
    println!("{:<14} {:>8} {:>6} IMAGE", "CONTAINER", "PID", "TASKS");
    for k in c.receive()?.containers.unwrap_or_default() {
        println!("{:<14} {:>8} {:>6} {}", k.id, k.pid, k.tasks, k.image);
    }
    Ok(0)
}
