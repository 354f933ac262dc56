/* fcntl: fcntl(2): duplication, flags, record locks, open file description locks, leases, seals. */
#include "check.h"

static int lock(int fd, int cmd, int type, long start, long len) {
  struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
  return fcntl(fd, cmd, &l);
}
static int who(int fd, int cmd, int type, pid_t *pid) {
  struct flock l = {.l_type = type, .l_whence = SEEK_SET};
  int r = fcntl(fd, cmd, &l);
  *pid = l.l_pid;
  return r < 0 ? r : l.l_type;
}

int main(int argc, char **argv) {
  int fd = file_with("f", "0123456789", O_RDWR), ro = open("f", O_RDONLY), img = open("/data/hello", O_RDONLY), dir = open("/data", O_RDONLY), p[2];
  pid_t pid, me = getpid();
  pipe(p);
  FAILS("fcntl: closed descriptor", EBADF, fcntl(77, F_GETFD));
  FAILS("fcntl: unknown command", EINVAL, fcntl(fd, 9999));
  GIVES("fcntl: F_DUPFD at least", 30, fcntl(fd, F_DUPFD, 30));
  GIVES("fcntl: F_DUPFD_CLOEXEC", 31, fcntl(fd, F_DUPFD_CLOEXEC, 30));
  GIVES("fcntl: it has the flag", FD_CLOEXEC, fcntl(31, F_GETFD));
  FAILS("fcntl: F_DUPFD negative", EINVAL, fcntl(fd, F_DUPFD, -1));
  FAILS("fcntl: F_DUPFD above the limit", EINVAL, fcntl(fd, F_DUPFD, 1 << 20));
  GIVES("fcntl: F_SETFD", 0, fcntl(fd, F_SETFD, FD_CLOEXEC));
  GIVES("fcntl: F_GETFD", 1, fcntl(fd, F_GETFD));
  GIVES("fcntl: F_SETFL", 0, fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK | O_RDONLY));
  GIVES("fcntl: the access mode stays", O_RDWR | O_APPEND | O_NONBLOCK | 0100000, fcntl(fd, F_GETFL));
  GIVES("fcntl: image F_GETFL", 0100000, fcntl(img, F_GETFL));
  GIVES("fcntl: image F_SETFL", 0, fcntl(img, F_SETFL, O_NONBLOCK));
  GIVES("fcntl: image keeps it", O_NONBLOCK | 0100000, fcntl(img, F_GETFL));
  GIVES("fcntl: directory F_GETFL", 0100000, fcntl(dir, F_GETFL));
  GIVES("fcntl: F_SETPIPE_SZ rounds up", 131072, fcntl(p[0], F_SETPIPE_SZ, 100000));
  FAILS("fcntl: F_GETPIPE_SZ of a file", EBADF, fcntl(fd, F_GETPIPE_SZ));
  GIVES("fcntl: F_SETPIPE_SZ of zero is a page", PAGE, fcntl(p[0], F_SETPIPE_SZ, 0));
  GIVES("fcntl: F_SETOWN", 0, fcntl(p[0], F_SETOWN, me));
  GIVES("fcntl: F_GETOWN", me, fcntl(p[0], F_GETOWN));
  struct f_owner_ex own = {F_OWNER_PID, me};
  GIVES("fcntl: F_SETOWN_EX", 0, fcntl(p[0], F_SETOWN_EX, &own));
  own.pid = 0;
  GIVES("fcntl: F_GETOWN_EX", me, (fcntl(p[0], F_GETOWN_EX, &own), own.pid));
  GIVES("fcntl: F_SETSIG", 0, fcntl(p[0], F_SETSIG, SIGUSR1));
  GIVES("fcntl: F_GETSIG", SIGUSR1, fcntl(p[0], F_GETSIG));
  FAILS("fcntl: F_SETSIG of no signal", EINVAL, fcntl(p[0], F_SETSIG, 65));
  GIVES("fcntl: F_SETLK", 0, lock(fd, F_SETLK, F_WRLCK, 0, 5));
  FAILS("fcntl: F_SETLK, bad address", EFAULT, fcntl(fd, F_SETLK, bad_address()));
  FAILS("fcntl: F_SETLK, bad type", EINVAL, lock(fd, F_SETLK, 9, 0, 5));
  FAILS("fcntl: a write lock needs a writable file", EBADF, lock(ro, F_SETLK, F_WRLCK, 6, 1));
  FAILS("fcntl: a lock before the start", EINVAL, lock(fd, F_SETLK, F_WRLCK, -1, 5));
  GIVES("fcntl: a child's lock conflicts", EAGAIN, IN_CHILD(_exit(lock(fd, F_SETLK, F_WRLCK, 0, 1) < 0 ? errno : 0)));
  GIVES("fcntl: F_GETLK names the holder", 1, IN_CHILD(pid_t h; _exit(who(fd, F_GETLK, F_RDLCK, &h) == F_WRLCK && h == me)));
  GIVES("fcntl: another range is free", 0, IN_CHILD(_exit(lock(fd, F_SETLK, F_WRLCK, 5, 1) < 0 ? errno : 0)));
  GIVES("fcntl: one's own locks do not conflict", F_UNLCK, who(fd, F_GETLK, F_WRLCK, &pid));
  GIVES("fcntl: F_SETLKW waits", 0, ({
    pid_t c = fork();
    if (c == 0) _exit(lock(fd, F_SETLKW, F_WRLCK, 0, 1) < 0 ? errno : 0);
    pause_ms(20);
    lock(fd, F_SETLK, F_UNLCK, 0, 0);
    reap(c);
  }));
  lock(fd, F_SETLK, F_WRLCK, 0, 0);
  close(dup(fd));
  GIVES("fcntl: closing any descriptor releases", 0, IN_CHILD(_exit(lock(fd, F_SETLK, F_WRLCK, 0, 1) < 0 ? errno : 0)));
  GIVES("fcntl: F_OFD_SETLK", 0, lock(fd, F_OFD_SETLK, F_WRLCK, 0, 0));
  int other = open("f", O_RDWR);
  FAILS("fcntl: another description conflicts", EAGAIN, lock(other, F_OFD_SETLK, F_WRLCK, 0, 0));
  GIVES("fcntl: F_OFD_GETLK names none", -1, (who(other, F_OFD_GETLK, F_WRLCK, &pid), pid));
  GIVES("fcntl: a child has the description", 0, IN_CHILD(_exit(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 1) < 0 ? errno : 0)));
  FAILS("fcntl: F_OFD_SETLK wants l_pid 0", EINVAL, ({ struct flock l = {.l_type = F_WRLCK, .l_pid = 1}; fcntl(fd, F_OFD_SETLK, &l); }));
  GIVES("fcntl: image F_SETLK for reading", 0, lock(img, F_SETLK, F_RDLCK, 0, 0));
  FAILS("fcntl: image F_SETLK for writing", EBADF, lock(img, F_SETLK, F_WRLCK, 0, 0));
  GIVES("fcntl: F_GETLEASE", F_UNLCK, fcntl(ro, F_GETLEASE));
  FAILS("fcntl: F_SETLEASE of a pipe", EINVAL, fcntl(p[0], F_SETLEASE, F_RDLCK));
  FAILS("fcntl: seals of a file without", EINVAL, fcntl(fd, F_GET_SEALS));
  GIVES("fcntl: F_NOTIFY of nothing takes back", 0, fcntl(dir, F_NOTIFY, DN_MULTISHOT));
  FAILS("fcntl: F_NOTIFY of a file", ENOTDIR, fcntl(fd, F_NOTIFY, DN_CREATE));
  return done();
}
