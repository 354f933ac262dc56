/* rt_sigaction, rt_sigprocmask, rt_sigpending, rt_sigsuspend, sigaltstack, rt_sigreturn: signal(7), sigaction(2), sigaltstack(2). */
#include "check.h"
#include <ucontext.h>

static volatile int count, order[8], on_stack, info_pid, info_value, nested;
static char *alt;

static volatile int depth, deepest, nested_count, wanted;
static void nests(int s) {
  if (++depth > deepest) deepest = depth;
  if (++nested_count < wanted) raise(s);
  depth--;
}
static void counts(int s) { order[count++ & 7] = s; }
static void detailed(int s, siginfo_t *i, void *c) {
  count++;
  info_pid = i->si_pid;
  info_value = i->si_value.sival_int;
}
static void where(int s) {
  char here;
  on_stack = &here > alt && &here < alt + 16384;
  stack_t st;
  sigaltstack(NULL, &st);
  nested = st.ss_flags;
}
static void changes(int s, siginfo_t *i, void *c) { ((ucontext_t *)c)->uc_mcontext.gregs[REG_RAX] = 4711; }
static void again(int s) {
  if (count++ == 0) raise(s);
}

static int set(int sig, void *handler, int flags) {
  struct sigaction a = {.sa_handler = handler, .sa_flags = flags};
  return sigaction(sig, &a, NULL);
}

int main(int argc, char **argv) {
  struct sigaction a = {.sa_handler = counts}, old;
  sigset_t s, was;
  uint64_t raw[4] = {0}, mask = 0;
  int p[2];
  char b;
  FAILS("rt_sigaction: size of the set", EINVAL, sys(rt_sigaction, SIGUSR1, NULL, raw, 16));
  FAILS("rt_sigaction: no signal", EINVAL, sys(rt_sigaction, 65, NULL, raw, 8));
  FAILS("rt_sigaction: signal 0", EINVAL, sys(rt_sigaction, 0, NULL, raw, 8));
  FAILS("rt_sigaction: SIGKILL", EINVAL, sys(rt_sigaction, SIGKILL, raw, NULL, 8));
  GIVES("rt_sigaction: SIGKILL may be asked", 0, sys(rt_sigaction, SIGKILL, NULL, raw, 8));
  FAILS("rt_sigaction: bad address", EFAULT, sys(rt_sigaction, SIGUSR1, bad_address(), NULL, 8));
  FAILS("rt_sigaction: bad address of the old", EFAULT, sys(rt_sigaction, SIGUSR1, NULL, bad_address(), 8));
  GIVES("rt_sigaction: set", 0, sigaction(SIGUSR1, &a, NULL));
  raise(SIGUSR1);
  GIVES("rt_sigaction: handled", 1, count);
  sigaction(SIGUSR1, NULL, &old);
  OK("rt_sigaction: tells the old", old.sa_handler == counts);
  set(SIGUSR1, counts, SA_RESETHAND);
  raise(SIGUSR1);
  sigaction(SIGUSR1, NULL, &old);
  OK("rt_sigaction: SA_RESETHAND", old.sa_handler == SIG_DFL && count == 2);
  for (int n = 1; n <= 64; n++) if (n != SIGKILL && n != SIGSTOP && n != 32 && n != 33 && set(n, counts, 0)) order[0] = -n;
  count = 0;
  for (int n = 1; n <= 64; n++) if (n != SIGKILL && n != SIGSTOP && n != 32 && n != 33) raise(n);
  GIVES("rt_sigaction: every signal", 60, count);
  count = 0;
  set(SIGUSR1, again, SA_NODEFER);
  raise(SIGUSR1);
  GIVES("rt_sigaction: SA_NODEFER nests", 2, count);
  struct sigaction d = {.sa_sigaction = detailed, .sa_flags = SA_SIGINFO};
  sigaction(SIGUSR1, &d, NULL);
  sigqueue(getpid(), SIGUSR1, (union sigval){42});
  OK("rt_sigaction: SA_SIGINFO", info_pid == getpid() && info_value == 42);
  struct sigaction m = {.sa_sigaction = changes, .sa_flags = SA_SIGINFO};
  sigaction(SIGUSR1, &m, NULL);
  GIVES("rt_sigreturn: takes the changed context", 4711, sys(tgkill, getpid(), gettid(), SIGUSR1));

  FAILS("rt_sigprocmask: size of the set", EINVAL, sys(rt_sigprocmask, SIG_BLOCK, raw, NULL, 4));
  FAILS("rt_sigprocmask: how", EINVAL, sys(rt_sigprocmask, 7, raw, NULL, 8));
  GIVES("rt_sigprocmask: how does not matter without a set", 0, sys(rt_sigprocmask, 7, NULL, raw, 8));
  FAILS("rt_sigprocmask: bad address", EFAULT, sys(rt_sigprocmask, SIG_BLOCK, bad_address(), NULL, 8));
  mask = ~0ull;
  sys(rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
  sys(rt_sigprocmask, SIG_SETMASK, NULL, &mask, 8);
  GIVES("rt_sigprocmask: SIGKILL and SIGSTOP cannot be blocked", ~(1L << 8 | 1L << 18), mask);
  count = 0;
  for (int n = 0; n < LENGTH(order); n++) order[n] = 0;
  set(SIGUSR1, counts, 0);
  set(SIGRTMIN, counts, 0);
  set(SIGRTMIN + 1, counts, 0);
  raise(SIGRTMIN + 1);
  raise(SIGRTMIN);
  raise(SIGUSR1);
  raise(SIGUSR1);
  raise(SIGRTMIN);
  sigpending(&s);
  OK("rt_sigpending: what is blocked and raised", sigismember(&s, SIGUSR1) && sigismember(&s, SIGRTMIN) && !sigismember(&s, SIGUSR2));
  FAILS("rt_sigpending: size of the set", EINVAL, sys(rt_sigpending, raw, 16));
  FAILS("rt_sigpending: bad address", EFAULT, sys(rt_sigpending, bad_address(), 8));
  mask = 0;
  sys(rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
  GIVES("rt_sigpending: standard signals once, real-time ones queued", 4, count);

  sigemptyset(&s);
  sigaddset(&s, SIGUSR1);
  sigprocmask(SIG_BLOCK, &s, &was);
  count = 0;
  raise(SIGUSR1);
  FAILS("rt_sigsuspend: ends with the handler", EINTR, sigsuspend(&was));
  GIVES("rt_sigsuspend: ran it", 1, count);
  sigprocmask(SIG_SETMASK, NULL, &s);
  OK("rt_sigsuspend: the mask is back", sigismember(&s, SIGUSR1));
  sigprocmask(SIG_SETMASK, &was, NULL);
  FAILS("rt_sigsuspend: size of the set", EINVAL, sys(rt_sigsuspend, raw, 9));

  alt = malloc(16384);
  stack_t st = {.ss_sp = alt, .ss_size = 1000}, got;
  FAILS("sigaltstack: too small", ENOMEM, sys(sigaltstack, &st, NULL));
  st.ss_size = 16384;
  st.ss_flags = 4;
  FAILS("sigaltstack: unknown flags", EINVAL, sys(sigaltstack, &st, NULL));
  FAILS("sigaltstack: bad address", EFAULT, sys(sigaltstack, bad_address(), NULL));
  st.ss_flags = 0;
  GIVES("sigaltstack: set", 0, sigaltstack(&st, NULL));
  GIVES("sigaltstack: reads back", 16384, (sigaltstack(NULL, &got), got.ss_size));
  set(SIGUSR1, where, SA_ONSTACK);
  raise(SIGUSR1);
  OK("sigaltstack: a handler runs on it", on_stack);
  GIVES("sigaltstack: SS_ONSTACK meanwhile", SS_ONSTACK, nested);
  set(SIGUSR1, where, 0);
  raise(SIGUSR1);
  OK("sigaltstack: only with SA_ONSTACK", !on_stack);
  GIVES("sigaltstack: SS_AUTODISARM", 0, ({ st.ss_flags = 1 << 31; sigaltstack(&st, NULL); }));
  set(SIGUSR1, where, SA_ONSTACK);
  raise(SIGUSR1);
  GIVES("sigaltstack: is disarmed meanwhile", SS_DISABLE, nested);
  st.ss_flags = SS_DISABLE;
  GIVES("sigaltstack: SS_DISABLE", 0, sigaltstack(&st, NULL));
  GIVES("sigaltstack: is off", SS_DISABLE, (sigaltstack(NULL, &got), got.ss_flags));

  pipe(p);
  set(SIGALRM, counts, 0);
  struct itimerval soon = {{0, 0}, {0, 20000}};
  setitimer(ITIMER_REAL, &soon, NULL);
  FAILS("rt_sigaction: a call is interrupted", EINTR, read(p[0], &b, 1));
  set(SIGALRM, counts, SA_RESTART);
  setitimer(ITIMER_REAL, &soon, NULL);
  pid_t child = fork();
  if (child == 0) {
    pause_ms(60);
    write(p[1], "x", 1);
    _exit(0);
  }
  GIVES("rt_sigaction: SA_RESTART goes on", 1, read(p[0], &b, 1));
  reap(child);
  setitimer(ITIMER_REAL, &soon, NULL);
  FAILS("rt_sigaction: poll is never restarted", EINTR, poll(NULL, 0, 1000));
  GIVES("rt_sigaction: an ignored signal does not interrupt", 1, ({
    signal(SIGALRM, SIG_IGN);
    setitimer(ITIMER_REAL, &soon, NULL);
    child = fork();
    if (child == 0) {
      pause_ms(50);
      write(p[1], "x", 1);
      _exit(0);
    }
    read(p[0], &b, 1);
  }));
  reap(child);
  GIVES("rt_sigaction: SIG_DFL of SIGTERM", 1000 + SIGTERM, IN_CHILD(signal(SIGTERM, SIG_DFL); raise(SIGTERM)));
  GIVES("rt_sigaction: a blocked fault kills", 1000 + SIGSEGV, IN_CHILD({
    signal(SIGSEGV, counts);
    sigemptyset(&s);
    sigaddset(&s, SIGSEGV);
    sigprocmask(SIG_BLOCK, &s, NULL);
    *(volatile char *)bad_address();
  }));

  set(SIGSEGV, nests, 0);
  mask = 1ul << (SIGSEGV - 1);
  sys(rt_sigprocmask, SIG_BLOCK, &mask, NULL, 8);
  raise(SIGSEGV);
  raise(SIGSEGV);
  GIVES("rt_sigprocmask: a SIGSEGV that was sent can be blocked", 0, nested_count);
  GIVES("rt_sigpending: a SIGSEGV that was sent", mask, ({ uint64_t pending = 0; sys(rt_sigpending, &pending, 8); pending; }));
  GIVES("rt_sigpending: none in a child", 0, IN_CHILD(uint64_t pending = 0; sys(rt_sigpending, &pending, 8); _exit(pending != 0)));
  sys(rt_sigprocmask, SIG_UNBLOCK, &mask, NULL, 8);
  GIVES("rt_sigprocmask: it comes when it is unblocked, once", 1, nested_count);
  int deep = 0;
  for (int n = 0; n < 4; n++) {
    static const int all[] = {SIGSEGV, SIGBUS, SIGFPE, SIGUSR1};
    nested_count = deepest = 0;
    wanted = 5;
    set(all[n], nests, 0);
    raise(all[n]);
    deep += 10 * nested_count + deepest;
  }
  GIVES("rt_sigaction: a handler's own signal waits until it returns", 4 * 51, deep);
  return done();
}
