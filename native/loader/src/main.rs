//! The loader: zygote of an image and, forked from it, every guest process of its containers.

mod aio;
mod alloc;
#[cfg(feature = "bare")]
mod bare;
mod captured;
mod clone;
mod copies;
mod cpu;
mod credcalls;
mod direct;
mod egress;
mod erofs;
mod errno;
mod exec;
mod fdcalls;
mod fdpath;
mod fifo;
mod files;
mod forms;
mod futexcalls;
mod guest;
mod host;
mod image;
mod ipc;
mod listing;
mod local;
mod lockdown;
mod mediated;
mod memcalls;
mod messages;
mod mlock;
mod mm;
mod mremap;
mod mxcsr;
mod netcalls;
mod notify;
mod packet;
mod prctl;
mod process;
mod profile;
mod rights;
mod ring;
mod seccomp;
mod sigcalls;
mod signal;
mod sockets;
mod stack;
mod syscall;
mod thread;
mod trace;
mod watch;
mod zygote;

use std::process::ExitCode;

/// Host stack of a guest's first thread, bytes: what translated code may use, and room above it.
const MAIN_STACK: u64 = 1 << 30;

/// Translated code runs on the main thread's stack: raises its limit, and starts over once so that
/// the kernel lays the address space out for it.
fn ensure_stack() -> Result<(), String> {
    // SAFETY: plain rlimit calls and one exec of ourselves, before anything else has happened.
    unsafe {
        let mut r: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_STACK, &mut r);
        if r.rlim_cur >= MAIN_STACK {
            return Ok(());
        }
        if r.rlim_max < MAIN_STACK {
            return Err(format!("the hard stack limit is {} bytes, {MAIN_STACK} are needed: ulimit -Hs", r.rlim_max));
        }
        r.rlim_cur = MAIN_STACK;
        if libc::setrlimit(libc::RLIMIT_STACK, &r) != 0 {
            return Err(format!("stack limit: {}", std::io::Error::last_os_error()));
        }
        let args: Vec<std::ffi::CString> =
            std::env::args().map(|a| std::ffi::CString::new(a).expect("arguments have no NUL")).collect();
        let mut argv: Vec<*const libc::c_char> = args.iter().map(|a| a.as_ptr()).collect();
        argv.push(std::ptr::null());
        libc::execv(c"/proc/self/exe".as_ptr(), argv.as_ptr());
        Err(format!("cannot start over: {}", std::io::Error::last_os_error()))
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let result = ensure_stack().and_then(|()| match args.get(1).map(String::as_str) {
        Some("zygote") => zygote::run(),
        #[cfg(feature = "bare")]
        Some("bare") => run_bare(&args[2..]),
        _ => Err("started by the vkernel daemon: vkernel-loader zygote, with its sockets as fds 3, 4, 5".into()),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vkernel-loader: {e}");
            ExitCode::from(125)
        }
    }
}

/// `bare [--mega FILE] PROGRAM ARG...`
#[cfg(feature = "bare")]
fn run_bare(args: &[String]) -> Result<(), String> {
    use std::os::fd::AsRawFd;
    trace::init();
    let (mega, args) = match args {
        [flag, file, rest @ ..] if flag == "--mega" => {
            (Some(std::fs::File::open(file).map_err(|e| format!("{file}: {e}"))?), rest)
        }
        rest => (None, rest),
    };
    let program = args.first().ok_or("bare: a program is needed")?;
    let img = image::load(mega.as_ref().map(|f| f.as_raw_fd()), None)?;
    drop(mega);
    signal::install();
    signal::reset_all();
    process::refresh_pid();
    let mut t = cpu::Thread::new(thread::state_page());
    t.tid = process::pid();
    let argv = args.iter().map(|a| a.clone().into_bytes()).collect();
    let envp = std::env::vars().map(|(k, v)| format!("{k}={v}").into_bytes()).collect();
    exec::first(&mut t, program.as_bytes(), argv, envp)
        .map_err(|e| format!("{program}: {}", std::io::Error::from_raw_os_error(e.0)))?;
    cpu::run_thread(img, t);
    Ok(())
}
