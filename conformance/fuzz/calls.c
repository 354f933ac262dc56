/*
 * calls SEED COUNT          random system calls, in children of a few hundred each
 * calls --compare SEED COUNT  COUNT children one after the other; what each call answered
 *
 * The arguments are typed: calls.h has the table's rows. What a call answers does not matter. A child
 * may end by any signal that its own memory explains; "not ok" is one that ends by SIGABRT or SIGSYS
 * (the loader's own end), or that SIGKILL does not end. The last line is "done: COUNT calls, …".
 *
 * Has to be process 1 of its namespace: nothing that a child does ends it, and it ends all others.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct argument { char kind; unsigned char len; unsigned short scale; };
/* `offered`: not refused or absent here, so that it can be compared with native Linux. */
struct call { long nr; const char *name; int offered, count; struct argument args[6]; };
#include "calls.h"
#include "random.h"

#define LENGTH(a) ((int)(sizeof(a) / sizeof *(a)))
enum { A_CHILD = 300, SILENT_MS = 200, UNKILLABLE_MS = 20000, BUFFER = 65536 };

/* What the child is at, seen by the supervisor. */
struct progress { uint64_t made; uint64_t seed; int64_t nr; uint64_t args[6]; };
static volatile struct progress *at;
/* Opened before a child can take the name away. */
static int null;

static char *memory; /* 8 buffers, then a page without access */
static char longest[5000];
static int fds[64], fd_count;

static const char *const paths[] = {
  "file", "new", "other", "dir", "dir/new", "dir/..", "dir/file", "fifo", "link", "loop", "socket", ".", "..", "", "/", "/data/hello", "/data/dir", "/data/dir/one", "/bin/fuzz", "/proc/self/maps",
  "/proc/self/fd", "/proc/self/fd/0", "/proc/self/exe", "/proc/1/status", "/proc", "/dev/null", "/dev/full", "/dev/zero", "/dev/tty", "/dev/ptmx", "/dev/pts/0", "/dev/shm", "/tmp", "/sys", "/etc/passwd",
  "file/", "dir/", "link/x", "/data/none", "\xff\xfe", "a\nb", "/data/../../data/hello", "//data///hello", "/dev/fd/3",
};
static const uint64_t numbers[] = {
  0, 1, 2, 3, 4, 7, 8, 15, 16, 24, 63, 64, 65, 100, 127, 128, 255, 256, 511, 512, 1000, 1024, 4095, 4096, 4097, 8192, 65535, 65536, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
  0x100000000, 0x7fffffffffffffff, 0x8000000000000000, -1, -2, -100, -4096,
};

static uint64_t number(void) {
  switch (below(8)) {
  case 0: return next();
  case 1: return next() >> below(64);
  case 2: return 1ull << below(64);
  case 3: case 4: return below(70);
  default: return numbers[below(LENGTH(numbers))];
  }
}
static uint64_t descriptor(void) {
  switch (below(16)) {
  case 0: return number();
  case 1: return below(64);
  case 2: return 4050 + below(64);
  default: return fds[below(fd_count)];
  }
}
static uint64_t address(void) {
  switch (below(20)) {
  case 0: return 0;
  case 1: return (uint64_t)(memory + 8 * BUFFER); /* no access */
  case 2: return (uint64_t)(memory + 8 * BUFFER - below(64));
  case 3: return next();
  case 4: return -(uint64_t)below(8192);
  case 5: return next() & 0xffffffff;
  case 6: return 0x100000000ull - below(8192);
  default: return (uint64_t)(memory + below(8) * BUFFER + (one_in(4) ? below(BUFFER) : 0));
  }
}
/* Structures as calls read them: small numbers, descriptors, addresses of buffers, now and then noise. */
static void fill(char *p, int len) {
  for (int n = 0; n + 8 <= len; n += 8) {
    uint64_t v;
    switch (below(8)) {
    case 0: v = number(); break;
    case 1: v = address(); break;
    case 2: v = descriptor(); break;
    case 3: v = below(256) | (uint64_t)below(256) << 32; break;
    case 4: v = descriptor() | (uint64_t)below(65536) << 32; break;
    case 5: v = next(); break;
    default: v = 0;
    }
    memcpy(p + n, &v, 8);
  }
}
static uint64_t path(void) {
  switch (below(20)) {
  case 0: return address();
  case 1: return (uint64_t)longest + sizeof longest - 1 - (one_in(2) ? 255 + below(2) : 4095 + below(2));
  default: return (uint64_t)paths[below(LENGTH(paths))];
  }
}
static uint64_t flags(void) {
  uint64_t v = 0;
  switch (below(6)) {
  case 0: return number();
  case 1: return 0;
  default: for (int n = below(4); n >= 0; n--) v |= 1ull << below(32);
  }
  return v;
}
static uint64_t vector(void) {
  struct iovec *v = (struct iovec *)(memory + below(8) * BUFFER);
  for (int n = 0; n < 16; n++) {
    v[n].iov_base = (void *)address();
    v[n].iov_len = one_in(8) ? number() : below(5000);
  }
  return (uint64_t)v;
}

static void keep(int fd) {
  if (fd < 0) return;
  if (fd_count < LENGTH(fds)) fds[fd_count++] = fd;
  else fds[below(fd_count)] = fd;
}

/* The file size limit keeps what fallocate may take; it holds for memory files too. */
static void prepare(void) {
  const struct rlimit size = {1 << 20, 1 << 20};
  int p[2];
  setrlimit(RLIMIT_FSIZE, &size);
  signal(SIGXFSZ, SIG_IGN);
  /* Where addresses are is part of what is random: the same natively. */
  memory = mmap((void *)0x20000000, 8 * BUFFER + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  mprotect(memory + 8 * BUFFER, 4096, PROT_NONE);
  memset(longest, 'l', sizeof longest - 1);
  mkdir("dir", 0755);
  mkfifo("fifo", 0644);
  if (symlink("dir", "link") || symlink("loop", "loop")) {}
  for (int fd = 0; fd < 3; fd++) dup2(null, fd);
  close(null);
  keep(open("file", O_RDWR | O_CREAT, 0644));
  keep(open("dir/file", O_RDWR | O_CREAT | O_APPEND, 0644));
  keep(open("dir", O_RDONLY | O_DIRECTORY));
  keep(open("/data", O_RDONLY | O_DIRECTORY));
  keep(open("/data/pages", O_RDONLY));
  keep(open("/data/hello", O_RDWR));
  keep(open("/data/dir", O_PATH));
  keep(open("/proc/self/status", O_RDONLY));
  keep(open("/dev/ptmx", O_RDWR | O_NOCTTY));
  keep(open("/dev/zero", O_RDWR));
  keep(open("fifo", O_RDWR));
  keep(open(".", O_TMPFILE | O_RDWR, 0600));
  if (pipe(p) == 0) keep(p[0]), keep(p[1]);
  for (int type = SOCK_STREAM; type <= SOCK_SEQPACKET; type++)
    if (type != SOCK_RAW && type != SOCK_RDM && socketpair(AF_UNIX, type, 0, p) == 0) keep(p[0]), keep(p[1]);
  keep(socket(AF_INET, SOCK_STREAM, 0));
  keep(socket(AF_INET6, SOCK_DGRAM, 0));
  keep(socket(AF_UNIX, SOCK_STREAM, 0));
  keep(epoll_create1(0));
  keep(eventfd(0, 0));
  keep(timerfd_create(CLOCK_MONOTONIC, 0));
  keep(memfd_create("m", MFD_ALLOW_SEALING));
  keep(syscall(SYS_pidfd_open, getpid(), 0));
}

static void tick(int s) { (void)s; }

/* Blocked calls end soon, and our own end by SIGABRT stays one that says something. */
static void calm(void) {
  const uint64_t none = 0;
  const struct itimerval often = {{0, 20000}, {0, 20000}};
  struct sigaction act = {.sa_handler = tick};
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
  sigaction(SIGALRM, &act, NULL);
  signal(SIGABRT, SIG_IGN);
  signal(SIGSYS, SIG_IGN);
  setitimer(ITIMER_REAL, &often, NULL);
}

/* Calls that end or change the process so that few others follow: seldom. */
static int deadly(long nr) {
  switch (nr) {
  case SYS_mmap: case SYS_munmap: case SYS_mremap: case SYS_mprotect: case SYS_brk: case SYS_clone: case SYS_clone3: case SYS_execve: case SYS_execveat: case SYS_rt_sigreturn:
  case SYS_kill: case SYS_tkill: case SYS_tgkill: case SYS_rt_sigqueueinfo: case SYS_rt_tgsigqueueinfo: case SYS_pidfd_send_signal: case SYS_arch_prctl: case SYS_rt_sigaction:
  case SYS_shmdt: case SYS_close_range: case SYS_vfork: case SYS_fork: case SYS_shmat: case SYS_prlimit64: case SYS_setrlimit: return 1;
  }
  return 0;
}

/* Arguments that would reach beyond the fuzz: the supervisor, all memory of the machine. */
static void tame(long nr, uint64_t *a) {
  if (nr == SYS_mmap) {
    a[1] &= 0xffffff;
    a[3] &= ~(uint64_t)MAP_POPULATE;
    if (!one_in(4)) a[3] &= ~(uint64_t)(MAP_FIXED | MAP_FIXED_NOREPLACE);
  }
  if (nr == SYS_mremap) a[2] &= 0xffffff;
  if (nr == SYS_prlimit64) a[0] = 0;
  if (nr == SYS_rt_sigaction && (a[0] == SIGABRT || a[0] == SIGSYS)) a[0] = SIGUSR1;
  if (nr == SYS_clone || nr == SYS_clone3) a[1] = nr == SYS_clone && one_in(2) ? 0 : a[1];
}

/* Paths as they are, the rest as numbers. */
static void tell_call(int to, const struct call *c, const uint64_t *a, int error) {
  char line[1000];
  int n = snprintf(line, sizeof line, "%s(", c->name);
  for (int k = 0; k < c->count; k++) {
    const char *text = NULL;
    for (int p = 0; p < LENGTH(paths) && c->args[k].kind == 'p'; p++) if (a[k] == (uint64_t)paths[p]) text = paths[p];
    if (text) n += snprintf(line + n, sizeof line - n, "%s\"%s\"", k ? ", " : "", !strcmp(text, "a\nb") ? "a\\nb" : text);
    else n += snprintf(line + n, sizeof line - n, "%s%#lx", k ? ", " : "", a[k]);
  }
  n += snprintf(line + n, sizeof line - n, ") %s\n", error ? strerrorname_np(error) : "ok");
  if (write(to, line, n) < 0) _exit(1);
}

static void child(uint64_t seed, int told) {
  state = seed * 0x9e3779b97f4a7c15ull + 1;
  next();
  prepare();
  pid_t self = getpid();
  at->seed = seed;
  for (int n = 0; n < A_CHILD; n++) {
    const struct call *c = &calls[below(LENGTH(calls))];
    uint64_t a[6];
    if (n % 8 == 0) calm();
    if (deadly(c->nr) && !one_in(12)) continue;
    if (told && !c->offered) continue;
    for (int k = 0; k < 6; k++) {
      const struct argument *g = &c->args[k];
      switch (k < c->count ? g->kind : 'i') {
      case 'f': a[k] = descriptor(); break;
      case 'd': a[k] = one_in(2) ? (uint64_t)AT_FDCWD : descriptor(); break;
      case 'p': a[k] = path(); break;
      case 's': a[k] = one_in(8) ? path() : (uint64_t)(one_in(2) ? "user.a" : "trusted.b"); break;
      case 'b': a[k] = address(); if (a[k] - (uint64_t)memory < 7 * BUFFER) fill((char *)a[k], 256); break;
      case 'v': a[k] = vector(); break;
      case 'F': a[k] = flags(); break;
      default: a[k] = one_in(8) ? address() : number();
      }
    }
    for (int k = 0; k < c->count; k++) {
      if (c->args[k].kind == 'b' && c->args[k].len < 6 && !one_in(4)) a[c->args[k].len] = below(BUFFER) / c->args[k].scale;
      if (c->args[k].kind == 'v' && !one_in(4)) a[c->args[k].len] = below(17);
    }
    tame(c->nr, a);
    at->nr = c->nr;
    for (int k = 0; k < 6; k++) at->args[k] = a[k];
    at->made++;
    errno = 0;
    long r = syscall(c->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (told) tell_call(told, c, a, r == -1 ? errno : 0);
    if (getpid() != self) _exit(0);
    if (r > 2 && r < 64 && c->args[0].kind != 'b') keep(r);
  }
  _exit(0);
}

static long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int take_away(const char *path, const struct stat *s, int type, struct FTW *f) {
  (void)s, (void)f;
  if (type == FTW_DP) rmdir(path);
  else unlink(path);
  return 0;
}

static void tell(const char *what, const struct progress *p) {
  const char *name = "?";
  for (int n = 0; n < LENGTH(calls); n++) if (calls[n].nr == p->nr) name = calls[n].name;
  printf("not ok - seed %lu: %s: %s(%#lx, %#lx, %#lx, %#lx, %#lx, %#lx)\n", p->seed, what, name, p->args[0], p->args[1], p->args[2], p->args[3], p->args[4], p->args[5]);
}

/* Each child's calls and their errors, after a line with its seed. */
static int compare(uint64_t first, long count) {
  for (long n = 0; n < count; n++) {
    char dir[64];
    snprintf(dir, sizeof dir, "/work/%ld", n);
    printf("seed %lu\n", first + n);
    fflush(stdout);
    if (mkdir(dir, 0755)) return 1;
    pid_t pid = fork();
    if (pid == 0) {
      if (chdir(dir)) _exit(1);
      setsid();
      child(first + n, fcntl(1, F_DUPFD_CLOEXEC, 900));
    }
    for (long late = now_ms() + 3000; waitpid(pid, NULL, WNOHANG) != pid; usleep(1000))
      if (now_ms() > late) kill(pid, SIGKILL);
    nftw(dir, take_away, 20, FTW_DEPTH | FTW_PHYS);
  }
  return 0;
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (argc < 3) return 2;
  at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  null = open("/dev/null", O_RDWR);
  if (argc == 4) return compare(strtoull(argv[2], NULL, 0), atol(argv[3]));
  if (getpid() != 1) {
    fputs("calls: has to be process 1 of its namespace\n", stderr);
    return 2;
  }
  uint64_t first = strtoull(argv[1], NULL, 0) * 1000000, total = strtoull(argv[2], NULL, 0), made = 0;
  long children = 0, signalled = 0, silent = 0, failed = 0, told = now_ms();
  while (made < total) {
    char dir[64];
    snprintf(dir, sizeof dir, "/work/%ld", children);
    if (mkdir(dir, 0755)) {
      printf("not ok - mkdir %s: %s\n", dir, strerror(errno));
      return 1;
    }
    memset((void *)at, 0, sizeof *at);
    pid_t pid = fork();
    if (pid < 0) {
      printf("not ok - fork: %s\n", strerror(errno));
      return 1;
    }
    if (pid == 0) {
      if (chdir(dir)) _exit(1);
      setsid();
      child(first + children, 0);
    }
    int status = 0, killed = 0;
    uint64_t seen = 0;
    long moved = now_ms();
    for (;;) {
      pid_t got = waitpid(pid, &status, WNOHANG | WUNTRACED);
      if (got == pid && !WIFSTOPPED(status)) break;
      long late = now_ms() - moved;
      if (!killed && at->made != seen) seen = at->made, moved = now_ms();
      else if (!killed && (late > SILENT_MS || got == pid)) {
        kill(pid, SIGKILL);
        killed = 1;
        silent++;
        moved = now_ms();
      } else if (killed && late > UNKILLABLE_MS) {
        tell("SIGKILL does not end it", (const struct progress *)at);
        return 1;
      }
      usleep(200);
    }
    made += at->made < A_CHILD ? at->made : A_CHILD;
    if (WIFSIGNALED(status)) {
      int s = WTERMSIG(status);
      signalled++;
      if (s == SIGABRT || s == SIGSYS) {
        failed++;
        tell(s == SIGABRT ? "SIGABRT" : "SIGSYS", (const struct progress *)at);
      }
    }
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, __WALL) > 0) {}
    nftw(dir, take_away, 20, FTW_DEPTH | FTW_PHYS);
    children++;
    if (now_ms() - told > 10000) {
      printf("# %lu calls in %ld children, %ld ended by signals, %ld silent\n", made, children, signalled, silent);
      told = now_ms();
    }
  }
  printf("done: %lu calls in %ld children, %ld ended by signals, %ld silent, %ld failed\n", made, children, signalled, silent, failed);
  return failed != 0;
}
