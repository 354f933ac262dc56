//! Two streams and what is under way between them.

use super::{Group, close, errno, watch};
use crate::sockets::{Address, connect, has_peer, take_error};
use std::sync::Arc;
use std::time::Duration;

/// One direction.
#[derive(Default)]
struct Way {
    /// Read and not yet written.
    rest: Vec<u8>,
    ended: bool,
    shut: bool,
}

enum State {
    /// The host's side connects; the other one goes there afterwards.
    Host(Address),
    /// The container's side connects; the address is kept for another try.
    Inner(Address),
    Open,
}

pub enum Step {
    Wait,
    Connected,
    /// There is more; the others get a turn first.
    More,
    Later(Duration),
    /// Both ways are at their end, or errno: it did not connect.
    Over(i32),
    Reset {
        errno: i32,
        over_quota: bool,
    },
}

pub struct Pair {
    ep: i32,
    id: u32,
    group: Arc<Group>,
    /// Host's, container's.
    fds: [i32; 2],
    ways: [Way; 2],
    state: State,
    tries: u32,
}

/// Tries to reach a guest that has not yet sent what it was told it may: 5 s together.
const TRIES: u32 = 88;
/// Reads before another pair has its turn.
const TURNS: usize = 16;

impl Pair {
    pub fn new(ep: i32, id: u32, group: Arc<Group>, host: i32, inner: i32, then: Address) -> Self {
        let state = if then.is_empty() { State::Inner(then) } else { State::Host(then) };
        watch(ep, host, id, 0);
        if matches!(state, State::Inner(_)) {
            watch(ep, inner, id, 1);
        }
        Self { ep, id, group, fds: [host, inner], ways: Default::default(), state, tries: 0 }
    }

    /// Does what can be done now.
    pub fn step(&mut self, buffer: &mut [u8]) -> Step {
        match &self.state {
            State::Open => self.pump(buffer),
            State::Host(then) => {
                let e = take_error(self.fds[0]);
                if e != 0 {
                    return Step::Over(e);
                }
                if !has_peer(self.fds[0]) {
                    return Step::Wait;
                }
                self.state = State::Inner(then.clone());
                watch(self.ep, self.fds[1], self.id, 1);
                self.reach()
            }
            State::Inner(_) => {
                let e = take_error(self.fds[1]);
                if e != 0 {
                    return self.missed(e);
                }
                if has_peer(self.fds[1]) {
                    self.state = State::Open;
                    return Step::Connected;
                }
                if self.tries > 0 { self.reach() } else { Step::Wait }
            }
        }
    }

    /// Connects to a guest's socket that is connecting to us: both open at once (RFC 9293, 3.5).
    fn reach(&mut self) -> Step {
        let State::Inner(to) = &self.state else { return Step::Wait };
        // After a try that failed, the first call only says so: ECONNABORTED.
        let again = |e| if e == libc::ECONNABORTED { -connect(self.fds[1], to) } else { e };
        match again(-connect(self.fds[1], to)) {
            0 | libc::EINPROGRESS | libc::EALREADY | libc::EISCONN => Step::Wait,
            e => self.missed(e),
        }
    }

    /// A guest that was told to connect may need another moment to do so.
    fn missed(&mut self, e: i32) -> Step {
        let guest = matches!(&self.state, State::Inner(to) if !to.is_empty());
        self.tries += 1;
        if !guest || e != libc::ECONNREFUSED || self.tries > TRIES {
            return Step::Reset { errno: e, over_quota: false };
        }
        Step::Later(Duration::from_micros(32 << self.tries.min(11)))
    }

    fn pump(&mut self, buffer: &mut [u8]) -> Step {
        let mut more = false;
        for from in 0..2 {
            match self.carry(from, buffer) {
                Ok(m) => more |= m,
                Err(step) => return step,
            }
        }
        if self.ways.iter().all(|w| w.shut) {
            return Step::Over(0);
        }
        if more { Step::More } else { Step::Wait }
    }

    /// One direction, until it must wait; true: it has had its turn and there may be more.
    fn carry(&mut self, from: usize, buffer: &mut [u8]) -> Result<bool, Step> {
        let broken = |e| Step::Reset { errno: e, over_quota: false };
        let (way, source, sink) = (&mut self.ways[from], self.fds[from], self.fds[1 - from]);
        for _ in 0..TURNS {
            if !way.rest.is_empty() {
                match send(sink, &way.rest) {
                    Ok(n) => drop(way.rest.drain(..n)),
                    Err(libc::EAGAIN) => return Ok(false),
                    Err(e) => return Err(broken(e)),
                }
                continue;
            }
            if way.ended {
                if !way.shut {
                    // SAFETY: integers only.
                    unsafe { libc::shutdown(sink, libc::SHUT_WR) };
                    way.shut = true;
                }
                return Ok(false);
            }
            let room = self.group.allowance(buffer.len());
            // SAFETY: a live buffer; one byte is looked at where none may be taken.
            let n = unsafe {
                let flags = libc::MSG_DONTWAIT | if room == 0 { libc::MSG_PEEK } else { 0 };
                libc::recv(source, buffer.as_mut_ptr().cast(), room.max(1), flags)
            };
            match n {
                0 => way.ended = true,
                1.. if room == 0 => return Err(Step::Reset { errno: libc::EDQUOT, over_quota: true }),
                1.. => {
                    let got = &buffer[..n as usize];
                    self.group.count(got.len());
                    let sent = match send(sink, got) {
                        Ok(n) => n,
                        Err(libc::EAGAIN) => 0,
                        Err(e) => return Err(broken(e)),
                    };
                    way.rest.extend(&got[sent..]);
                }
                _ => match errno() {
                    libc::EAGAIN => return Ok(false),
                    libc::EINTR => {}
                    e => return Err(broken(e)),
                },
            }
        }
        Ok(true)
    }

    /// Ends both sides as a connection that is cut off ends.
    pub fn reset(self) {
        let l = libc::linger { l_onoff: 1, l_linger: 0 };
        for fd in self.fds {
            // SAFETY: a live struct linger.
            unsafe {
                libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const l).cast(), size_of_val(&l) as u32)
            };
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.fds.into_iter().for_each(close);
    }
}

fn send(fd: i32, bytes: &[u8]) -> Result<usize, i32> {
    // SAFETY: a live buffer.
    let n = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if n < 0 { Err(errno()) } else { Ok(n as usize) }
}
