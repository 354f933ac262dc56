//! A datagram port: what arrives at one socket goes on from a socket for each sender.

use super::{Group, close, watch};
use crate::sockets::{Address, connect, local_address, send_to, socket_for, take_datagram};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

/// As netfilter keeps a UDP flow that has had an answer.
const IDLE: Duration = Duration::from_secs(120);
const MAX_SENDERS: usize = 1024;
/// Datagrams before another socket has its turn; the kernel says again that there are more.
const TURNS: usize = 256;
/// A port asks for more sockets when it has fewer than this.
const FEW: usize = 4;

/// Senders that speak to a container from outside, by the address they have there. A guest may answer them.
static SPEAKING: LazyLock<Mutex<HashSet<(u32, Address)>>> = LazyLock::new(Mutex::default);

pub fn speaks(group: u32, address: &[u8]) -> bool {
    SPEAKING.lock().expect("not poisoned").contains(&(group, address.to_vec()))
}

struct Sender {
    fd: i32,
    /// As the container sees it; empty: it is the container's own.
    shown: Address,
    address: Address,
    used: Instant,
}

impl Sender {
    fn end(&self, group: u32) {
        close(self.fd);
        if !self.shown.is_empty() {
            SPEAKING.lock().expect("not poisoned").remove(&(group, self.shown.clone()));
        }
    }
}

pub struct Port {
    ep: i32,
    id: u32,
    group: Arc<Group>,
    number: u32,
    socket: i32,
    to: Address,
    /// Sockets of the container for senders to come; None: the host's are made here.
    spares: Option<Vec<i32>>,
    stand_in: Address,
    senders: HashMap<u32, Sender>,
    known: HashMap<Address, u32>,
    next: u32,
    asked: bool,
}

#[derive(Default)]
pub struct Outcome {
    pub wants: bool,
    pub over_quota: bool,
}

impl Port {
    pub fn new(
        ep: i32,
        id: u32,
        (number, group): (u32, Arc<Group>),
        socket: i32,
        to: Address,
        spares: Option<Vec<i32>>,
        stand_in: Address,
    ) -> Self {
        watch(ep, socket, id, 0);
        let (senders, known) = Default::default();
        Self { ep, id, group, number, socket, to, spares, stand_in, senders, known, next: 1, asked: false }
    }

    pub fn give(&mut self, fds: Vec<i32>) {
        self.asked = false;
        self.spares.get_or_insert_default().extend(fds);
    }

    /// Carries what has arrived at the port (`part` 0) or at a sender's socket.
    pub fn ready(&mut self, part: u32, buffer: &mut [u8]) -> Outcome {
        let mut o = Outcome::default();
        let source = if part == 0 { self.socket } else { self.senders.get(&part).map_or(-1, |s| s.fd) };
        if source < 0 {
            return o;
        }
        for turn in 0.. {
            // An edge comes once: what is left after a turn is announced anew by watching anew.
            if turn == TURNS {
                super::rewatch(self.ep, source, self.id, part);
                break;
            }
            // An error is of a datagram that was sent earlier: nobody to tell.
            let (n, from) = match take_datagram(source, buffer) {
                Ok(d) => d,
                Err(libc::EAGAIN) => break,
                Err(_) => continue,
            };
            if self.group.allowance(n) < n {
                o.over_quota = true;
                continue;
            }
            self.group.count(n);
            if part == 0 {
                if let Some(s) = self.sender(from).and_then(|k| self.senders.get_mut(&k)) {
                    s.used = Instant::now();
                    send_to(s.fd, &buffer[..n], &[]);
                }
            } else if let Some(s) = self.senders.get_mut(&part) {
                s.used = Instant::now();
                send_to(self.socket, &buffer[..n], &s.address);
            }
        }
        if self.spares.as_ref().is_some_and(|s| s.len() < FEW) && !self.asked {
            self.asked = true;
            o.wants = true;
        }
        o
    }

    /// The number of the socket that speaks for `from`.
    fn sender(&mut self, from: Address) -> Option<u32> {
        if let Some(n) = self.known.get(&from) {
            return Some(*n);
        }
        if self.senders.len() >= MAX_SENDERS {
            let oldest = *self.senders.iter().min_by_key(|(_, s)| s.used)?.0;
            self.forget(oldest);
        }
        let fd = match &mut self.spares {
            None => socket_for(&self.to, libc::SOCK_DGRAM),
            Some(spares) => spares.pop().unwrap_or(-1),
        };
        if fd < 0 {
            return None;
        }
        let mut shown = Address::new();
        if self.spares.is_some() {
            let own = visible(&from, &self.stand_in);
            // SAFETY: a live address. One that is taken leaves the choice to the kernel.
            unsafe { libc::bind(fd, own.as_ptr().cast(), own.len() as u32) };
        }
        if connect(fd, &self.to) < 0 {
            close(fd);
            return None;
        }
        if self.spares.is_some() {
            shown = local_address(fd);
            SPEAKING.lock().expect("not poisoned").insert((self.number, shown.clone()));
        }
        let n = self.next;
        self.next = self.next.wrapping_add(1).max(1);
        watch(self.ep, fd, self.id, n);
        self.known.insert(from.clone(), n);
        self.senders.insert(n, Sender { fd, shown, address: from, used: Instant::now() });
        Some(n)
    }

    fn forget(&mut self, n: u32) {
        if let Some(s) = self.senders.remove(&n) {
            self.known.remove(&s.address);
            s.end(self.number);
        }
    }

    /// Forgets senders that have been silent.
    pub fn sweep(&mut self, now: Instant) {
        for n in self.senders.iter().filter(|(_, s)| now - s.used > IDLE).map(|(n, _)| *n).collect::<Vec<_>>() {
            self.forget(n);
        }
    }
}

/// The address that a sender has for the container: its own, but for the host's loopback, which would
/// be taken for the container's.
fn visible(from: &[u8], stand_in: &[u8]) -> Address {
    let loopback = match from.len() {
        16 => from[4] == 127,
        28 => from[8..23] == [0; 15],
        _ => true,
    };
    if !loopback {
        return from.to_vec();
    }
    let mut own = stand_in.to_vec();
    own[2..4].copy_from_slice(&from[2..4]);
    own
}

impl Drop for Port {
    fn drop(&mut self) {
        close(self.socket);
        self.senders.values().for_each(|s| s.end(self.number));
        self.spares.iter().flatten().for_each(|fd| close(*fd));
    }
}
