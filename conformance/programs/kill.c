/* kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, rt_sigtimedwait, signalfd, signalfd4, pause, pidfd_open, pidfd_send_signal. */
#include "check.h"
#include <sys/signalfd.h>
#include <sys/pidfd.h>

static volatile int handled;
static void handler(int s) { handled++; }

static long queue(int sig, int code, int value) {
  siginfo_t i = {0};
  i.si_signo = sig;
  i.si_code = code;
  i.si_pid = getpid();
  i.si_value.sival_int = value;
  return sys(rt_sigqueueinfo, getpid(), sig, &i);
}

int main(int argc, char **argv) {
  sigset_t s, old;
  siginfo_t i;
  struct timespec ms = {0, 10000000}, now = {0, 0};
  struct signalfd_siginfo si[3];
  pid_t c;
  int fd;
  FAILS("kill: no signal", EINVAL, sys(kill, getpid(), 65));
  FAILS("kill: no process", ESRCH, sys(kill, 99999, 0));
  FAILS("kill: no group", ESRCH, sys(kill, -99999, 0));
  GIVES("kill: 0 asks", 0, sys(kill, getpid(), 0));
  GIVES("kill: SIGKILL", 1000 + SIGKILL, ({ c = fork(); if (c == 0) for (;;) pause_ms(1000); sys(kill, c, SIGKILL); reap(c); }));
  GIVES("kill: a group", 1000 + SIGUSR2, ({ c = fork(); if (c == 0) { setpgid(0, 0); for (;;) pause_ms(1000); } pause_ms(20); sys(kill, -c, SIGUSR2); reap(c); }));
  GIVES("kill: a zombie", 0, ({ c = fork(); if (c == 0) _exit(0); pause_ms(20); long r = sys(kill, c, SIGTERM); reap(c); r; }));
  FAILS("kill: a process that was waited for", ESRCH, sys(kill, c, 0));
  FAILS("tkill: no thread", ESRCH, sys(tkill, 99999, 0));
  FAILS("tkill: thread 0", EINVAL, sys(tkill, 0, 0));
  FAILS("tgkill: not of this process", ESRCH, sys(tgkill, 1, gettid(), 0));
  FAILS("tgkill: negative", EINVAL, sys(tgkill, -1, gettid(), 0));
  GIVES("tgkill: oneself", 0, sys(tgkill, getpid(), gettid(), 0));

  sigemptyset(&s);
  sigaddset(&s, SIGUSR1);
  sigaddset(&s, SIGRTMIN + 2);
  sigaddset(&s, SIGCHLD);
  sigprocmask(SIG_BLOCK, &s, &old);
  GIVES("rt_sigqueueinfo: queued", 0, queue(SIGRTMIN + 2, SI_QUEUE, 7));
  queue(SIGRTMIN + 2, SI_QUEUE, 8);
  GIVES("rt_sigqueueinfo: to oneself, any code", 0, queue(SIGUSR1, SI_USER, 1));
  FAILS("rt_sigqueueinfo: to another, as if by kill", EPERM, ({ i = (siginfo_t){.si_code = SI_USER}; sys(rt_sigqueueinfo, getppid(), SIGWINCH, &i); }));
  FAILS("rt_sigqueueinfo: no signal", EINVAL, queue(65, SI_QUEUE, 1));
  GIVES("rt_sigtimedwait: the lower number first", SIGUSR1, sys(rt_sigtimedwait, &s, &i, &now, 8));
  GIVES("rt_sigtimedwait: the first queued", SIGRTMIN + 2, sys(rt_sigtimedwait, &s, &i, &now, 8));
  OK("rt_sigtimedwait: siginfo", i.si_code == SI_QUEUE && i.si_value.sival_int == 7 && i.si_pid == getpid());
  GIVES("rt_sigtimedwait: the second", 8, (sys(rt_sigtimedwait, &s, &i, NULL, 8), i.si_value.sival_int));
  FAILS("rt_sigtimedwait: nothing", EAGAIN, sys(rt_sigtimedwait, &s, &i, &ms, 8));
  FAILS("rt_sigtimedwait: size of the set", EINVAL, sys(rt_sigtimedwait, &s, &i, &ms, 16));
  FAILS("rt_sigtimedwait: too many nanoseconds", EINVAL, ({ struct timespec b = {0, 1000000000}; sys(rt_sigtimedwait, &s, &i, &b, 8); }));
  GIVES("rt_sigtimedwait: a child's end", SIGCHLD, ({ c = fork(); if (c == 0) _exit(5); sys(rt_sigtimedwait, &s, &i, NULL, 8); }));
  OK("rt_sigtimedwait: CLD_EXITED", i.si_code == CLD_EXITED && i.si_status == 5 && i.si_pid == c);
  reap(c);
  signal(SIGUSR2, handler);
  FAILS("rt_sigtimedwait: another signal's handler", EINTR, ({
    struct itimerval t = {{0, 0}, {0, 10000}};
    signal(SIGALRM, handler);
    setitimer(ITIMER_REAL, &t, NULL);
    sys(rt_sigtimedwait, &s, &i, NULL, 8);
  }));
  GIVES("rt_tgsigqueueinfo: queued", 0, ({ i = (siginfo_t){.si_signo = SIGUSR1, .si_code = SI_QUEUE, .si_value.sival_int = 3}; sys(rt_tgsigqueueinfo, getpid(), gettid(), SIGUSR1, &i); }));
  GIVES("rt_tgsigqueueinfo: taken", SIGUSR1, sys(rt_sigtimedwait, &s, &i, &now, 8));

  FAILS("signalfd4: unknown flags", EINVAL, sys(signalfd4, -1, &s, 8, 1));
  FAILS("signalfd4: size of the set", EINVAL, sys(signalfd4, -1, &s, 4, 0));
  FAILS("signalfd4: no signalfd", EINVAL, sys(signalfd4, 0, &s, 8, 0));
  fd = sys(signalfd4, -1, &s, 8, SFD_NONBLOCK | SFD_CLOEXEC);
  GIVES("signalfd4: close-on-exec", 1, fcntl(fd, F_GETFD));
  FAILS("signalfd4: nothing", EAGAIN, read(fd, si, sizeof si));
  queue(SIGRTMIN + 2, SI_QUEUE, 9);
  raise(SIGUSR1);
  FAILS("signalfd4: a short buffer", EINVAL, read(fd, si, 100));
  GIVES("signalfd4: two signals", 2 * sizeof *si, read(fd, si, sizeof si));
  OK("signalfd4: their facts", si[0].ssi_signo == SIGUSR1 && si[1].ssi_int == 9 && si[1].ssi_pid == (unsigned)getpid());
  sigdelset(&s, SIGUSR1);
  GIVES("signalfd4: another mask", fd, sys(signalfd4, fd, &s, 8, 0));
  raise(SIGUSR1);
  FAILS("signalfd4: which has not this signal", EAGAIN, read(fd, si, sizeof si));
  GIVES("signalfd: made", 0, close(sys(signalfd, -1, &s, 8)));
  handled = 0;
  signal(SIGUSR1, handler);
  sigprocmask(SIG_SETMASK, &old, NULL);
  GIVES("signalfd: what was not read is handled", 1, handled);
  struct itimerval t = {{0, 0}, {0, 10000}};
  setitimer(ITIMER_REAL, &t, NULL);
  FAILS("pause: ends with a handler", EINTR, sys(pause));

  FAILS("pidfd_open: no process", ESRCH, sys(pidfd_open, 99999, 0));
  FAILS("pidfd_open: process 0", EINVAL, sys(pidfd_open, 0, 0));
  FAILS("pidfd_open: unknown flags", EINVAL, sys(pidfd_open, getpid(), 1));
  c = fork();
  if (c == 0) for (;;) pause_ms(1000);
  fd = sys(pidfd_open, c, 0);
  GIVES("pidfd_open: close-on-exec", 1, fcntl(fd, F_GETFD));
  GIVES("pidfd_open: alive is not readable", 0, ({ struct pollfd p = {fd, POLLIN, 0}; poll(&p, 1, 0); }));
  FAILS("pidfd_send_signal: no pidfd", EBADF, sys(pidfd_send_signal, 0, 0, NULL, 0));
  FAILS("pidfd_send_signal: unknown flags", EINVAL, sys(pidfd_send_signal, fd, 0, NULL, 1 << 10));
  FAILS("pidfd_send_signal: no signal", EINVAL, sys(pidfd_send_signal, fd, 65, NULL, 0));
  GIVES("pidfd_send_signal: 0 asks", 0, sys(pidfd_send_signal, fd, 0, NULL, 0));
  GIVES("pidfd_send_signal: SIGTERM", 0, sys(pidfd_send_signal, fd, SIGTERM, NULL, 0));
  GIVES("pidfd_open: the end is readable", 1, ({ struct pollfd p = {fd, POLLIN, 0}; poll(&p, 1, 2000); }));
  GIVES("waitid: P_PIDFD", 0, sys(waitid, P_PIDFD, fd, &i, WEXITED, NULL));
  OK("waitid: killed by SIGTERM", i.si_code == CLD_KILLED && i.si_status == SIGTERM && i.si_pid == c);
  FAILS("pidfd_send_signal: it is gone", ESRCH, sys(pidfd_send_signal, fd, 0, NULL, 0));
  fd = open("/proc/self", O_RDONLY | O_DIRECTORY);
  int data = open("/data", O_RDONLY | O_DIRECTORY), img = open("/data/hello", O_RDONLY);
  handled = 0;
  signal(SIGUSR2, handler);
  GIVES("pidfd_send_signal: a directory of /proc", 0, sys(pidfd_send_signal, fd, SIGUSR2, NULL, 0));
  GIVES("pidfd_send_signal: it was for that process", 1, handled);
  FAILS("pidfd_send_signal: a directory of /proc, no signal", EINVAL, sys(pidfd_send_signal, fd, 65, NULL, 0));
  FAILS("pidfd_send_signal: another directory", EBADF, sys(pidfd_send_signal, data, 0, NULL, 0));
  FAILS("pidfd_send_signal: an image file", EBADF, sys(pidfd_send_signal, img, 0, NULL, 0));

  /* A signal that comes before a call, rather than while it waits, does not end it. */
  struct itimerval often = {{0, 100}, {0, 100}}, off = {0};
  char b[64] = {0};
  int p[2], wrong[6] = {0}, f = open("signalled", O_RDWR | O_CREAT, 0600);
  pipe(p);
  signal(SIGUSR2, SIG_DFL);
  sigaction(SIGALRM, &(struct sigaction){.sa_handler = handler}, NULL);
  setitimer(ITIMER_REAL, &often, NULL);
  for (int n = 0; n < 20000; n++) {
    if (sys(kill, getpid(), 0) < 0) wrong[0]++;
    if (pwrite(f, b, 64, 0) != 64) wrong[1]++;
    if (pread(f, b, 64, 0) != 64) wrong[2]++;
    if (write(p[1], b, 1) != 1) wrong[3]++;
    if (read(p[0], b, 1) != 1) wrong[4]++;
    if (lseek(f, 0, SEEK_SET) != 0) wrong[5]++;
  }
  setitimer(ITIMER_REAL, &off, NULL);
  GIVES("kill: a signal before it does not end it", 0, wrong[0]);
  GIVES("pwrite64: a signal before it does not end it", 0, wrong[1]);
  GIVES("pread64: a signal before it does not end it", 0, wrong[2]);
  GIVES("write: to a pipe with room, a signal before it does not end it", 0, wrong[3]);
  GIVES("read: of a pipe with data, a signal before it does not end it", 0, wrong[4]);
  GIVES("lseek: a signal before it does not end it", 0, wrong[5]);
  return done();
}
