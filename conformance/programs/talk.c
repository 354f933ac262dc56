/*
 * talk VERB [ARG...]: one end of a conversation over the network, for the tests of src/net. The same
 * program runs on the host and in a container.
 *
 *   serve PORT            TCP: says "peer ADDR", then sends back what it gets until the end, for ever
 *   serve-udp PORT        UDP: answers "ADDR DATA" to each datagram, for ever
 *   echo ADDR PORT BYTES  connects, sends BYTES bytes and the end, checks that they come back
 *   ask ADDR PORT N       N datagrams of one unconnected socket; prints who answered what
 *   try ADDR PORT         connect without blocking: its error, then what poll and SO_ERROR say of it
 *   many ADDR PORT N      N connections open at once, each says something
 *   resolve NAME          what getaddrinfo says
 *   bind ADDR PORT        bind's error
 *   reuse ADDR PORT       a connected UDP socket: connect, sendto, sendmsg, bind elsewhere, listen
 *   own                   addresses of the interfaces
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char *what) {
  printf("%s: %s\n", what, strerrorname_np(errno));
  return 1;
}

/* An address of either family, in its text form. */
union any {
  struct sockaddr sa;
  struct sockaddr_in in;
  struct sockaddr_in6 in6;
};

static socklen_t address(union any *a, const char *text, const char *port) {
  memset(a, 0, sizeof *a);
  if (inet_pton(AF_INET6, text, &a->in6.sin6_addr) == 1) {
    a->in6.sin6_family = AF_INET6;
    a->in6.sin6_port = htons(atoi(port));
    return sizeof a->in6;
  }
  inet_pton(AF_INET, text, &a->in.sin_addr);
  a->in.sin_family = AF_INET;
  a->in.sin_port = htons(atoi(port));
  return sizeof a->in;
}

static const char *show(const union any *a) {
  static char out[80];
  char b[INET6_ADDRSTRLEN];
  int six = a->sa.sa_family == AF_INET6;
  inet_ntop(a->sa.sa_family, six ? (const void *)&a->in6.sin6_addr : (const void *)&a->in.sin_addr, b, sizeof b);
  snprintf(out, sizeof out, "%s", b);
  return out;
}

static int serve(const char *port, int type) {
  union any a;
  socklen_t len = address(&a, "::", port), on = 1;
  static char b[65536];
  int fd = socket(AF_INET6, type, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, &a.sa, len) || (type == SOCK_STREAM && listen(fd, 512))) return fail("bind");
  signal(SIGCHLD, SIG_IGN);
  puts("ready");
  fflush(stdout);
  for (;;) {
    len = sizeof a;
    if (type == SOCK_DGRAM) {
      ssize_t n = recvfrom(fd, b, 1024, 0, &a.sa, &len);
      if (n < 0) return fail("recvfrom");
      char out[1200];
      int m = snprintf(out, sizeof out, "%s %.*s", show(&a), (int)n, b);
      sendto(fd, out, m, 0, &a.sa, len);
      continue;
    }
    int c = accept(fd, &a.sa, &len);
    if (c < 0) return fail("accept");
    if (fork() == 0) {
      ssize_t n;
      dprintf(c, "peer %s\n", show(&a));
      while ((n = read(c, b, sizeof b)) > 0)
        for (ssize_t k = 0, w; k < n; k += w)
          if ((w = write(c, b + k, n - k)) < 0) _exit(1);
      _exit(0);
    }
    close(c);
  }
}

static int echo(const char *host, const char *port, long bytes) {
  union any a;
  socklen_t len = address(&a, host, port);
  static char out[65536], in[65536];
  int fd = socket(a.sa.sa_family, SOCK_STREAM, 0);
  long sent = 0, got = -1, bad = 0;
  char who[80] = "";
  if (connect(fd, &a.sa, len)) return fail("connect");
  len = sizeof a;
  if (getpeername(fd, &a.sa, &len)) return fail("getpeername");
  fcntl(fd, F_SETFL, O_NONBLOCK);
  for (;;) {
    struct pollfd p = {fd, POLLIN | (sent < bytes ? POLLOUT : 0), 0};
    if (poll(&p, 1, 20000) <= 0) return fail("poll");
    if (sent < bytes && p.revents & POLLOUT) {
      long n = bytes - sent < (long)sizeof out ? bytes - sent : (long)sizeof out;
      for (long k = 0; k < n; k++) out[k] = (char)((sent + k) * 7 >> 3);
      ssize_t w = write(fd, out, n);
      if (w < 0 && errno != EAGAIN) return fail("write");
      if (w > 0 && (sent += w) == bytes) shutdown(fd, SHUT_WR);
    } else if (sent == bytes && bytes == 0 && got < 0) {
      shutdown(fd, SHUT_WR);
    }
    if (!(p.revents & (POLLIN | POLLHUP | POLLERR))) continue;
    ssize_t n = read(fd, in, sizeof in);
    if (n < 0 && errno == EAGAIN) continue;
    if (n < 0) return fail("read");
    if (n == 0) break;
    ssize_t k = 0;
    for (; got < 0 && k < n; k++) {
      if (in[k] == '\n') got = 0;
      else if (strlen(who) < sizeof who - 1) who[strlen(who)] = in[k];
    }
    for (; k < n; k++, got++) bad += in[k] != (char)(got * 7 >> 3);
  }
  printf("%s, from %s: %ld bytes, %ld wrong\n", who, show(&a), got, bad);
  return 0;
}

static int ask(const char *host, const char *port, int count) {
  union any a, from;
  socklen_t len = address(&a, host, port), got;
  int fd = socket(a.sa.sa_family, SOCK_DGRAM, 0);
  struct timeval patience = {5, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  for (int n = 0; n < count; n++) {
    char b[1200];
    int m = snprintf(b, sizeof b, "%d", n);
    if (sendto(fd, b, m, 0, &a.sa, len) < 0) return fail("sendto");
    got = sizeof from;
    ssize_t r = recvfrom(fd, b, sizeof b, 0, &from.sa, &got);
    if (r < 0) return fail("recvfrom");
    printf("%s says %.*s\n", show(&from), (int)r, b);
  }
  return 0;
}

static int try(const char *host, const char *port) {
  union any a;
  socklen_t len = address(&a, host, port);
  int fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0), e = 0, r = connect(fd, &a.sa, len);
  printf("%s", r ? strerrorname_np(errno) : "done");
  if (r && errno == EINPROGRESS) {
    struct pollfd p = {fd, POLLOUT, 0};
    r = poll(&p, 1, 10000);
    len = sizeof e;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len);
    printf(" %d %s", r, e ? strerrorname_np(e) : "connected");
  }
  puts("");
  return 0;
}

static int many(const char *host, const char *port, int count) {
  union any a;
  socklen_t len = address(&a, host, port);
  static int fds[1000];
  int good = 0;
  for (int n = 0; n < count; n++) {
    fds[n] = socket(a.sa.sa_family, SOCK_STREAM, 0);
    if (connect(fds[n], &a.sa, len)) return fail("connect");
  }
  for (int n = 0; n < count; n++) dprintf(fds[n], "%d", n), shutdown(fds[n], SHUT_WR);
  for (int n = 0; n < count; n++) {
    char b[256], *end;
    int have = 0, r;
    while ((r = read(fds[n], b + have, sizeof b - 1 - have)) > 0) have += r;
    b[have] = 0;
    end = strchr(b, '\n');
    good += end && atoi(end + 1) == n && end[1];
  }
  printf("%d good\n", good);
  return 0;
}

static int resolve(const char *name) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
  int e = getaddrinfo(name, NULL, &hints, &list);
  if (e) return !puts(e == EAI_AGAIN ? "EAI_AGAIN" : e == EAI_NONAME ? "EAI_NONAME" : e == EAI_NODATA ? "EAI_NODATA" : gai_strerror(e));
  for (; list; list = list->ai_next) printf("%s ", show((union any *)list->ai_addr));
  puts("");
  return 0;
}

static int reuse(const char *host, const char *port) {
  union any a, b;
  socklen_t len = address(&a, host, port);
  socklen_t other = address(&b, "127.0.0.1", port);
  int fd = socket(a.sa.sa_family, SOCK_DGRAM, 0);
  struct msghdr m = {.msg_name = &b, .msg_namelen = other};
  if (connect(fd, &a.sa, len)) return fail("connect");
#define SAY(call) printf("%s ", (call) < 0 ? strerrorname_np(errno) : "done")
  SAY(connect(fd, &b.sa, other));
  SAY(sendto(fd, "x", 1, 0, &b.sa, other));
  SAY(sendmsg(fd, &m, 0));
  SAY(bind(fd, &b.sa, other));
  puts(listen(fd, 1) < 0 ? strerrorname_np(errno) : "done");
  return 0;
}

static int own(void) {
  struct ifaddrs *list;
  if (getifaddrs(&list)) return fail("getifaddrs");
  for (; list; list = list->ifa_next)
    if (list->ifa_addr && (list->ifa_addr->sa_family == AF_INET || list->ifa_addr->sa_family == AF_INET6))
      printf("%s %s\n", list->ifa_name, show((union any *)list->ifa_addr));
  return 0;
}

int main(int argc, char **argv) {
  const char *v = argc > 1 ? argv[1] : "";
  if (!strcmp(v, "own")) return own();
  if (argc < 3) return 2;
  if (!strcmp(v, "resolve")) return resolve(argv[2]);
  if (!strcmp(v, "serve")) return serve(argv[2], SOCK_STREAM);
  if (!strcmp(v, "serve-udp")) return serve(argv[2], SOCK_DGRAM);
  if (argc < 4) return 2;
  if (!strcmp(v, "try")) return try(argv[2], argv[3]);
  if (!strcmp(v, "bind")) {
    union any a;
    socklen_t len = address(&a, argv[2], argv[3]);
    int fd = socket(a.sa.sa_family, SOCK_STREAM, 0);
    return bind(fd, &a.sa, len) ? fail("bind") : !puts("done");
  }
  if (!strcmp(v, "reuse")) return reuse(argv[2], argv[3]);
  if (argc < 5) return 2;
  if (!strcmp(v, "echo")) return echo(argv[2], argv[3], atol(argv[4]));
  if (!strcmp(v, "ask")) return ask(argv[2], argv[3], atoi(argv[4]));
  if (!strcmp(v, "many")) return many(argv[2], argv[3], atoi(argv[4]));
  return 2;
}
