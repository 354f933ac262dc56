/* dup, dup2, dup3: dup(2), ERRORS. The order of checks: fs/file.c ksys_dup3. */
#include "check.h"

int main(int argc, char **argv) {
  int fd = open("f", O_RDWR | O_CREAT, 0644), n;
  struct rlimit r;
  getrlimit(RLIMIT_NOFILE, &r);
  FAILS("dup: a closed descriptor", EBADF, sys(dup, 50));
  FAILS("dup: a negative descriptor", EBADF, sys(dup, -1));
  GIVES("dup: the lowest free number", fd + 1, n = sys(dup, fd));
  GIVES("dup: close-on-exec is off", 0, fcntl(n, F_GETFD));
  write(fd, "abc", 3);
  GIVES("dup: the offset is shared", 3, lseek(n, 0, SEEK_CUR));
  FAILS("dup2: a closed oldfd", EBADF, sys(dup2, 50, 20));
  FAILS("dup2: a closed oldfd equal to newfd", EBADF, sys(dup2, 50, 50));
  FAILS("dup2: newfd negative", EBADF, sys(dup2, fd, -1));
  FAILS("dup2: newfd at the limit", EBADF, sys(dup2, fd, (int)r.rlim_cur));
  GIVES("dup2: equal descriptors do nothing", fd, sys(dup2, fd, fd));
  GIVES("dup2: onto an open one", n, sys(dup2, fd, n));
  FAILS("dup3: flags checked before oldfd", EINVAL, sys(dup3, 50, 50, 1));
  FAILS("dup3: equal descriptors", EINVAL, sys(dup3, fd, fd, 0));
  FAILS("dup3: equal descriptors, before oldfd is looked at", EINVAL, sys(dup3, 50, 50, 0));
  FAILS("dup3: closed oldfd", EBADF, sys(dup3, 50, 20, 0));
  GIVES("dup3: closed newfd is not an error", 20, sys(dup3, fd, 20, O_CLOEXEC));
  GIVES("dup3: O_CLOEXEC", FD_CLOEXEC, fcntl(20, F_GETFD));
  FAILS("dup3: other flags", EINVAL, sys(dup3, fd, 21, O_NONBLOCK));
  return done();
}
