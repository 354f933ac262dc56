/*
 * ring PID SEED COUNT NR...     what a guest process could do that has taken its loader over
 *
 * Takes ring, doorbell and connection of the guest process PID (by root only), and makes
 * COUNT requests of calls NR with random arguments, tasks, windows and words, changing them while they
 * are being answered, with noise in the ring's header and packets and descriptors on the connection.
 * Ends before when the daemon has ended the process. Prints how many were made. The constants are src/abi/ring.ts's.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "random.h"
#include "ring.h"

static unsigned char *ring;
static int doorbell = -1, conn = -1;
static _Atomic uint32_t *word(unsigned at) { return (_Atomic uint32_t *)(ring + at); }

static void take(int pid) {
  char dir[64], link[64], name[400];
  int pidfd = syscall(SYS_pidfd_open, pid, 0);
  snprintf(dir, sizeof dir, "/proc/%d/fd", pid);
  DIR *d = opendir(dir);
  for (struct dirent *e; d && (e = readdir(d));) {
    if (atoi(e->d_name) < HIDDEN_FD_BASE) continue;
    snprintf(name, sizeof name, "%s/%s", dir, e->d_name);
    ssize_t n = readlink(name, link, sizeof link - 1);
    if (n < 0) continue;
    link[n] = 0;
    int fd = syscall(SYS_pidfd_getfd, pidfd, atoi(e->d_name), 0);
    if (!strncmp(link, "anon_inode:[eventfd", 19)) doorbell = fd;
    else if (!strncmp(link, "socket:", 7)) conn = fd;
  }
  /* The ring's descriptor is closed once it is mapped. */
  char line[600];
  unsigned long from, to;
  snprintf(name, sizeof name, "/proc/%d/maps", pid);
  FILE *maps = fopen(name, "r");
  while (maps && fgets(line, sizeof line, maps)) {
    if (!strstr(line, "memfd:") || sscanf(line, "%lx-%lx rw-s", &from, &to) != 2 || to - from != RING_SIZE) continue;
    snprintf(name, sizeof name, "/proc/%d/map_files/%lx-%lx", pid, from, to);
    int fd = open(name, O_RDWR);
    if (fd >= 0) ring = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (!ring || ring == MAP_FAILED || doorbell < 0 || conn < 0) {
    fprintf(stderr, "ring: process %d has no ring, doorbell or connection\n", pid);
    exit(2);
  }
}

static const char *const names[] = {
  "/", "", ".", "..", "a", "b", "dir", "dir/x", "/tmp/x", "/proc/self/fd/3", "/proc/self/maps", "/proc/1/status", "/dev/ptmx", "/dev/pts/0", "/dev/null", "/bin/sh", "/etc/passwd", "../../../../etc/shadow",
  "/proc/self/exe", "/proc", "/dev/fd/1", "user.a", "x\0y", "\xff\xfe/\x80", "/tmp/x/../y", "////", "/sys/devices/system/cpu/online",
};

/* Something in the window, and the argument that names it. */
static uint64_t place(unsigned char *window) {
  uint32_t off = below(RING_WINDOW), len = below(300);
  switch (below(10)) {
  case 0: return UINT64_MAX;
  case 1: return next();
  case 2: return (uint64_t)below(70000) << 32 | below(70000);
  case 3: off = 0, len = RING_WINDOW; break;
  case 4: if (off + len > RING_WINDOW) off = 0; for (uint32_t n = 0; n < len; n++) window[off + n] = next(); break;
  default: {
    const char *s = names[below(sizeof names / sizeof *names)];
    len = strlen(s);
    if (off + len > RING_WINDOW) off = 0;
    memcpy(window + off, s, len);
  }
  }
  return (uint64_t)len << 32 | off;
}

static void packet(void) {
  char bytes[64], control[CMSG_SPACE(4 * sizeof(int))];
  int fds[4], count = below(3), pair[2];
  struct iovec v = {bytes, below(sizeof bytes)};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
  for (unsigned n = 0; n < sizeof bytes; n++) bytes[n] = next();
  for (int n = 0; n < count; n++)
    if (one_in(3)) fds[n] = open("/dev/null", O_RDWR);
    else if (one_in(3)) fds[n] = dup(doorbell);
    else if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0) {
      fds[n] = pair[0];
      if (one_in(2) && write(pair[1], bytes, 5) < 0) {}
      close(pair[1]);
    } else fds[n] = dup(conn);
  if (count > 0) {
    m.msg_control = control;
    m.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(c), fds, count * sizeof(int));
  }
  sendmsg(conn, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
  for (int n = 0; n < count; n++) close(fds[n]);
}

/* What the daemon has granted. */
static void drain(void) {
  for (;;) {
    char b[64], control[1024];
    struct iovec v = {b, sizeof b};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(conn, &m, MSG_DONTWAIT) <= 0) return;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
      for (unsigned n = 0; c->cmsg_type == SCM_RIGHTS && n < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); n++) {
        int fd;
        memcpy(&fd, CMSG_DATA(c) + n * sizeof(int), sizeof fd);
        close(fd);
      }
  }
}

int main(int argc, char **argv) {
  if (argc < 5) return 2;
  state = strtoull(argv[2], NULL, 0) * 0x9e3779b97f4a7c15ull + 1;
  long count = atol(argv[3]), made = 0, alone = 0;
  const uint64_t one = 1;
  take(atoi(argv[1]));
  for (; made < count; made++) {
    unsigned slot = below(RING_SLOTS), at = SLOTS_OFF + slot * SLOT_SIZE;
    unsigned char *window = ring + WINDOWS_OFF + slot * RING_WINDOW;
    uint64_t args[6];
    for (int k = 0; k < 6; k++) args[k] = one_in(3) ? place(window) : one_in(6) ? next() : one_in(8) ? UINT64_MAX : below(one_in(2) ? 40 : 2000);
    memcpy(ring + at + SLOT_ARGS, args, sizeof args);
    atomic_store(word(at + SLOT_TASK), one_in(20) ? next() : 1 + (one_in(4) ? below(50) : 0));
    uint32_t nr = one_in(20) ? next() & WORD_NR_MASK : (uint32_t)atoi(argv[4 + below(argc - 4)]);
    atomic_store(word(at), one_in(50) ? (uint32_t)next() : WORD_REQUEST | nr | (one_in(3) ? WORD_WAITING : 0));
    atomic_fetch_or(word(HDR_POSTED + 4 * (slot / 32)), one_in(100) ? (uint32_t)next() : 1u << slot % 32);
    if (one_in(200)) atomic_store(word(HDR_CLAIMED + 4 * below(8)), next());
    if (one_in(200)) atomic_store(word(4 * below(64)), next());
    if (one_in(300)) packet();
    if (one_in(4)) drain();
    /* Changed while it may be being read. */
    for (int k = below(8); k > 0; k--) {
      window[below(RING_WINDOW)] = next();
      ring[at + SLOT_ARGS + below(48)] = next();
    }
    if (made % 16) continue;
    if (write(doorbell, &one, 8) < 0) {}
    for (int waited = 0; waited < 2000; waited++) {
      uint32_t posted = 0;
      for (int w = 0; w < 8; w++) posted |= atomic_load(word(HDR_POSTED + 4 * w));
      drain();
      if (!posted) {
        alone = 0;
        break;
      }
      if (write(doorbell, &one, 8) < 0) {}
      usleep(500);
    }
    /* The daemon has ended the container: it is nobody's ring any more. */
    if (alone++ > 1) break;
  }
  printf("%ld\n", made);
  return 0;
}
