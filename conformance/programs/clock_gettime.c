/* Clocks and timers: clock_gettime(2), clock_nanosleep(2), timer_create(2), setitimer(2), alarm(2), adjtimex(2), times(2). */
#include "check.h"
#include <sys/timex.h>
#include <sys/times.h>

static volatile int handled, value;
static void handler(int s) { handled++; }
static void detailed(int s, siginfo_t *i, void *c) { handled++; value = i->si_value.sival_int; }
static long ns(struct timespec t) { return t.tv_sec * 1000000000L + t.tv_nsec; }

int main(int argc, char **argv) {
  struct timespec t, u, rem, bad = {0, 1000000000}, neg = {-1, 0};
  struct itimerval it = {{0, 0}, {0, 10000}}, iold;
  struct itimerspec ts = {{0, 0}, {0, 5000000}}, told;
  int id = -1;
  const int clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_TAI};
  int fine = 0;
  for (int n = 0; n < LENGTH(clocks); n++) fine += sys(clock_gettime, clocks[n], &t) == 0 && t.tv_nsec < 1000000000;
  GIVES("clock_gettime: every clock", LENGTH(clocks), fine);
  FAILS("clock_gettime: unknown clock", EINVAL, sys(clock_gettime, 77, &t));
  FAILS("clock_gettime: bad address", EFAULT, sys(clock_gettime, 0, bad_address()));
  sys(clock_gettime, CLOCK_MONOTONIC, &t);
  sys(clock_gettime, CLOCK_MONOTONIC, &u);
  OK("clock_gettime: does not go back", ns(u) >= ns(t));
  clockid_t own;
  GIVES("clock_gettime: a process's clock", 0, ({ clock_getcpuclockid(getpid(), &own); sys(clock_gettime, own, &t); }));
  GIVES("clock_getres: one nanosecond", 1, (sys(clock_getres, CLOCK_MONOTONIC, &t), t.tv_nsec));
  FAILS("clock_getres: unknown clock", EINVAL, sys(clock_getres, 77, &t));
  GIVES("clock_getres: no place is no error", 0, sys(clock_getres, 0, NULL));
  struct timeval tv;
  GIVES("gettimeofday: with a zone", 0, ({ struct timezone z; sys(gettimeofday, &tv, &z); }));
  GIVES("gettimeofday: nothing", 0, sys(gettimeofday, NULL, NULL));
  OK("time: agrees", ({ long r, m; r = sys(time, &m); r == m && r - tv.tv_sec < 2; }));

  sys(clock_gettime, CLOCK_MONOTONIC, &t);
  u = (struct timespec){0, 8000000};
  GIVES("nanosleep: slept", 0, sys(nanosleep, &u, NULL));
  sys(clock_gettime, CLOCK_MONOTONIC, &rem);
  OK("nanosleep: long enough", ns(rem) - ns(t) >= 8000000);
  FAILS("nanosleep: too many nanoseconds", EINVAL, sys(nanosleep, &bad, NULL));
  FAILS("nanosleep: negative", EINVAL, sys(nanosleep, &neg, NULL));
  FAILS("nanosleep: bad address", EFAULT, sys(nanosleep, bad_address(), NULL));
  signal(SIGALRM, handler);
  setitimer(ITIMER_REAL, &it, NULL);
  u = (struct timespec){5, 0};
  FAILS("nanosleep: interrupted", EINTR, sys(nanosleep, &u, &rem));
  OK("nanosleep: says what is left", rem.tv_sec == 4);
  sys(clock_gettime, CLOCK_MONOTONIC, &t);
  t.tv_nsec += 5000000;
  if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
  GIVES("clock_nanosleep: absolute", 0, sys(clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL));
  GIVES("clock_nanosleep: past", 0, sys(clock_nanosleep, CLOCK_REALTIME, TIMER_ABSTIME, &t, NULL));
  FAILS("clock_nanosleep: unknown clock", EINVAL, sys(clock_nanosleep, 77, 0, &t, NULL));
  FAILS("clock_nanosleep: one's own thread's time", EOPNOTSUPP, sys(clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &t, NULL));

  it.it_value.tv_usec = 500000;
  GIVES("setitimer: set", 0, sys(setitimer, ITIMER_REAL, &it, &iold));
  GIVES("getitimer: runs", 0, sys(getitimer, ITIMER_REAL, &iold));
  OK("getitimer: what is left", iold.it_value.tv_usec > 0 && iold.it_value.tv_usec <= 500000);
  FAILS("setitimer: no timer", EINVAL, sys(setitimer, 3, &it, NULL));
  FAILS("getitimer: no timer", EINVAL, sys(getitimer, 3, &iold));
  FAILS("setitimer: too many microseconds", EINVAL, ({ struct itimerval x = {{0, 0}, {0, 1000000}}; sys(setitimer, 0, &x, NULL); }));
  GIVES("alarm: replaces and tells", 1, sys(alarm, 100));
  GIVES("alarm: seconds left", 100, sys(alarm, 0));
  handled = 0;
  signal(SIGVTALRM, handler);
  it.it_value.tv_usec = 5000;
  setitimer(ITIMER_VIRTUAL, &it, NULL);
  for (long n = 0; !handled && n < 4000000000; n++) {}
  GIVES("setitimer: ITIMER_VIRTUAL", 1, handled);

  struct sigaction a = {.sa_sigaction = detailed, .sa_flags = SA_SIGINFO};
  struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 99};
  sigaction(SIGUSR1, &a, NULL);
  FAILS("timer_create: unknown clock", EINVAL, sys(timer_create, 77, &ev, &id));
  FAILS("timer_create: no signal", EINVAL, ({ struct sigevent x = ev; x.sigev_signo = 99; sys(timer_create, CLOCK_MONOTONIC, &x, &id); }));
  FAILS("timer_create: bad address", EFAULT, sys(timer_create, CLOCK_MONOTONIC, bad_address(), &id));
  GIVES("timer_create: made", 0, sys(timer_create, CLOCK_MONOTONIC, &ev, &id));
  handled = 0;
  GIVES("timer_settime: armed", 0, sys(timer_settime, id, 0, &ts, &told));
  pause_ms(20);
  OK("timer_settime: the signal, with its value", handled == 1 && value == 99);
  FAILS("timer_settime: no timer", EINVAL, sys(timer_settime, 999, 0, &ts, NULL));
  FAILS("timer_settime: too many nanoseconds", EINVAL, ({ struct itimerspec x = {{0, 0}, {0, 1000000000}}; sys(timer_settime, id, 0, &x, NULL); }));
  sigset_t s;
  sigemptyset(&s);
  sigaddset(&s, SIGUSR1);
  sigprocmask(SIG_BLOCK, &s, NULL);
  ts = (struct itimerspec){{0, 1000000}, {0, 1000000}};
  sys(timer_settime, id, 0, &ts, NULL);
  pause_ms(15);
  sys(timer_gettime, id, &told);
  GIVES("timer_gettime: the interval", 1000000, told.it_interval.tv_nsec);
  FAILS("timer_gettime: no timer", EINVAL, sys(timer_gettime, 999, &told));
  // Taken while blocked: the next one would begin a new count.
  sigtimedwait(&s, NULL, &(struct timespec){1, 0});
  OK("timer_getoverrun: counts", sys(timer_getoverrun, id) > 3);
  FAILS("timer_getoverrun: no timer", EINVAL, sys(timer_getoverrun, 999));
  GIVES("timer_delete: gone", 0, sys(timer_delete, id));
  sigprocmask(SIG_UNBLOCK, &s, NULL);
  FAILS("timer_delete: twice", EINVAL, sys(timer_delete, id));
  struct timex x = {0};
  OK("adjtimex: reads", sys(adjtimex, &x) >= 0 && x.tick > 0);
  x.modes = ADJ_TICK;
  FAILS("adjtimex: setting needs a privilege", EPERM, sys(adjtimex, &x));
  x.modes = 0;
  OK("clock_adjtime: reads", sys(clock_adjtime, CLOCK_REALTIME, &x) >= 0);
  FAILS("clock_settime: needs a privilege", EPERM, sys(clock_settime, CLOCK_REALTIME, &t));
  FAILS("settimeofday: needs a privilege", EPERM, sys(settimeofday, &tv, NULL));
  struct tms m;
  OK("times: ticks", sys(times, &m) > 0);
  FAILS("times: bad address", EFAULT, sys(times, bad_address()));
  return done();
}
