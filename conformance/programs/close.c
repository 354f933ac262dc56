/* close, close_range, memfd_create, ioctl: close(2), close_range(2), memfd_create(2), ioctl_list(2). */
#include "check.h"
#include <sys/ioctl.h>
#include <linux/memfd.h>
#include <termios.h>

int main(int argc, char **argv) {
  int fd = file_with("f", "12345", O_RDWR), p[2], m, n = 0;
  char b[16];
  GIVES("close: closed", 0, sys(close, dup(fd)));
  FAILS("close: twice", EBADF, sys(close, 4));
  FAILS("close: negative", EBADF, sys(close, -1));
  for (int n = 20; n < 30; n++) dup2(fd, n);
  FAILS("close_range: first above last", EINVAL, sys(close_range, 29, 20, 0));
  FAILS("close_range: unknown flags", EINVAL, sys(close_range, 20, 29, 8));
  GIVES("close_range: CLOSE_RANGE_CLOEXEC", 0, sys(close_range, 20, 24, 4));
  OK("close_range: marks, does not close", fcntl(22, F_GETFD) == 1 && fcntl(25, F_GETFD) == 0);
  GIVES("close_range: closes", 0, sys(close_range, 20, ~0u, 0));
  FAILS("close_range: all are closed", EBADF, fcntl(29, F_GETFD));
  GIVES("close_range: what is not open is no error", 0, sys(close_range, 100, 200, 0));
  GIVES("close_range: CLOSE_RANGE_UNSHARE", 0, sys(close_range, 100, 200, 2));

  GIVES("memfd_create: made", 4, m = sys(memfd_create, "name", 0));
  GIVES("memfd_create: sealed against sealing", F_SEAL_SEAL, fcntl(m, F_GET_SEALS));
  FAILS("memfd_create: no more seals", EPERM, fcntl(m, F_ADD_SEALS, F_SEAL_WRITE));
  FAILS("memfd_create: a name that is too long", EINVAL, ({ char l[300]; memset(l, 'x', 260); l[260] = 0; sys(memfd_create, l, 0); }));
  GIVES("memfd_create: sealing allowed", 5, m = sys(memfd_create, "s", MFD_ALLOW_SEALING | MFD_CLOEXEC));
  GIVES("memfd_create: close-on-exec", 1, fcntl(m, F_GETFD));
  GIVES("memfd_create: written", 5, write(m, "hello", 5));
  GIVES("memfd_create: F_SEAL_WRITE", 0, fcntl(m, F_ADD_SEALS, F_SEAL_WRITE));
  FAILS("memfd_create: no writes", EPERM, write(m, "x", 1));
  GIVES("memfd_create: F_SEAL_SHRINK", 0, fcntl(m, F_ADD_SEALS, F_SEAL_SHRINK));
  FAILS("memfd_create: no shrinking", EPERM, ftruncate(m, 1));
  GIVES("memfd_create: F_GET_SEALS", F_SEAL_WRITE | F_SEAL_SHRINK, fcntl(m, F_GET_SEALS));
  GIVES("memfd_create: a shared writable mapping is refused", EPERM, ({ errno = 0; mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, m, 0); errno; }));

  pipe(p);
  write(p[1], "123", 3);
  GIVES("ioctl: FIONREAD of a pipe", 3, (ioctl(p[0], FIONREAD, &n), n));
  GIVES("ioctl: FIONREAD of a file", 5, (ioctl(fd, FIONREAD, &n), n));
  FAILS("ioctl: FIONREAD, bad address", EFAULT, ioctl(p[0], FIONREAD, bad_address()));
  n = 1;
  GIVES("ioctl: FIONBIO", 0, ioctl(p[0], FIONBIO, &n));
  GIVES("ioctl: it sets O_NONBLOCK", O_NONBLOCK, fcntl(p[0], F_GETFL) & O_NONBLOCK);
  GIVES("ioctl: FIOCLEX", 0, ioctl(p[0], FIOCLEX));
  GIVES("ioctl: it sets close-on-exec", 1, fcntl(p[0], F_GETFD));
  GIVES("ioctl: FIONCLEX", 0, (ioctl(p[0], FIONCLEX), fcntl(p[0], F_GETFD)));
  int img = open("/data/hello", O_RDONLY), dir = open("/data/dir", O_RDONLY);
  n = 1;
  GIVES("ioctl: FIONBIO of an image file", 0, ioctl(img, FIONBIO, &n));
  GIVES("ioctl: it has O_NONBLOCK", O_NONBLOCK, fcntl(img, F_GETFL) & O_NONBLOCK);
  n = 0;
  GIVES("ioctl: FIONBIO takes it back", 0, (ioctl(img, FIONBIO, &n), fcntl(img, F_GETFL) & O_NONBLOCK));
  GIVES("ioctl: FIONREAD of an image file", 8, (read(img, b, 5), ioctl(img, FIONREAD, &n), n));
  FAILS("ioctl: FIONREAD of an image file, bad address", EFAULT, ioctl(img, FIONREAD, bad_address()));
  GIVES("ioctl: FIONBIO of a directory", 0, ioctl(dir, FIONBIO, &n));
  FAILS("ioctl: FIONREAD of a directory", ENOTTY, ioctl(dir, FIONREAD, &n));
  FAILS("ioctl: closed", EBADF, ioctl(99, FIONREAD, &n));
  FAILS("ioctl: a terminal's request of a file", ENOTTY, ioctl(fd, TCGETS, b));
  FAILS("ioctl: TIOCGWINSZ of a pipe", ENOTTY, ioctl(p[0], TIOCGWINSZ, b));
  FAILS("ioctl: unknown request", ENOTTY, ioctl(fd, 0x12345678, b));
  int master = posix_openpt(O_RDWR | O_NOCTTY), slave;
  struct termios t;
  struct winsize w = {25, 80, 0, 0}, got;
  grantpt(master);
  unlockpt(master);
  OK("ioctl: a terminal", (slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
  GIVES("ioctl: TCGETS", 0, ioctl(slave, TCGETS, &t));
  OK("ioctl: canonical, with echo", t.c_lflag & ICANON && t.c_lflag & ECHO);
  GIVES("ioctl: TIOCSWINSZ", 0, ioctl(master, TIOCSWINSZ, &w));
  GIVES("ioctl: TIOCGWINSZ", 80, (ioctl(slave, TIOCGWINSZ, &got), got.ws_col));
  FAILS("ioctl: TIOCGPGRP of no controlling terminal", ENOTTY, ioctl(slave, TIOCGPGRP, &n));
  GIVES("ioctl: TIOCSCTTY in a new session", 0, IN_CHILD(setsid(); if (ioctl(slave, TIOCSCTTY, 0)) _exit(1); _exit(tcgetpgrp(slave) == getpid() ? 0 : 2)));
  write(master, "abc\n", 4);
  GIVES("ioctl: line discipline", 4, read(slave, b, 16));
  return done();
}
