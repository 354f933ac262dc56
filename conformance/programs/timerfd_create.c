/* timerfd_create, timerfd_settime, timerfd_gettime: timerfd_create(2). */
#include "check.h"

int main(int argc, char **argv) {
  struct itimerspec t = {0}, old;
  uint64_t n = 0;
  int fd;
  FAILS("timerfd_create: unknown clock", EINVAL, sys(timerfd_create, 99, 0));
  FAILS("timerfd_create: a process's clock", EINVAL, sys(timerfd_create, CLOCK_PROCESS_CPUTIME_ID, 0));
  FAILS("timerfd_create: unknown flags", EINVAL, sys(timerfd_create, CLOCK_MONOTONIC, 1));
  FAILS("timerfd_create: an alarm clock needs a privilege", EPERM, sys(timerfd_create, CLOCK_BOOTTIME_ALARM, 0));
  GIVES("timerfd_create: made", 3, fd = sys(timerfd_create, CLOCK_MONOTONIC, O_NONBLOCK | O_CLOEXEC));
  FAILS("timerfd_create: nothing to read", EAGAIN, read(fd, &n, 8));
  FAILS("timerfd_settime: unknown flags", EINVAL, sys(timerfd_settime, fd, 8, &t, NULL));
  t.it_value.tv_nsec = 1000000000;
  FAILS("timerfd_settime: too many nanoseconds", EINVAL, sys(timerfd_settime, fd, 0, &t, NULL));
  t.it_value.tv_nsec = 1000000;
  t.it_interval.tv_nsec = 1000000;
  FAILS("timerfd_settime: not a timer", EINVAL, sys(timerfd_settime, 0, 0, &t, NULL));
  GIVES("timerfd_settime: armed", 0, sys(timerfd_settime, fd, 0, &t, &old));
  GIVES("timerfd_settime: it was not", 0, old.it_value.tv_sec + old.it_value.tv_nsec);
  pause_ms(15);
  GIVES("timerfd_settime: read after expiry", 8, read(fd, &n, 8));
  OK("timerfd_settime: counts expirations", n >= 5 && n < 1000);
  FAILS("timerfd_settime: short buffer", EINVAL, read(fd, &n, 4));
  GIVES("timerfd_gettime: the interval", 1000000, (sys(timerfd_gettime, fd, &old), old.it_interval.tv_nsec));
  FAILS("timerfd_gettime: not a timer", EINVAL, sys(timerfd_gettime, 0, &old));
  clock_gettime(CLOCK_MONOTONIC, &t.it_value);
  t.it_interval.tv_nsec = 0;
  GIVES("timerfd_settime: an absolute time that is past", 0, sys(timerfd_settime, fd, 1, &t, NULL));
  pause_ms(2);
  GIVES("timerfd_settime: expires at once", 1, (read(fd, &n, 8), n));
  return done();
}
