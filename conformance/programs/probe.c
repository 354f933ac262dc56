/*
 * probe VERB [ARG...]: one hostile or unusual thing, and what the kernel said to it. Prints the name
 * of the error, or "done"; exits 0 either way, 2 when it was called wrongly.
 *
 *   mmap-rwx, mmap-rx, mprotect-rx, mprotect-file PATH   executable memory          mmap(2), mprotect(2)
 *   memfd-exec PATH       a copy of PATH in a memfd, by execveat                    execveat(2)
 *   fd-exec PATH          PATH opened, then executed through its descriptor         fexecve(3)
 *   proc-exec PATH        PATH opened, unlinked, then executed as /proc/self/fd/N   proc(5)
 *   execveat PATH FLAGS   execveat(AT_FDCWD, PATH, FLAGS)
 *   race exchange|write N PATH   N executions of PATH while another process swaps it for, or turns
 *                         it into, a program that says "bad"; prints what ran           renameat2(2)
 *   o-path-exec PATH      through an O_PATH descriptor                              open(2)
 *   dlopen PATH           a library that is mapped executable                       dlopen(3)
 *   syscall NR            any number
 *   connect ADDR PORT     TCP; udp ADDR PORT: a datagram                            connect(2), sendto(2)
 *   fill PATH             writes until it fails, prints the error                   write(2) ENOSPC
 *   forkbomb N            N processes, each alive until all are there               fork(2)
 *   pty                   opens a terminal pair, talks through it                   pty(7)
 *   unix PATH             a stream and a datagram through a socket's path           unix(7)
 *   unnamed PATH          size of a file after its last name is gone                unlink(2), fstat(2)
 *   threads N PATH        N threads open and close PATH 200 times each              pthreads(7)
 *   deadlock              a thread waits for a mutex that the first one keeps       futex(2)
 *   signalfd              a signal read from a descriptor                           signalfd(2)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int say(long r) {
  puts(r < 0 ? strerrorname_np(errno) : "done");
  return 0;
}
static int fail(const char *what) {
  printf("%s: %s\n", what, strerrorname_np(errno));
  return 1;
}
static const char SAID[] = "said: ran";
static char *const none[] = {NULL};

static int copy_to(int to, const char *path) {
  char b[65536];
  int from = open(path, O_RDONLY);
  ssize_t n;
  if (from < 0) return -1;
  while ((n = read(from, b, sizeof b)) > 0)
    if (write(to, b, n) != n) return -1;
  close(from);
  return (int)n;
}

static int memory(const char *verb, const char *path) {
  int rw = PROT_READ | PROT_WRITE, rx = PROT_READ | PROT_EXEC, anon = MAP_PRIVATE | MAP_ANONYMOUS;
  void *p;
  if (!strcmp(verb, "mmap-rwx")) return say(mmap(NULL, 4096, rw | PROT_EXEC, anon, -1, 0) == MAP_FAILED ? -1 : 0);
  if (!strcmp(verb, "mmap-rx")) return say(mmap(NULL, 4096, rx, anon, -1, 0) == MAP_FAILED ? -1 : 0);
  if (!strcmp(verb, "mprotect-file")) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) return fail("open");
    p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  } else {
    p = mmap(NULL, 4096, rw, anon, -1, 0);
  }
  if (p == MAP_FAILED) return fail("mmap");
  *(char *)p = (char)0xc3;
  return say(mprotect(p, 4096, rx));
}

static int execute(const char *verb, char *path, const char *flags) {
  char *const argv[] = {path, "ran", NULL};
  char name[64];
  int fd;
  if (!strcmp(verb, "execveat")) return say(syscall(SYS_execveat, AT_FDCWD, path, argv, none, atoi(flags)));
  if (!strcmp(verb, "memfd-exec")) {
    fd = memfd_create("x", 0);
    if (fd < 0 || copy_to(fd, path) < 0) return fail("memfd");
    return say(syscall(SYS_execveat, fd, "", argv, none, AT_EMPTY_PATH));
  }
  fd = open(path, !strcmp(verb, "o-path-exec") ? O_PATH : O_RDONLY);
  if (fd < 0) return fail("open");
  if (strcmp(verb, "proc-exec")) return say(syscall(SYS_execveat, fd, "", argv, none, AT_EMPTY_PATH));
  unlink(path);
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  return say(execve(name, argv, none));
}

/* A copy of `path` whose "ran" says "bad"; returns where in the file. */
static off_t corrupted(const char *path, const char *to) {
  static char b[1 << 20];
  int from = open(path, O_RDONLY), fd = open(to, O_RDWR | O_CREAT | O_TRUNC, 0755);
  ssize_t n = read(from, b, sizeof b);
  /* Split, so that this text is not found itself. */
  char mark[8] = "said: ";
  char *at = n > 0 ? memmem(b, n, strcat(mark, "r"), 7) : NULL;
  close(from);
  if (fd < 0 || !at) return -1;
  memcpy(at + 6, "bad", 3);
  if (write(fd, b, n) != n) return -1;
  close(fd);
  return at + 6 - b;
}

static int race(const char *how, int tries, char *path) {
  char *const argv[] = {path, "ran", NULL};
  int ran = 0, refused = 0, bad = 0, write_in_place = !strcmp(how, "write");
  off_t at = corrupted(path, "/tmp/bad");
  pid_t swapper;
  if (at < 0) return fail("corrupted");
  if ((swapper = fork()) == 0) {
    int fd = open(path, write_in_place ? O_WRONLY : O_RDONLY);
    for (;;) {
      if (!write_in_place) renameat2(AT_FDCWD, path, AT_FDCWD, "/tmp/bad", RENAME_EXCHANGE);
      else if (pwrite(fd, "bad", 3, at) != 3 || usleep(500) || pwrite(fd, "ran", 3, at) != 3) _exit(1);
      usleep(500);
    }
  }
  for (int n = 0; n < tries; n++) {
    int p[2], status;
    char said[16] = "";
    if (pipe(p)) return fail("pipe");
    if (fork() == 0) {
      dup2(p[1], 1);
      execve(path, argv, none);
      _exit(errno == EACCES ? 77 : 78);
    }
    close(p[1]);
    while (read(p[0], said, sizeof said) > 0) {}
    close(p[0]);
    wait(&status);
    ran += !strncmp(said, SAID, sizeof SAID - 1);
    refused += WIFEXITED(status) && WEXITSTATUS(status) == 77;
    bad += strstr(said, "bad") != NULL;
  }
  kill(swapper, SIGKILL);
  printf("%d %d %d\n", ran + refused == tries, ran > 0 && refused > 0, bad);
  return 0;
}

static int network(const char *verb, const char *addr, const char *port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  int udp = !strcmp(verb, "udp"), fd = socket(AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
  char b[64] = "";
  if (fd < 0 || inet_pton(AF_INET, addr, &a.sin_addr) != 1) return fail("socket");
  if (udp) return say(sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof a));
  if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) return say(-1);
  if (write(fd, "ping", 4) != 4 || read(fd, b, sizeof b - 1) < 0) return fail("talk");
  return !puts(b);
}

static int fill(const char *path) {
  static char block[65536];
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (fd < 0) return say(-1);
  for (int n = 0; n < 1 << 14; n++)
    if (write(fd, block, sizeof block) < 0) return say(-1);
  return say(0);
}

static int forkbomb(int count) {
  int p[2];
  char c;
  if (pipe(p)) return fail("pipe");
  for (int n = 0; n < count; n++) {
    pid_t pid = fork();
    if (pid < 0) return say(-1);
    if (pid == 0) {
      close(p[1]);
      _exit(read(p[0], &c, 1) != 0);
    }
  }
  close(p[1]);
  while (wait(NULL) > 0) {}
  return say(0);
}

static int terminal(void) {
  char b[64] = "", name[64];
  int m = posix_openpt(O_RDWR | O_NOCTTY), s;
  if (m < 0 || grantpt(m) || unlockpt(m) || ptsname_r(m, name, sizeof name)) return fail("ptmx");
  if ((s = open(name, O_RDWR | O_NOCTTY)) < 0) return fail(name);
  if (write(s, "out\n", 4) != 4 || read(m, b, sizeof b - 1) < 4 || strcmp(b, "out\r\n")) return fail("talk");
  printf("%s %s\n", name, ttyname(s) ? ttyname(s) : "no name");
  close(m);
  return read(s, b, 1) == 0 ? 0 : fail("hang-up");
}

static int local(const char *path) {
  struct sockaddr_un a = {.sun_family = AF_UNIX}, got;
  socklen_t len = sizeof got;
  char b[16] = "";
  int l = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0), s;
  struct stat st;
  strncpy(a.sun_path, path, sizeof a.sun_path - 1);
  if (bind(l, (struct sockaddr *)&a, sizeof a) < 0) return say(-1);
  if (listen(l, 1) || connect(c, (struct sockaddr *)&a, sizeof a)) return fail("connect");
  if ((s = accept(l, NULL, NULL)) < 0 || write(s, "hello", 5) != 5 || read(c, b, 15) != 5) return fail("talk");
  if (getpeername(c, (struct sockaddr *)&got, &len) || stat(path, &st)) return fail("name");
  printf("%s %s %u %o\n", b, got.sun_path, len, st.st_mode);
  close(l);
  c = socket(AF_UNIX, SOCK_STREAM, 0);
  say(connect(c, (struct sockaddr *)&a, sizeof a));
  say(bind(c, (struct sockaddr *)&a, sizeof a));
  unlink(path);
  return say(connect(c, (struct sockaddr *)&a, sizeof a));
}

static int unnamed(const char *path) {
  struct stat st;
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
  if (fd < 0) return say(-1);
  unlink(path);
  if (write(fd, "hello", 5) != 5 || fstat(fd, &st)) return fail("fstat");
  printf("%ld %lu\n", (long)st.st_size, (unsigned long)st.st_nlink);
  return 0;
}

static int signals(void) {
  struct signalfd_siginfo i;
  sigset_t set;
  int fd;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, NULL);
  if ((fd = signalfd(-1, &set, SFD_CLOEXEC)) < 0) return say(-1);
  kill(getpid(), SIGUSR1);
  if (read(fd, &i, sizeof i) != sizeof i) return fail("read");
  printf("%u %d\n", i.ssi_signo, i.ssi_pid == (unsigned)getpid());
  return 0;
}

static void *open_often(void *path) {
  for (int n = 0; n < 200; n++) {
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0) return path;
    close(fd);
  }
  return NULL;
}

static int threads(int count, char *path) {
  pthread_t t[256];
  void *failed;
  int bad = 0;
  for (int n = 0; n < count && n < 256; n++) pthread_create(&t[n], NULL, open_often, path);
  for (int n = 0; n < count && n < 256; n++) {
    pthread_join(t[n], &failed);
    bad += failed != NULL;
  }
  printf("%d failed\n", bad);
  return 0;
}

static void *lock(void *mutex) {
  pthread_mutex_lock(mutex);
  return NULL;
}

static int deadlock(void) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_t t;
  pthread_mutex_lock(&mutex);
  pthread_create(&t, NULL, lock, &mutex);
  return pthread_join(t, NULL);
}

int main(int argc, char **argv) {
  const char *v = argc > 1 ? argv[1] : "";
  if (!strcmp(v, "ran")) return !puts(SAID);
  if (!strncmp(v, "mmap", 4) || !strncmp(v, "mprotect", 8)) return memory(v, argc > 2 ? argv[2] : "");
  if (!strcmp(v, "pty")) return terminal();
  if (!strcmp(v, "signalfd")) return signals();
  if (!strcmp(v, "deadlock")) return deadlock();
  if (argc < 3) return 2;
  if (strstr(v, "exec")) return execute(v, argv[2], argc > 3 ? argv[3] : "0");
  if (!strcmp(v, "dlopen")) return !puts(dlopen(argv[2], RTLD_NOW) ? "done" : dlerror());
  if (!strcmp(v, "syscall")) return say(syscall(atol(argv[2]), 0, 0, 0, 0, 0, 0));
  if (!strcmp(v, "fill")) return fill(argv[2]);
  if (!strcmp(v, "forkbomb")) return forkbomb(atoi(argv[2]));
  if (!strcmp(v, "unix")) return local(argv[2]);
  if (!strcmp(v, "unnamed")) return unnamed(argv[2]);
  if (!strcmp(v, "race") && argc > 4) return race(argv[2], atoi(argv[3]), argv[4]);
  if (!strcmp(v, "threads") && argc > 3) return threads(atoi(argv[2]), argv[3]);
  if (argc > 3) return network(v, argv[2], argv[3]);
  return 2;
}
