/*
 * System calls, process cycles and wake-ups: one line "name nanoseconds" each. Without another word it is
 * the least mean of five rounds; p50 and p99 are of single calls. Arguments: a writable directory, and an
 * image's directory with ten entries, the file `file` of 64 KiB and the link `link` among them; then, of what
 * is measured, what has a text in its name.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(x) do { if (!(x)) { fprintf(stderr, "%s: %s\n", #x, strerror(errno)); exit(1); } } while (0)
enum { BLOCK = 4096 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static const char *self, *only = "";
static int zero, upper, image, image_dir, a[2], b[2], ends[2], ep;
static char block[BLOCK], written[200], renamed[220];
static _Atomic int turn;

static void getpid_(int n) { while (n--) syscall(SYS_getpid); }
static void read1(int n) { char c; while (n--) CHECK(read(zero, &c, 1) == 1); }
static void read_upper(int n) { while (n--) CHECK(pread(upper, block, BLOCK, 0) == BLOCK); }
static void write_upper(int n) { while (n--) CHECK(pwrite(upper, block, BLOCK, 0) == BLOCK); }
static void through_pipe(int n) { while (n--) CHECK(write(a[1], block, BLOCK) == BLOCK && read(a[0], block, BLOCK) == BLOCK); }
static void read_image(int n) { while (n--) CHECK(pread(image, block, BLOCK, BLOCK) == BLOCK); }
static void stat_(int n) { struct stat s; while (n--) CHECK(!stat("file", &s)); }
static void open_image(int n) {
  while (n--) {
    int fd = open("file", O_RDONLY);
    CHECK(fd >= 0 && !close(fd));
  }
}
static void readlink_(int n) { char t[64]; while (n--) CHECK(readlink("link", t, sizeof t) > 0); }
static void getdents_(int n) {
  while (n--) {
    CHECK(!lseek(image_dir, 0, SEEK_SET));
    while (syscall(SYS_getdents64, image_dir, block, BLOCK) > 0);
  }
}
static void open_write_close(int n) {
  while (n--) {
    int fd = open(written, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    CHECK(fd >= 0 && write(fd, "x", 1) == 1 && !close(fd));
  }
}
static void create_unlink(int n) {
  while (n--) {
    int fd = open(renamed, O_CREAT | O_EXCL | O_WRONLY, 0644);
    CHECK(fd >= 0 && !close(fd) && !unlink(renamed));
  }
}
static void rename_(int n) { while (n--) CHECK(!rename(written, renamed) && !rename(renamed, written)); }
static void mkdir_rmdir(int n) { while (n--) CHECK(!mkdir(renamed, 0755) && !rmdir(renamed)); }
static void stat_upper(int n) { struct stat s; while (n--) CHECK(!stat(written, &s)); }
static void epoll_loop(int n) {
  struct epoll_event e;
  char c = 0;
  while (n--) CHECK(write(a[1], &c, 1) == 1 && epoll_wait(ep, &e, 1, -1) == 1 && read(a[0], &c, 1) == 1);
}
static void fork_wait(int n) {
  while (n--) {
    pid_t p = fork();
    if (p == 0) _exit(0);
    CHECK(p > 0 && waitpid(p, NULL, 0) == p);
  }
}
static void exec_cycle(int n) {
  while (n--) {
    pid_t p = vfork();
    if (p == 0) {
      execl(self, self, "exit", NULL);
      _exit(127);
    }
    int s;
    CHECK(p > 0 && waitpid(p, &s, 0) == p && !s);
  }
}
static void spawn_cycle(int n) {
  char *args[] = {(char *)self, "exit", NULL};
  while (n--) {
    pid_t p;
    int s;
    CHECK(!posix_spawn(&p, self, NULL, NULL, args, NULL) && waitpid(p, &s, 0) == p && !s);
  }
}
static void pipe_pong(int n) {
  char c = 0;
  while (n--) CHECK(write(a[1], &c, 1) == 1 && read(b[0], &c, 1) == 1);
}
static void socket_pong(int n) {
  char c = 0;
  while (n--) CHECK(send(ends[0], &c, 1, 0) == 1 && recv(ends[0], &c, 1, 0) == 1);
}
static void wait_for(int v) {
  while (turn != v) syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, !v, NULL, NULL, 0);
}
static void give(int v) {
  turn = v;
  syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
static void futex_pong(int n) { while (n--) { give(1); wait_for(0); } }

static void measure(const char *name, void (*f)(int), int n) {
  if (!strstr(name, only)) return;
  double best = 1e18;
  for (int round = 0; round < 5; round++) {
    double t = now();
    f(n);
    t = (now() - t) / n;
    if (t < best) best = t;
  }
  printf("%s %.1f\n", name, best);
  fflush(stdout);
}

static int ascending(const void *x, const void *y) { return (*(double *)x > *(double *)y) - (*(double *)x < *(double *)y); }

/* One call that changes a file's metadata: what a container's daemon answers. */
static void latency(void) {
  if (!strstr("chmod of an upper file", only)) return;
  enum { N = 20000 };
  static double t[N];
  for (int n = 0; n < N; n++) {
    double from = now();
    CHECK(!chmod(written, 0600 + (n & 1)));
    t[n] = now() - from;
  }
  qsort(t, N, sizeof *t, ascending);
  printf("chmod of an upper file, p50 %.1f\nchmod of an upper file, p99 %.1f\n", t[N / 2], t[N * 99 / 100]);
  fflush(stdout);
}

/* Where the two sides of a ping-pong run decides more than what they do: both on one processor, or one on each. */
static void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  CHECK(!sched_setaffinity(0, sizeof set, &set));
}
static int elsewhere;

static void *partner(void *rounds) {
  pin(elsewhere);
  for (long n = (long)rounds; n--;) { wait_for(1); give(0); }
  return NULL;
}
static void on_threads(const char *name) {
  if (!strstr(name, only)) return;
  enum { N = 5000 };
  pthread_t t;
  pthread_create(&t, NULL, partner, (void *)(5L * N));
  measure(name, futex_pong, N);
  pthread_join(t, NULL);
}
static void with_child(const char *name, void (*f)(int), int from, int to) {
  if (!strstr(name, only)) return;
  pid_t p = fork();
  if (p == 0) {
    char c;
    pin(elsewhere);
    if (from == ends[1]) close(ends[0]);
    else close(a[1]);
    while (read(from, &c, 1) == 1) if (write(to, &c, 1) != 1) break;
    _exit(0);
  }
  measure(name, f, 5000);
  kill(p, SIGKILL);
  waitpid(p, NULL, 0);
}
static void tcp_pair(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof at;
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(!bind(listener, (void *)&at, len) && !listen(listener, 1) && !getsockname(listener, (void *)&at, &len));
  ends[0] = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(!connect(ends[0], (void *)&at, len));
  ends[1] = accept(listener, NULL, NULL);
  CHECK(ends[1] >= 0);
  close(listener);
  for (int n = 0; n < 2; n++) setsockopt(ends[n], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}
static void wake_ups(const char *where) {
  char name[64];
#define NAMED(what) (snprintf(name, sizeof name, what ", %s", where), name)
  with_child(NAMED("pipe ping-pong"), pipe_pong, a[0], b[1]);
  CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
  with_child(NAMED("UNIX ping-pong"), socket_pong, ends[1], ends[1]);
  close(ends[0]), close(ends[1]);
  tcp_pair();
  with_child(NAMED("TCP ping-pong"), socket_pong, ends[1], ends[1]);
  close(ends[0]), close(ends[1]);
  on_threads(NAMED("futex ping-pong"));
}

int main(int argc, char **argv) {
  if (argc < 3) return 0;
  self = argv[0];
  if (argc > 3) only = argv[3];
  snprintf(written, sizeof written, "%s/bench-file", argv[1]);
  snprintf(renamed, sizeof renamed, "%s-2", written);
  CHECK(!chdir(argv[2]));
  zero = open("/dev/zero", O_RDONLY);
  upper = open(written, O_CREAT | O_RDWR, 0644);
  image = open("file", O_RDONLY);
  image_dir = open(".", O_RDONLY | O_DIRECTORY);
  ep = epoll_create1(0);
  CHECK(zero >= 0 && upper >= 0 && image >= 0 && image_dir >= 0 && ep >= 0 && !pipe(a) && !pipe(b));
  struct epoll_event e = {.events = EPOLLIN};
  CHECK(!epoll_ctl(ep, EPOLL_CTL_ADD, a[0], &e));
  measure("getpid", getpid_, 200000);
  measure("read of 1 byte", read1, 100000);
  measure("write of 4 KiB to an upper file", write_upper, 20000);
  measure("read of 4 KiB of an upper file", read_upper, 20000);
  measure("write and read of 4 KiB through a pipe", through_pipe, 20000);
  measure("write, epoll_wait, read of 1 byte", epoll_loop, 20000);
  measure("read of 4 KiB of an image file", read_image, 20000);
  measure("stat of an image file", stat_, 20000);
  measure("open+close of an image file", open_image, 20000);
  measure("readlink in the image", readlink_, 20000);
  measure("getdents of an image directory", getdents_, 5000);
  measure("open+write+close of an upper file", open_write_close, 2000);
  measure("stat of an upper file", stat_upper, 2000);
  measure("create+close+unlink", create_unlink, 2000);
  measure("two renames", rename_, 2000);
  measure("mkdir+rmdir", mkdir_rmdir, 2000);
  latency();
  measure("fork+wait", fork_wait, 200);
  measure("vfork+execve+exit+wait", exec_cycle, 100);
  measure("posix_spawn+exit+wait", spawn_cycle, 100);
  pin(0);
  wake_ups("one processor");
  elsewhere = sysconf(_SC_NPROCESSORS_ONLN) > 1;
  if (elsewhere) wake_ups("two processors");
  return 0;
}
