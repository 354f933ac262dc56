/* eventfd, eventfd2: eventfd(2). */
#include "check.h"

int main(int argc, char **argv) {
  int fd;
  uint64_t v = 0;
  FAILS("eventfd2: unknown flags", EINVAL, sys(eventfd2, 0, 4));
  GIVES("eventfd2: made", 3, fd = sys(eventfd2, 3, O_NONBLOCK | O_CLOEXEC));
  GIVES("eventfd2: close-on-exec", 1, fcntl(fd, F_GETFD));
  FAILS("eventfd2: short buffers", EINVAL, read(fd, &v, 7));
  GIVES("eventfd2: reads the count", 8, read(fd, &v, 8));
  GIVES("eventfd2: the initial value", 3, v);
  FAILS("eventfd2: zero blocks", EAGAIN, read(fd, &v, 8));
  v = -1;
  FAILS("eventfd2: the largest value is no value", EINVAL, write(fd, &v, 8));
  v = -2;
  GIVES("eventfd2: the largest sum", 8, write(fd, &v, 8));
  v = 1;
  FAILS("eventfd2: more blocks", EAGAIN, write(fd, &v, 8));
  struct pollfd p = {fd, POLLIN | POLLOUT, 0};
  GIVES("eventfd2: readable, not writable", POLLIN, (poll(&p, 1, 0), p.revents));
  FAILS("eventfd2: no offset", ESPIPE, pread(fd, &v, 8, 0));
  GIVES("eventfd2: a semaphore", 4, fd = sys(eventfd2, 2, 1));
  GIVES("eventfd2: gives one at a time", 1, (read(fd, &v, 8), v));
  GIVES("eventfd: made", 5, sys(eventfd, 7));
  GIVES("eventfd: has no flags", O_RDWR, fcntl(5, F_GETFL));
  return done();
}
