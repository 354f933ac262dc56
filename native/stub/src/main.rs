//! The stub: what stands for an executable in the ordinary image around a recompiled one. Run
//! anywhere, it asks the vkernel daemon to run the program it stands for, with its own arguments,
//! environment, working directory and stdio, passes signals on, and ends as the program does. Without
//! a daemon it says so and exits 125.
//!
//! One copy for each executable of an image, so it has no C library and no allocator. Which program it
//! stands for is said by what src/image/stub.ts appends to the file, little-endian:
//!
//! ```text
//! path, path_len bytes · manifest digest, 32 · executable's digest, 32 · path_len u32 · version u32 · "VKSTUB01"
//! ```

#![no_std]
#![no_main]

mod mem;
mod msgpack;
mod sys;

use core::ptr::addr_of_mut;
use msgpack::{Reader, Writer};
use sys::{Fd, cstr};

/// Longest frame of the control socket (docs/abi.md).
const MAX_FRAME: usize = 1 << 20;
const TAIL: usize = 80;
const MAGIC: &[u8; 8] = b"VKSTUB01";
const VERSION: u32 = 1;
/// SIGHUP, INT, QUIT, USR1, USR2, ALRM, TERM, CONT, WINCH: what goes to the program.
const FORWARDED: [u32; 9] = [1, 2, 3, 10, 12, 14, 15, 18, 28];

static mut FRAME: [u8; 4 + MAX_FRAME] = [0; 4 + MAX_FRAME];
static mut PATH: [u8; 4096] = [0; 4096];
static mut CWD: [u8; 4096] = [0; 4096];

core::arch::global_asm!(".globl _start", "_start:", "xor %ebp, %ebp", "mov %rsp, %rdi", "and $-16, %rsp", "call {start}", "ud2", start = sym start, options(att_syntax));

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    fail(&[b"the stub failed"])
}

/// Ends with 125 and one line.
fn fail(what: &[&[u8]]) -> ! {
    sys::write(2, b"vkernel-stub: ");
    for part in what {
        sys::write(2, part);
    }
    sys::write(2, b"\n");
    sys::exit(125)
}

/// The process's arguments as the kernel leaves them: NULL-terminated lists of C strings.
#[derive(Clone, Copy)]
struct Strings(*const *const u8);

impl Iterator for Strings {
    type Item = &'static [u8];

    fn next(&mut self) -> Option<&'static [u8]> {
        // SAFETY: the kernel ends the list with NULL; the strings live as long as the process.
        unsafe {
            let at = *self.0;
            if at.is_null() {
                return None;
            }
            self.0 = self.0.add(1);
            Some(cstr(at))
        }
    }
}

extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: the initial stack holds argc, argv, NULL, envp, NULL, auxv (System V psABI).
    let (argv, env) = unsafe {
        let argc = *stack;
        (Strings(stack.add(1).cast()), Strings(stack.add(argc + 2).cast()))
    };
    let variable = |name: &[u8]| env.into_iter().find_map(|e| e.strip_prefix(name)?.strip_prefix(b"="));
    let (path, digest) = identity();
    let socket = connect(variable(b"VKERNEL_SOCKET"), variable(b"XDG_RUNTIME_DIR"));

    let mut hello = frame();
    hello.map(3);
    hello.field(b"type", b"hello");
    hello.key(b"version");
    hello.integer(1);
    hello.field(b"client", b"vkernel-stub 0.1.0");
    send(socket, hello, &[]);
    let greeting = receive(socket);
    if greeting.kind != b"hello" {
        fail(&[b"the daemon did not greet: ", greeting.message]);
    }

    let signals = sys::signalfd(&FORWARDED);
    let mut run = frame();
    run.map(8);
    run.field(b"type", b"run");
    let mut image = [0u8; 71];
    image[..7].copy_from_slice(b"sha256:");
    for (n, byte) in digest.iter().enumerate() {
        image[7 + 2 * n] = b"0123456789abcdef"[usize::from(byte >> 4)];
        image[8 + 2 * n] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    run.field(b"image", &image);
    run.field(b"path", path);
    run.list(b"argv", argv);
    run.list(b"env", env);
    // SAFETY: this program has one thread, and this is the one use of the buffer.
    run.field(b"cwd", sys::getcwd(unsafe { &mut *addr_of_mut!(CWD) }));
    let mut user = [0u8; 24];
    run.field(b"user", ids(&mut user));
    run.key(b"tty");
    run.boolean(false);
    send(socket, run, &[0, 1, 2]);
    follow(socket, signals)
}

/// Passes signals on until the program ends; ends as it did.
fn follow(socket: Fd, signals: Fd) -> ! {
    loop {
        let [answered, signalled] = sys::poll([socket, signals]);
        if signalled {
            let mut signal = frame();
            signal.map(2);
            signal.field(b"type", b"signal");
            signal.key(b"signo");
            signal.integer(sys::take_signal(signals));
            send(socket, signal, &[]);
        }
        if answered {
            let m = receive(socket);
            match m.kind {
                b"exit" if m.error.is_empty() => sys::exit(m.code),
                b"exit" => fail(&[m.error]),
                b"error" if m.hint.is_empty() => fail(&[m.message]),
                b"error" => fail(&[m.message, b"\n", m.hint]),
                _ => {}
            }
        }
    }
}

/// `uid:gid` of this process.
fn ids(out: &mut [u8; 24]) -> &[u8] {
    let mut at = out.len();
    for (n, mut id) in [sys::getgid(), sys::getuid()].into_iter().enumerate() {
        if n > 0 {
            at -= 1;
            out[at] = b':';
        }
        loop {
            at -= 1;
            out[at] = b'0' + (id % 10) as u8;
            id /= 10;
            if id == 0 {
                break;
            }
        }
    }
    &out[at..]
}

/// The path and the image's manifest digest that were appended to this file.
fn identity() -> (&'static [u8], [u8; 32]) {
    let file = sys::open(b"/proc/self/exe\0");
    if file < 0 {
        fail(&[b"cannot read /proc/self/exe; mount /proc"]);
    }
    let size = sys::size(file);
    let mut tail = [0u8; TAIL];
    let u32_at = |b: &[u8; TAIL], at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    // SAFETY: this program has one thread, and this is the one use of the buffer.
    let path = unsafe { &mut *addr_of_mut!(PATH) };
    let whole = size > TAIL
        && sys::read_at(file, &mut tail, size - TAIL)
        && tail[72..] == *MAGIC
        && u32_at(&tail, 68) == VERSION;
    let len = u32_at(&tail, 64) as usize;
    if !whole
        || len == 0
        || len > path.len()
        || size < TAIL + len
        || !sys::read_at(file, &mut path[..len], size - TAIL - len)
    {
        fail(&[b"this file names no program: it is not from an image, or of another version"]);
    }
    let mut digest = [0u8; 32];
    digest.copy_from_slice(&tail[..32]);
    (&path[..len], digest)
}

/// The daemon's socket: $VKERNEL_SOCKET, or where a daemon of root's or of this user's listens.
fn connect(asked: Option<&[u8]>, runtime: Option<&[u8]>) -> Fd {
    let mut own = [0u8; 108];
    let mut ends = 0;
    let mut put = |part: &[u8]| {
        let fits = part.len() <= own.len() - ends;
        let part = if fits { part } else { b"" };
        own[ends..ends + part.len()].copy_from_slice(part);
        ends += part.len();
    };
    let mut digits = [0u8; 24];
    match runtime {
        Some(dir) => put(dir),
        None => {
            put(b"/tmp/vkernel-");
            put(ids(&mut digits).split(|&b| b == b':').next().unwrap_or(b""));
        }
    }
    put(b"/vkernel/vkernel.sock");
    let candidates = match asked {
        Some(path) => [path, b""],
        None => [b"/run/vkernel/vkernel.sock".as_slice(), &own[..ends]],
    };
    for path in candidates {
        let socket = sys::connect(path);
        if socket >= 0 {
            return socket;
        }
    }
    fail(&[b"no vkernel daemon answers on ", candidates[0], b"; start one (vkernel), or set VKERNEL_SOCKET"])
}

/// A frame being written; its length comes first. One at a time.
fn frame() -> Writer<'static> {
    // SAFETY: this program has one thread, and a frame is sent before the next is begun.
    Writer::new(unsafe { &mut *addr_of_mut!(FRAME) }, 4)
}

fn send(socket: Fd, w: Writer, fds: &[Fd]) {
    let Some(bytes) = w.finish() else { fail(&[b"arguments and environment are larger than 1 MiB"]) };
    let len = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    if !sys::send(socket, bytes, fds) {
        fail(&[b"the daemon does not take the request"]);
    }
}

/// What a message of the daemon says; lives until the next frame.
struct Message {
    kind: &'static [u8],
    message: &'static [u8],
    hint: &'static [u8],
    error: &'static [u8],
    code: i32,
}

fn receive(socket: Fd) -> Message {
    // SAFETY: this program has one thread; what was received before is not used any more.
    let buffer: &'static mut [u8] = unsafe { &mut *addr_of_mut!(FRAME) };
    let (head, body) = buffer.split_at_mut(4);
    let read = |to: &mut [u8]| {
        if !sys::read_all(socket, to) {
            fail(&[b"the daemon is gone: the program was ended with it"])
        }
    };
    read(head);
    let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let Some(body) = body.get_mut(..len) else { fail(&[b"the daemon's answer is too long"]) };
    read(body);
    let mut m = Message { kind: b"", message: b"", hint: b"", error: b"", code: 125 };
    let mut r = Reader::new(body);
    for _ in 0..r.map().unwrap_or(0) {
        let Some(key) = r.string() else { break };
        match (key, r.value()) {
            (b"type", Some(msgpack::Value::Bytes(b))) => m.kind = b,
            (b"message", Some(msgpack::Value::Bytes(b))) => m.message = b,
            (b"hint", Some(msgpack::Value::Bytes(b))) => m.hint = b,
            (b"error", Some(msgpack::Value::Bytes(b))) => m.error = b,
            (b"code", Some(msgpack::Value::Integer(n))) => m.code = n as i32,
            (_, Some(_)) => {}
            (_, None) => break,
        }
    }
    m
}
