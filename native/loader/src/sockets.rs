//! What lets the daemon reach into a container's network: every address is the container's own
//! (*any address*), so that the daemon can stand at the far end of each; and a socket maker, a fork of
//! the zygote in the container's user and network namespaces that hands sockets to the daemon on
//! request. It runs no guest code and is outside the container's PID namespace.

use crate::packet;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// The container's address, in a range that is nobody's on a real network (RFC 2544), and in a unique
/// local one. The daemon's side has the number before (src/net/network.ts).
pub const OWN4: [u8; 4] = [198, 18, 0, 2];
pub const OWN6: [u8; 16] = [0xfd, 0x76, 0x6b, 0x65, 0x72, 0x6e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// This process's namespaces in the order in which they can be entered, the user namespace first.
pub fn namespaces() -> Result<Vec<i32>, String> {
    let open = |name: &str| {
        let path = format!("/proc/self/ns/{name}");
        std::fs::File::open(&path).map(|f| OwnedFd::from(f).into_raw_fd()).map_err(|e| format!("{path}: {e}"))
    };
    ["user", "net", "ipc", "uts", "pid", "mnt"].into_iter().map(open).collect()
}

/// Sockets that go with one answer.
const BATCH: usize = 8;
/// By the number that asks for them (src/net/sockets.ts).
const KINDS: [(i32, i32); 4] = [
    (libc::AF_INET, libc::SOCK_STREAM),
    (libc::AF_INET, libc::SOCK_DGRAM),
    (libc::AF_INET6, libc::SOCK_STREAM),
    (libc::AF_INET6, libc::SOCK_DGRAM),
];

/// Enters the namespaces and answers each byte on `channel` with sockets, until it closes.
pub fn serve(user: i32, net: i32, channel: i32) -> Result<(), String> {
    let failed = |what: &str| format!("{what}: {}", std::io::Error::last_os_error());
    // SAFETY: plain calls of a single-threaded process that owns the namespaces.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::setns(user, libc::CLONE_NEWUSER) != 0 || libc::setns(net, libc::CLONE_NEWNET) != 0 {
            return Err(failed("cannot enter the container's network"));
        }
        libc::dup2(channel, 3);
        libc::syscall(libc::SYS_close_range, 4, u32::MAX, 0);
    }
    let mut ask = [0u8; 1];
    while let Some((1, _)) = packet::receive(3, &mut ask) {
        let Some((family, kind)) = KINDS.get(ask[0] as usize) else { break };
        let mut fds = Vec::new();
        for _ in 0..BATCH {
            let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            // SAFETY: a fresh socket and a live option.
            unsafe {
                let fd = libc::socket(*family, kind | flags, 0);
                if fd < 0 {
                    break;
                }
                if *family == libc::AF_INET6 {
                    let on = 1i32;
                    // A local route makes an address one to receive at; to bind it takes this too.
                    for option in [libc::IPV6_V6ONLY, libc::IPV6_FREEBIND] {
                        libc::setsockopt(fd, libc::IPPROTO_IPV6, option, (&raw const on).cast(), 4);
                    }
                }
                fds.push(fd);
            }
        }
        let sent = packet::send(3, &ask, &fds, false);
        for fd in fds {
            // SAFETY: descriptors of our own, which are the daemon's now.
            unsafe { libc::close(fd) };
        }
        if !sent {
            break;
        }
    }
    Ok(())
}

/// Makes every address of the Internet one of the loopback's, and gives the container its own. IPv6
/// is left out where the host has it switched off.
pub fn any_address() -> Result<(), String> {
    // SAFETY: integers only.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return Err(format!("netlink: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: a descriptor of our own, closed at the end.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let four = configure(&fd, libc::AF_INET as u8, &OWN4);
    let _ = configure(&fd, libc::AF_INET6 as u8, &OWN6);
    four
}

/// The address `own` on the loopback, and a local route to everything with it as the source.
fn configure(netlink: &OwnedFd, family: u8, own: &[u8]) -> Result<(), String> {
    const LOOPBACK: u32 = 1;
    const NODAD: u8 = 2;
    let bits = 8 * own.len() as u8;
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let mut address = vec![family, bits, NODAD, 0];
    address.extend(LOOPBACK.to_ne_bytes());
    attribute(&mut address, libc::IFA_LOCAL, own);
    attribute(&mut address, libc::IFA_ADDRESS, own);
    request(netlink, libc::RTM_NEWADDR, &address)?;
    // struct rtmsg: family, prefix lengths, tos, table, protocol, scope, type, flags.
    let scope = if family == libc::AF_INET as u8 { libc::RT_SCOPE_HOST } else { libc::RT_SCOPE_UNIVERSE };
    let mut route =
        vec![family, 0, 0, 0, libc::RT_TABLE_LOCAL, libc::RTPROT_STATIC, scope, libc::RTN_LOCAL, 0, 0, 0, 0];
    attribute(&mut route, libc::RTA_OIF, &LOOPBACK.to_ne_bytes());
    attribute(&mut route, libc::RTA_PREFSRC, own);
    request(netlink, libc::RTM_NEWROUTE, &route)
}

/// Appends a struct rtattr.
fn attribute(to: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    to.extend((4 + bytes.len() as u16).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(bytes);
}

/// Sends one request of netlink(7) and takes its acknowledgement.
fn request(netlink: &OwnedFd, kind: u16, body: &[u8]) -> Result<(), String> {
    use std::os::fd::AsRawFd;
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut m = (16 + body.len() as u32).to_ne_bytes().to_vec();
    m.extend(kind.to_ne_bytes());
    m.extend((flags as u16).to_ne_bytes());
    m.extend([0; 8]);
    m.extend(body);
    let mut answer = [0u8; 512];
    // SAFETY: live buffers of the lengths given.
    let n = unsafe {
        libc::send(netlink.as_raw_fd(), m.as_ptr().cast(), m.len(), 0);
        libc::recv(netlink.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0)
    };
    // struct nlmsghdr, then an errno below zero.
    let error = if n >= 20 { i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) } else { -libc::EIO };
    if error == 0 { Ok(()) } else { Err(format!("network set-up: {}", std::io::Error::from_raw_os_error(-error))) }
}
