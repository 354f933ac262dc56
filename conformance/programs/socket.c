/* Sockets: socket(2), bind(2), connect(2), accept(2), send(2), recv(2), sendmmsg(2), recvmmsg(2), getsockopt(2), shutdown(2), unix(7), ip(7). */
#include "check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/un.h>

static struct sockaddr_in in(int port) { return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}; }
static struct sockaddr_un un(const char *path) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strncpy(a.sun_path, path, sizeof a.sun_path - 1);
  return a;
}
#define A(x) (struct sockaddr *)&(x), sizeof(x)

/* Sends `fd` over `s` with one byte. */
static long send_fd(int s, int fd) {
  union { char b[CMSG_SPACE(4)]; struct cmsghdr h; } c = {0};
  struct iovec v = {"x", 1};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
  c.h = (struct cmsghdr){.cmsg_len = CMSG_LEN(4), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  memcpy(CMSG_DATA(&c.h), &fd, 4);
  return sys(sendmsg, s, &m, 0);
}
static int receive_fd(int s, int flags, int *got_flags) {
  union { char b[CMSG_SPACE(4)]; struct cmsghdr h; } c = {0};
  char b;
  struct iovec v = {&b, 1};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
  int fd = -1;
  if (sys(recvmsg, s, &m, flags) < 0) return -1;
  *got_flags = m.msg_flags;
  if (m.msg_controllen) memcpy(&fd, CMSG_DATA(&c.h), 4);
  return fd;
}

int main(int argc, char **argv) {
  int s, c, a, p[2], v, flags;
  socklen_t len;
  char b[64];
  FAILS("socket: unknown family", EAFNOSUPPORT, sys(socket, 99, SOCK_STREAM, 0));
  FAILS("socket: unknown type", EINVAL, sys(socket, AF_INET, 77, 0));
  FAILS("socket: unknown flags", EINVAL, sys(socket, AF_INET, SOCK_STREAM | 0x100000, 0));
  FAILS("socket: a protocol of another type", EPROTONOSUPPORT, sys(socket, AF_INET, SOCK_STREAM, IPPROTO_UDP));
  GIVES("socket: flags", 3, s = sys(socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  OK("socket: both are set", fcntl(s, F_GETFD) == 1 && fcntl(s, F_GETFL) == (O_RDWR | O_NONBLOCK));
  struct sockaddr_in any = in(0), name;
  FAILS("bind: a short address", EINVAL, sys(bind, s, (struct sockaddr *)&any, 4));
  FAILS("bind: another family", EAFNOSUPPORT, ({ struct sockaddr_in x = any; x.sin_family = AF_UNIX; sys(bind, s, A(x)); }));
  FAILS("bind: an address that is not here", EADDRNOTAVAIL, ({ struct sockaddr_in x = any; x.sin_addr.s_addr = htonl(0x08080808); sys(bind, s, A(x)); }));
  GIVES("bind: any port", 0, sys(bind, s, A(any)));
  FAILS("bind: twice", EINVAL, sys(bind, s, A(any)));
  len = sizeof name;
  GIVES("getsockname: the port", 0, (sys(getsockname, s, &name, &len), name.sin_port == 0));
  GIVES("getsockname: cut to the room there is", 16, ({ len = 4; sys(getsockname, s, b, &len); len; }));
  FAILS("accept: not listening", EINVAL, sys(accept, s, NULL, NULL));
  GIVES("listen: now it is", 0, sys(listen, s, 5));
  FAILS("listen: a file", ENOTSOCK, sys(listen, file_with("f", "", O_RDWR), 5));
  FAILS("accept: nobody", EAGAIN, sys(accept4, s, NULL, NULL, 0));
  FAILS("accept4: unknown flags", EINVAL, sys(accept4, s, NULL, NULL, 1));
  FAILS("bind: in use", EADDRINUSE, sys(bind, socket(AF_INET, SOCK_STREAM, 0), A(name)));
  c = socket(AF_INET, SOCK_STREAM, 0);
  FAILS("connect: refused", ECONNREFUSED, ({ struct sockaddr_in x = in(1); sys(connect, c, A(x)); }));
  FAILS("getpeername: not connected", ENOTCONN, sys(getpeername, c, b, &len));
  FAILS("sendto: not connected", EPIPE, sys(sendto, c, "x", 1L, MSG_NOSIGNAL, NULL, 0));
  FAILS("recvfrom: not connected", ENOTCONN, sys(recvfrom, c, b, 1L, 0, NULL, NULL));
  FAILS("shutdown: not connected", ENOTCONN, sys(shutdown, c, SHUT_WR));
  close(c);
  c = socket(AF_INET, SOCK_STREAM, 0);
  GIVES("connect: connected", 0, sys(connect, c, A(name)));
  FAILS("connect: twice", EISCONN, sys(connect, c, A(name)));
  pause_ms(5);
  struct sockaddr_in peer;
  len = sizeof peer;
  OK("accept4: with the peer's address and flags", (a = sys(accept4, s, &peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0 && len == sizeof peer && fcntl(a, F_GETFD) == 1);
  OK("getpeername: the other's name", ({ struct sockaddr_in x; socklen_t l = sizeof x; sys(getpeername, a, &x, &l) == 0 && x.sin_port == peer.sin_port; }));
  GIVES("sendto: connected", 5, sys(sendto, c, "hello", 5L, 0, NULL, 0));
  pause_ms(5);
  GIVES("recvfrom: MSG_PEEK", 5, sys(recvfrom, a, b, 64L, MSG_PEEK, NULL, NULL));
  GIVES("recvfrom: takes", 5, sys(recvfrom, a, b, 64L, 0, NULL, NULL));
  FAILS("recvfrom: MSG_DONTWAIT", EAGAIN, sys(recvfrom, c, b, 1L, MSG_DONTWAIT, NULL, NULL));
  GIVES("shutdown: for writing", 0, sys(shutdown, c, SHUT_WR));
  FAILS("shutdown: how", EINVAL, sys(shutdown, c, 9));
  pause_ms(5);
  GIVES("shutdown: end of file at the other end", 0, sys(recvfrom, a, b, 1L, 0, NULL, NULL));
  FAILS("shutdown: nothing is sent", EPIPE, sys(sendto, c, "x", 1L, MSG_NOSIGNAL, NULL, 0));
  v = 1;
  GIVES("setsockopt: SO_REUSEADDR", 0, sys(setsockopt, s, SOL_SOCKET, SO_REUSEADDR, &v, 4));
  FAILS("setsockopt: unknown", ENOPROTOOPT, sys(setsockopt, s, SOL_SOCKET, 9999, &v, 4));
  FAILS("setsockopt: short", EINVAL, sys(setsockopt, s, SOL_SOCKET, SO_REUSEADDR, &v, 2));
  GIVES("setsockopt: TCP_NODELAY", 0, sys(setsockopt, c, IPPROTO_TCP, TCP_NODELAY, &v, 4));
  struct timeval tv = {0, 5000};
  GIVES("setsockopt: SO_RCVTIMEO", 0, sys(setsockopt, c, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
  FAILS("recvfrom: the time is over", EAGAIN, sys(recvfrom, c, b, 1L, 0, NULL, NULL));
  len = 4;
  GIVES("getsockopt: SO_TYPE", SOCK_STREAM, (sys(getsockopt, s, SOL_SOCKET, SO_TYPE, &v, &len), v));
  GIVES("getsockopt: SO_ACCEPTCONN", 1, (sys(getsockopt, s, SOL_SOCKET, SO_ACCEPTCONN, &v, &len), v));
  GIVES("getsockopt: SO_ERROR", 0, (sys(getsockopt, c, SOL_SOCKET, SO_ERROR, &v, &len), v));
  FAILS("getsockopt: unknown", ENOPROTOOPT, sys(getsockopt, s, SOL_SOCKET, 9999, &v, &len));
  GIVES("getsockopt: TCP_INFO", 0, ({ char i[256]; socklen_t l = sizeof i; sys(getsockopt, c, IPPROTO_TCP, TCP_INFO, i, &l); }));

  int u = socket(AF_INET, SOCK_DGRAM, 0), w = socket(AF_INET, SOCK_DGRAM, 0);
  struct sockaddr_in un1 = in(0), un2;
  bind(u, A(un1));
  len = sizeof un1;
  getsockname(u, (struct sockaddr *)&un1, &len);
  FAILS("sendto: a datagram without destination", EDESTADDRREQ, sys(sendto, w, "x", 1L, 0, NULL, 0));
  GIVES("sendto: a datagram", 4, sys(sendto, w, "data", 4L, 0, A(un1)));
  GIVES("sendto: an empty one", 0, sys(sendto, w, "", 0L, 0, A(un1)));
  FAILS("sendto: too long", EMSGSIZE, ({ char *x = malloc(70000); sys(sendto, w, x, 70000L, 0, A(un1)); }));
  len = sizeof un2;
  GIVES("recvfrom: MSG_TRUNC tells the length", 4, sys(recvfrom, u, b, 2L, MSG_TRUNC, &un2, &len));
  OK("recvfrom: the sender", len == sizeof un2 && un2.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
  GIVES("recvfrom: the empty one", 0, sys(recvfrom, u, b, 2L, 0, NULL, NULL));
  struct iovec iv[3] = {{"one", 3}, {"three", 5}, {"xx", 2}}, rv[3] = {{b, 20}, {b + 20, 20}, {b + 40, 20}};
  struct mmsghdr mm[3] = {0}, rm[3] = {0};
  for (int n = 0; n < 3; n++) {
    mm[n].msg_hdr = (struct msghdr){.msg_iov = &iv[n], .msg_iovlen = 1, .msg_name = &un1, .msg_namelen = sizeof un1};
    rm[n].msg_hdr = (struct msghdr){.msg_iov = &rv[n], .msg_iovlen = 1};
  }
  GIVES("sendmmsg: three", 3, sys(sendmmsg, w, mm, 3, 0));
  OK("sendmmsg: their lengths", mm[0].msg_len == 3 && mm[1].msg_len == 5 && mm[2].msg_len == 2);
  GIVES("recvmmsg: two", 2, sys(recvmmsg, u, rm, 2, 0, NULL));
  OK("recvmmsg: their lengths", rm[0].msg_len == 3 && rm[1].msg_len == 5 && !memcmp(b + 20, "three", 5));
  GIVES("recvmmsg: MSG_WAITFORONE", 1, sys(recvmmsg, u, rm, 3, MSG_WAITFORONE, NULL));
  FAILS("recvmmsg: nothing", EAGAIN, sys(recvmmsg, u, rm, 3, MSG_DONTWAIT, NULL));
  FAILS("recvmmsg: too many nanoseconds", EINVAL, ({ struct timespec x = {0, 1000000000}; sys(recvmmsg, u, rm, 3, 0, &x); }));
  GIVES("recvmmsg: none asked", 0, sys(recvmmsg, u, rm, 0, 0, NULL));
  FAILS("sendmmsg: bad address", EFAULT, sys(sendmmsg, w, bad_address(), 1, 0));
  FAILS("sendmmsg: no socket", ENOTSOCK, sys(sendmmsg, 0, mm, 1, 0));
  FAILS("connect: port 1 by datagram is refused when written", ECONNREFUSED, ({ struct sockaddr_in x = in(1); sys(connect, w, A(x)); write(w, "x", 1); pause_ms(5); read(w, b, 1); }));

  FAILS("socketpair: of the Internet", EOPNOTSUPP, sys(socketpair, AF_INET, SOCK_STREAM, 0, p));
  FAILS("socketpair: bad address", EFAULT, sys(socketpair, AF_UNIX, SOCK_STREAM, 0, bad_address()));
  GIVES("socketpair: made", 0, sys(socketpair, AF_UNIX, SOCK_STREAM, 0, p));
  GIVES("sendmsg: SCM_RIGHTS", 1, send_fd(p[0], s));
  int got = receive_fd(p[1], MSG_CMSG_CLOEXEC, &flags);
  OK("recvmsg: a descriptor of the same socket", got > 0 && ({ struct stat x, y; fstat(got, &x); fstat(s, &y); x.st_ino == y.st_ino; }));
  GIVES("recvmsg: MSG_CMSG_CLOEXEC", 1, fcntl(got, F_GETFD));
  int img = open("/data/hello", O_RDONLY);
  FAILS("sendmsg: a closed descriptor", EBADF, send_fd(p[0], 99));
  GIVES("sendmsg: an image file's", 1, send_fd(p[0], img));
  lseek(img, 0, SEEK_SET);
  got = receive_fd(p[1], 0, &flags);
  GIVES("recvmsg: it is the file", 5, read(got, b, 5));
  OK("recvmsg: its text", !memcmp(b, "hello", 5));
  GIVES("recvmsg: the offset is shared", 5, lseek(img, 0, SEEK_CUR));
  v = 1;
  setsockopt(p[1], SOL_SOCKET, SO_PASSCRED, &v, 4);
  write(p[0], "y", 1);
  union { char b[CMSG_SPACE(sizeof(struct ucred))]; struct cmsghdr h; } cr;
  struct iovec one = {b, 1};
  struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &cr, .msg_controllen = sizeof cr};
  GIVES("recvmsg: SCM_CREDENTIALS", SCM_CREDENTIALS, (sys(recvmsg, p[1], &m, 0), cr.h.cmsg_type));
  struct ucred *cred = (void *)CMSG_DATA(&cr.h);
  OK("recvmsg: process and user", cred->pid == getpid() && cred->uid == 0 && cred->gid == 0);
  len = sizeof *cred;
  GIVES("getsockopt: SO_PEERCRED", getpid(), ({ struct ucred x; sys(getsockopt, p[0], SOL_SOCKET, SO_PEERCRED, &x, &len); x.pid; }));
  GIVES("sendmsg: MSG_NOSIGNAL of a closed end", EPIPE, ({ int q[2]; socketpair(AF_UNIX, SOCK_STREAM, 0, q); close(q[1]); send(q[0], "x", 1, MSG_NOSIGNAL) < 0 ? errno : 0; }));
  GIVES("socketpair: SOCK_SEQPACKET keeps records", 2, ({ int q[2]; socketpair(AF_UNIX, SOCK_SEQPACKET, 0, q); write(q[0], "ab", 2); write(q[0], "cd", 2); read(q[1], b, 64); }));

  int l = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_un path = un("sock"), gone = un("nothing"), abst = {.sun_family = AF_UNIX, .sun_path = "\0abstract"};
  GIVES("bind: a path", 0, sys(bind, l, A(path)));
  FAILS("bind: a path that is there", EADDRINUSE, sys(bind, socket(AF_UNIX, SOCK_STREAM, 0), A(path)));
  FAILS("connect: a path, not listening", ECONNREFUSED, sys(connect, socket(AF_UNIX, SOCK_STREAM, 0), A(path)));
  listen(l, 2);
  c = socket(AF_UNIX, SOCK_STREAM, 0);
  FAILS("connect: no such path", ENOENT, sys(connect, c, A(gone)));
  FAILS("connect: a path that is no socket", ECONNREFUSED, ({ struct sockaddr_un x = un("f"); sys(connect, c, A(x)); }));
  FAILS("connect: a datagram socket to a stream", EPROTOTYPE, sys(connect, socket(AF_UNIX, SOCK_DGRAM, 0), A(path)));
  GIVES("connect: a path", 0, sys(connect, c, A(path)));
  OK("getpeername: the path", ({ struct sockaddr_un x; socklen_t n = sizeof x; sys(getpeername, c, &x, &n) == 0 && !strcmp(x.sun_path, "sock") && n == offsetof(struct sockaddr_un, sun_path) + 5; }));
  GIVES("bind: an abstract name", 0, sys(bind, socket(AF_UNIX, SOCK_DGRAM, 0), (struct sockaddr *)&abst, 12));
  GIVES("sendto: an abstract name", 1, sys(sendto, socket(AF_UNIX, SOCK_DGRAM, 0), "x", 1L, 0, (struct sockaddr *)&abst, 12));
  GIVES("bind: autobind", 8, ({ int x = socket(AF_UNIX, SOCK_DGRAM, 0); sa_family_t f = AF_UNIX; sys(bind, x, &f, 2); len = sizeof gone; sys(getsockname, x, &gone, &len); len; }));
  FAILS("socket: NETLINK_ROUTE answers to a request only", EAGAIN, ({ int x = sys(socket, AF_NETLINK, SOCK_RAW, 0); sys(recvfrom, x, b, 64L, MSG_DONTWAIT, NULL, NULL); }));
  int text = open("/data/hello", O_RDONLY), folder = open("/data", O_RDONLY);
  FAILS("shutdown: of an image file", ENOTSOCK, shutdown(text, SHUT_RD));
  FAILS("shutdown: of a directory", ENOTSOCK, shutdown(folder, SHUT_RD));
  FAILS("listen: of a directory", ENOTSOCK, listen(folder, 1));
  FAILS("setsockopt: of a directory", ENOTSOCK, sys(setsockopt, folder, SOL_SOCKET, SO_REUSEADDR, &text, 4));
  FAILS("recvmmsg: no message, no socket", ENOTSOCK, sys(recvmmsg, folder, NULL, 0, 0, NULL));
  FAILS("sendmmsg: no message, no descriptor", EBADF, sys(sendmmsg, 99, NULL, 0, 0));
  GIVES("sendmmsg: no message", 0, ({ int one = socket(AF_UNIX, SOCK_DGRAM, 0); sys(sendmmsg, one, NULL, 0, 0); }));
  FAILS("timerfd_gettime: of a directory", EINVAL, sys(timerfd_gettime, folder, &text));
  FAILS("epoll_wait: of a directory", EINVAL, sys(epoll_wait, folder, bad_address(), 1, 0));
  FAILS("mq_getsetattr: of a directory", EBADF, sys(mq_getsetattr, folder, NULL, NULL));
  return done();
}
