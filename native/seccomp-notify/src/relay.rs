//! The relay: one thread that carries bytes between sockets of the host and sockets of containers'
//! network namespaces, so that no guest process holds a socket of the host. Who may talk to whom was
//! decided before (src/net); here bytes are counted against a container's quota (its *group*).
//!
//! A *pair* is two streams; end of data, half-closes and resets pass through. A *datagram port* is a
//! socket with one socket at the far side for each peer, as a NAT has it.

mod datagrams;
mod pair;

use crate::result;
use crate::sockets::Address;
use datagrams::Port;
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;
use pair::{Pair, Step};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Bytes of a container, both ways.
#[derive(Default)]
struct Group {
    used: AtomicI64,
    /// Below zero: none.
    limit: AtomicI64,
    told: AtomicBool,
}

impl Group {
    /// How many of `wanted` bytes may still pass.
    fn allowance(&self, wanted: usize) -> usize {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit < 0 {
            return wanted;
        }
        let left = limit - self.used.load(Ordering::Relaxed);
        wanted.min(usize::try_from(left).unwrap_or(0))
    }

    fn count(&self, n: usize) {
        self.used.fetch_add(n as i64, Ordering::Relaxed);
    }
}

/// What JavaScript hears of a pair or port.
#[napi(object)]
pub struct RelayEvent {
    pub id: u32,
    /// 0: a pair is over (`errno`: it could not connect); 1: a pair is connected; 2: a port wants more
    /// sockets; 3: the quota of group `id` is used up.
    pub kind: u32,
    pub errno: i32,
}

const OVER: u32 = 0;
const CONNECTED: u32 = 1;
const WANTS: u32 = 2;
const QUOTA: u32 = 3;

enum Command {
    Pair { id: u32, group: u32, host: i32, inner: i32, then: Address },
    Port { id: u32, group: u32, socket: i32, to: Address, spares: Option<Vec<i32>>, stand_in: Address },
    Spares { id: u32, fds: Vec<i32> },
    Close(u32),
    Drop(u32),
}

struct Shared {
    commands: Mutex<Vec<Command>>,
    wake: i32,
    events: Mutex<Vec<RelayEvent>>,
    notify: i32,
    groups: Mutex<HashMap<u32, Arc<Group>>>,
}

impl Shared {
    fn tell(&self, id: u32, kind: u32, errno: i32) {
        self.events.lock().expect("not poisoned").push(RelayEvent { id, kind, errno });
        ring(self.notify);
    }

    fn group(&self, id: u32) -> Arc<Group> {
        let mut groups = self.groups.lock().expect("not poisoned");
        groups.entry(id).or_insert_with(|| Arc::new(Group { limit: AtomicI64::new(-1), ..Group::default() })).clone()
    }
}

fn ring(eventfd: i32) {
    let one = 1u64;
    // SAFETY: writes 8 bytes to an eventfd.
    unsafe { libc::write(eventfd, (&raw const one).cast(), 8) };
}

fn close(fd: i32) {
    // SAFETY: a descriptor of ours.
    unsafe { libc::close(fd) };
}

static SHARED: OnceLock<Shared> = OnceLock::new();

/// Starts the thread on first use; the descriptor that is readable when there are events.
#[napi]
pub fn relay_start() -> i32 {
    let s = SHARED.get_or_init(|| {
        let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
        // SAFETY: integers only.
        let (wake, notify) = unsafe { (libc::eventfd(0, flags), libc::eventfd(0, flags)) };
        Shared { commands: Mutex::default(), wake, events: Mutex::default(), notify, groups: Mutex::default() }
    });
    static STARTED: OnceLock<bool> = OnceLock::new();
    let started = *STARTED.get_or_init(|| std::thread::Builder::new().name("relay".into()).spawn(|| run(s)).is_ok());
    if started && s.wake >= 0 { s.notify } else { -libc::EAGAIN }
}

fn command(c: Command) {
    if let Some(s) = SHARED.get() {
        s.commands.lock().expect("not poisoned").push(c);
        ring(s.wake);
    }
}

/// The quota of a group in bytes; below zero: none.
#[napi]
pub fn relay_limit(group: u32, bytes: i64) {
    if let Some(s) = SHARED.get() {
        s.group(group).limit.store(bytes, Ordering::Relaxed);
    }
}

/// Bytes that a group's relays have carried, both ways together.
#[napi]
pub fn relay_bytes(group: u32) -> i64 {
    SHARED.get().map_or(0, |s| s.group(group).used.load(Ordering::Relaxed))
}

/// Carries bytes between `host` and `inner`, which it closes at the end. `then`: when `host` has
/// connected, `inner` connects there; empty: `inner` is connecting already.
#[napi]
pub fn relay_pair(id: u32, group: u32, host: i32, inner: i32, then: Buffer) {
    command(Command::Pair { id, group, host, inner, then: then.to_vec() });
}

/// Carries datagrams that reach `socket` to `to`, from one socket for each sender, and the answers
/// back. Those sockets are the host's, or with `inside` taken from `relay_spares`; there a sender keeps
/// its address, but on the loopback, where `stand_in` speaks for it.
#[napi]
pub fn relay_port(id: u32, group: u32, socket: i32, to: Buffer, inside: bool, stand_in: Buffer) {
    let spares = inside.then(Vec::new);
    command(Command::Port { id, group, socket, to: to.to_vec(), spares, stand_in: stand_in.to_vec() });
}

#[napi]
pub fn relay_spares(id: u32, fds: Vec<i32>) {
    command(Command::Spares { id, fds });
}

/// Whether a sender from outside has the address `address` (a struct sockaddr) in the container of `group`.
#[napi]
pub fn relay_speaks(group: u32, address: Buffer) -> bool {
    datagrams::speaks(group, &address)
}

/// Ends a pair, with a reset for both sides, or a port.
#[napi]
pub fn relay_close(id: u32) {
    command(Command::Close(id));
}

/// Ends whatever belongs to a group, and its account.
#[napi]
pub fn relay_drop(group: u32) {
    command(Command::Drop(group));
}

/// What has happened since the last time.
#[napi]
pub fn relay_events() -> Vec<RelayEvent> {
    let Some(s) = SHARED.get() else { return Vec::new() };
    drain(s.notify);
    std::mem::take(&mut *s.events.lock().expect("not poisoned"))
}

fn drain(eventfd: i32) {
    let mut n = 0u64;
    // SAFETY: reads 8 bytes of an eventfd that does not block.
    unsafe { libc::read(eventfd, (&raw mut n).cast(), 8) };
}

/// What is being relayed, by the relay's thread alone.
struct Relay {
    shared: &'static Shared,
    ep: i32,
    pairs: HashMap<u32, (u32, Pair)>,
    ports: HashMap<u32, (u32, Port)>,
    /// Pairs that have more to do though no event will say so: at once, or at a time.
    again: Vec<u32>,
    later: Vec<(Instant, u32)>,
    buffer: Vec<u8>,
}

const WAKE: u64 = u64::MAX;
const BUFFER: usize = 1 << 17;
/// Idle far sides of datagram ports are looked for this often.
const SWEEP: Duration = Duration::from_secs(10);

/// Watches `fd` for every change; `id` and `part` come back with it.
fn watch(ep: i32, fd: i32, id: u32, part: u32) -> bool {
    let events = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
    let mut e = libc::epoll_event { events, u64: u64::from(id) << 32 | u64::from(part) };
    // SAFETY: a live event.
    unsafe { libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, fd, &mut e) == 0 }
}

/// Has a watched descriptor say again what it has said already.
fn rewatch(ep: i32, fd: i32, id: u32, part: u32) {
    // SAFETY: integers only.
    unsafe { libc::epoll_ctl(ep, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
    watch(ep, fd, id, part);
}

/// epoll_wait with a timeout finer than milliseconds (epoll_pwait2, Linux 5.11), where there is one.
fn wait(ep: i32, events: &mut [libc::epoll_event; 128], timeout: Option<Duration>) -> i32 {
    let t = timeout.unwrap_or_default();
    let spec = libc::timespec { tv_sec: t.as_secs() as i64, tv_nsec: i64::from(t.subsec_nanos()) };
    let at = if timeout.is_some() { &raw const spec } else { std::ptr::null() };
    // SAFETY: a live array of events and a live timespec.
    unsafe {
        let n = libc::syscall(libc::SYS_epoll_pwait2, ep, events.as_mut_ptr(), 128, at, std::ptr::null::<u8>(), 0);
        if n >= 0 || errno() != libc::ENOSYS {
            return n as i32;
        }
        let ms = timeout.map_or(-1, |t| t.as_millis() as i32 + 1);
        libc::epoll_wait(ep, events.as_mut_ptr(), 128, ms)
    }
}

fn run(shared: &'static Shared) {
    // SAFETY: integers only.
    let ep = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    let mut e = libc::epoll_event { events: libc::EPOLLIN as u32, u64: WAKE };
    // SAFETY: a live event.
    unsafe { libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, shared.wake, &mut e) };
    let mut r = Relay {
        shared,
        ep,
        pairs: HashMap::new(),
        ports: HashMap::new(),
        again: Vec::new(),
        later: Vec::new(),
        buffer: vec![0; BUFFER],
    };
    let mut swept = Instant::now();
    loop {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 128];
        let n = wait(ep, &mut events, r.timeout());
        for e in events.iter().take(n.max(0) as usize) {
            let key = e.u64;
            if key == WAKE {
                drain(shared.wake);
                for c in std::mem::take(&mut *shared.commands.lock().expect("not poisoned")) {
                    r.obey(c);
                }
            } else {
                r.ready((key >> 32) as u32, key as u32);
            }
        }
        for id in std::mem::take(&mut r.again) {
            r.step(id);
        }
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut r.later).into_iter().partition(|(at, _)| *at <= now);
        r.later = later;
        for (_, id) in due {
            r.step(id);
        }
        if now - swept > SWEEP {
            swept = now;
            for (_, p) in r.ports.values_mut() {
                p.sweep(now);
            }
        }
    }
}

impl Relay {
    /// How long to sleep at most; None: until something happens.
    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let sweep = (!self.ports.is_empty()).then_some(SWEEP);
        let next = self.later.iter().map(|(at, _)| at.saturating_duration_since(Instant::now())).min();
        next.into_iter().chain(sweep).min()
    }

    fn obey(&mut self, c: Command) {
        match c {
            Command::Pair { id, group, host, inner, then } => {
                self.pairs.insert(id, (group, Pair::new(self.ep, id, self.shared.group(group), host, inner, then)));
                self.step(id);
            }
            Command::Port { id, group, socket, to, spares, stand_in } => {
                let port = Port::new(self.ep, id, (group, self.shared.group(group)), socket, to, spares, stand_in);
                self.ports.insert(id, (group, port));
                self.ready(id, 0);
            }
            Command::Spares { id, fds } => match self.ports.get_mut(&id) {
                Some((_, p)) => p.give(fds),
                None => fds.into_iter().for_each(close),
            },
            Command::Close(id) => {
                self.ports.remove(&id);
                if let Some((_, p)) = self.pairs.remove(&id) {
                    p.reset();
                }
            }
            Command::Drop(group) => {
                for id in self.pairs.iter().filter(|(_, p)| p.0 == group).map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.obey(Command::Close(id));
                }
                self.ports.retain(|_, p| p.0 != group);
                self.shared.groups.lock().expect("not poisoned").remove(&group);
            }
        }
    }

    fn ready(&mut self, id: u32, part: u32) {
        let Some((group, port)) = self.ports.get_mut(&id) else { return self.step(id) };
        let (group, outcome) = (*group, port.ready(part, &mut self.buffer));
        if outcome.wants {
            self.shared.tell(id, WANTS, 0);
        }
        if outcome.over_quota {
            self.over_quota(group);
        }
    }

    fn over_quota(&self, group: u32) {
        if !self.shared.group(group).told.swap(true, Ordering::Relaxed) {
            self.shared.tell(group, QUOTA, 0);
        }
    }

    fn step(&mut self, id: u32) {
        let Some((group, p)) = self.pairs.get_mut(&id) else { return };
        let group = *group;
        match p.step(&mut self.buffer) {
            Step::Wait => {}
            Step::Connected => {
                self.shared.tell(id, CONNECTED, 0);
                self.again.push(id);
            }
            Step::More => self.again.push(id),
            Step::Later(after) => self.later.push((Instant::now() + after, id)),
            Step::Over(errno) => {
                self.pairs.remove(&id);
                self.shared.tell(id, OVER, errno);
            }
            Step::Reset { errno, over_quota } => {
                if let Some((_, p)) = self.pairs.remove(&id) {
                    p.reset();
                }
                self.shared.tell(id, OVER, errno);
                if over_quota {
                    self.over_quota(group);
                }
            }
        }
    }
}

/// The last call's errno.
fn errno() -> i32 {
    -result(-1)
}
