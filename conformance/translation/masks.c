/* Handlers that leave by longjmp: what becomes of masks, of handlers below, of the alternate stack, of the rounding mode. */
#include <fenv.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static sigjmp_buf saved, plain;
static int blocked(int s) {
  sigset_t m;
  sigprocmask(SIG_SETMASK, NULL, &m);
  return sigismember(&m, s);
}
static void to_saved(int s) { siglongjmp(saved, s); }
static void to_plain(int s) { siglongjmp(plain, s); }

static int nested;
static void nests(int s) {
  nested++;
  if (s == SIGUSR1) raise(SIGUSR2);
  if (s == SIGUSR2) raise(SIGHUP);
  if (s == SIGHUP) siglongjmp(saved, 100 + nested);
}

static volatile double weight = 3;
static volatile long turns;
static void ticks(int s) {
  struct itimerval off = { { 0, 0 }, { 0, 0 } };
  (void)s;
  if (++turns < 5) return;
  setitimer(ITIMER_REAL, &off, NULL);
  siglongjmp(saved, 55);
}

static void divides(int s, siginfo_t *i, void *c) {
  (void)c;
  siglongjmp(saved, s == SIGFPE && i->si_code == FPE_INTDIV ? 77 : 78);
}

int main(void) {
  struct sigaction a = { .sa_handler = to_saved };
  sigaction(SIGUSR1, &a, NULL);
  a.sa_handler = to_plain;
  sigaction(SIGUSR2, &a, NULL);
  for (int n = 0; n < 3; n++) {
    int r = sigsetjmp(saved, 1);
    if (r == 0) raise(SIGUSR1);
    printf("mask saved: %d blocked %d\n", r, blocked(SIGUSR1));
  }
  int r = sigsetjmp(plain, 0);
  if (r == 0) raise(SIGUSR2);
  printf("mask not saved: %d blocked %d\n", r, blocked(SIGUSR2));
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);

  a.sa_handler = nests;
  sigaction(SIGUSR1, &a, NULL), sigaction(SIGUSR2, &a, NULL), sigaction(SIGHUP, &a, NULL);
  for (int n = 0; n < 100; n++) {
    r = sigsetjmp(saved, 1);
    if (r == 0) raise(SIGUSR1);
  }
  printf("over three handlers: %d, %d %d %d\n", r, blocked(SIGUSR1), blocked(SIGUSR2), blocked(SIGHUP));

  stack_t own = { .ss_sp = malloc(1 << 16), .ss_size = 1 << 16 }, now;
  sigaltstack(&own, NULL);
  a.sa_handler = to_saved, a.sa_flags = SA_ONSTACK;
  sigaction(SIGUSR1, &a, NULL);
  for (int n = 0; n < 3; n++) {
    if (sigsetjmp(saved, 1) == 0) raise(SIGUSR1);
    sigaltstack(NULL, &now);
    printf("off the alternate stack: %d\n", now.ss_flags);
  }

  /* Out of a loop without a call, by a timer. */
  a.sa_handler = ticks, a.sa_flags = 0;
  sigaction(SIGALRM, &a, NULL);
  struct itimerval every = { { 0, 2000 }, { 0, 2000 } };
  r = sigsetjmp(saved, 1);
  if (r == 0) {
    setitimer(ITIMER_REAL, &every, NULL);
    for (volatile unsigned long n = 1;; n++) weight = weight * 1.0000001 + (double)n;
  }
  printf("out of a loop: %d, turns %ld\n", r, turns);

  /* A fault's handler that leaves; registers that setjmp keeps are those of its caller. */
  struct sigaction f = { .sa_sigaction = divides, .sa_flags = SA_SIGINFO };
  sigaction(SIGFPE, &f, NULL);
  volatile int zero = 0, kept = 41;
  for (int n = 0; n < 3; n++) {
    r = sigsetjmp(saved, 1);
    if (r == 0) kept = 100 / zero;
    printf("division: %d kept %d blocked %d\n", r, kept, blocked(SIGFPE));
  }

  fesetround(FE_UPWARD);
  a.sa_handler = to_saved;
  sigaction(SIGUSR1, &a, NULL);
  volatile double one = 1, three = 3;
  if (sigsetjmp(saved, 1) == 0) { fesetround(FE_DOWNWARD); raise(SIGUSR1); }
  printf("rounding: %d %.20f\n", fegetround(), one / three);
  printf("long double: %.30Lf\n", (long double)1 / (long double)three);
  return 0;
}
