/* Processes: fork(2), vfork(2), clone(2), wait4(2), waitid(2), execve(2), exit_group, set_tid_address(2), get_robust_list(2). */
#include "check.h"
#include <linux/futex.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>

static int shared_word = 1;
static uint32_t tid_word;

static void *thread(void *p) {
  *(int *)p = gettid() != getpid();
  return NULL;
}
static volatile int stop;
static void *churn(void *p) {
  pthread_t t;
  int x;
  while (!stop) {
    pthread_create(&t, NULL, thread, &x);
    pthread_join(t, NULL);
  }
  return p;
}
static void catcher(int s) {}
static void *waits(void *p) {
  for (;;) pause();
  return p;
}
static void *exits(void *p) {
  sys(exit, 3);
  return NULL;
}

int main(int argc, char **argv) {
  if (argc > 1) {
    if (!strcmp(argv[1], "args")) return argc == 4 && !strcmp(argv[2], "") && !strcmp(argv[3], "b c") && getenv("K") ? 42 : 1;
    if (!strcmp(argv[1], "fd")) return fcntl(10, F_GETFD) == -1 && fcntl(11, F_GETFD) == 0 ? 43 : 1;
    if (!strcmp(argv[1], "signals")) {
      struct sigaction a, b;
      sigset_t s;
      sigaction(SIGUSR1, NULL, &a);
      sigaction(SIGUSR2, NULL, &b);
      sigprocmask(SIG_SETMASK, NULL, &s);
      return a.sa_handler == SIG_DFL && b.sa_handler == SIG_IGN && sigismember(&s, SIGTERM) ? 44 : 1;
    }
    return 9;
  }
  struct clone_args a = {.exit_signal = SIGCHLD}, zero[2] = {0};
  siginfo_t i;
  struct rusage ru;
  int status, fd = -1;
  pid_t c;
  FAILS("clone3: size", EINVAL, sys(clone3, &a, 32));
  FAILS("clone3: too large", E2BIG, sys(clone3, zero, 5000));
  FAILS("clone3: bytes behind that are not zero", E2BIG, ({ zero[1].flags = 1; sys(clone3, zero, sizeof zero); }));
  FAILS("clone3: an exit signal that is none", EINVAL, ({ struct clone_args x = {.exit_signal = 256}; sys(clone3, &x, sizeof x); }));
  FAILS("clone3: a stack without size", EINVAL, ({ struct clone_args x = {.exit_signal = SIGCHLD, .stack = (uintptr_t)&x}; sys(clone3, &x, sizeof x); }));
  FAILS("clone3: the low bits are no flags", EINVAL, ({ struct clone_args x = {.flags = SIGCHLD}; sys(clone3, &x, sizeof x); }));
  FAILS("clone3: CLONE_SIGHAND without CLONE_VM", EINVAL, ({ struct clone_args x = {.flags = CLONE_SIGHAND, .exit_signal = SIGCHLD}; sys(clone3, &x, sizeof x); }));
  fflush(stdout);
  GIVES("clone3: a child", 7, ({ c = sys(clone3, &a, sizeof a); if (c == 0) _exit(7); reap(c); }));
  GIVES("clone3: CLONE_PIDFD", 0, ({
    struct clone_args x = {.flags = CLONE_PIDFD, .exit_signal = SIGCHLD, .pidfd = (uintptr_t)&fd};
    c = sys(clone3, &x, sizeof x);
    if (c == 0) _exit(8);
    sys(waitid, P_PIDFD, fd, &i, WEXITED, NULL);
  }));
  OK("clone3: the descriptor is the child's", i.si_pid == c && i.si_status == 8);
  GIVES("clone3: CLONE_CLEAR_SIGHAND", 0, ({
    signal(SIGUSR1, SIG_IGN);
    struct sigaction h = {.sa_handler = catcher}, was;
    sigaction(SIGUSR2, &h, NULL);
    struct clone_args x = {.flags = CLONE_CLEAR_SIGHAND, .exit_signal = SIGCHLD};
    c = sys(clone3, &x, sizeof x);
    if (c == 0) _exit(sigaction(SIGUSR2, NULL, &was) || was.sa_handler != SIG_DFL || sigaction(SIGUSR1, NULL, &was) || was.sa_handler != SIG_IGN);
    signal(SIGUSR1, SIG_DFL);
    signal(SIGUSR2, SIG_DFL);
    reap(c);
  }));
  FAILS("clone: CLONE_THREAD without CLONE_SIGHAND", EINVAL, sys(clone, CLONE_THREAD | SIGCHLD, NULL, NULL, NULL, NULL));
  FAILS("clone: CLONE_SIGHAND without CLONE_VM", EINVAL, sys(clone, CLONE_SIGHAND | SIGCHLD, NULL, NULL, NULL, NULL));
  FAILS("clone: a new user of mounts needs a privilege", EPERM, sys(clone, CLONE_NEWNS | SIGCHLD, NULL, NULL, NULL, NULL));
  fflush(stdout);
  GIVES("clone: CLONE_PARENT_SETTID and CLONE_CHILD_SETTID", 0, ({
    int parent = 0, child = 0;
    c = sys(clone, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, NULL, &parent, &child, NULL);
    if (c == 0) _exit(child != gettid());
    reap(c) + (parent != c);
  }));
  int is_thread = 0;
  pthread_t t;
  pthread_create(&t, NULL, thread, &is_thread);
  pthread_join(t, NULL);
  GIVES("clone: a thread", 1, is_thread);
  GIVES("fork: memory is copied", 1, ({ c = fork(); if (c == 0) { shared_word = 2; _exit(0); } reap(c); shared_word; }));
  GIVES("fork: a descriptor's offset is shared", 3, ({ fd = file_with("f", "abcdef", O_RDONLY); IN_CHILD(char b[3]; read(fd, b, 3)); lseek(fd, 0, SEEK_CUR); }));
  GIVES("fork: pending signals are not inherited", 0, ({
    sigset_t s, p;
    sigemptyset(&s);
    sigaddset(&s, SIGUSR1);
    sigprocmask(SIG_BLOCK, &s, NULL);
    raise(SIGUSR1);
    int r = IN_CHILD(sigpending(&p); _exit(sigismember(&p, SIGUSR1)));
    signal(SIGUSR1, SIG_IGN);
    sigprocmask(SIG_UNBLOCK, &s, NULL);
    signal(SIGUSR1, SIG_DFL);
    r;
  }));
  GIVES("fork: from a thread's process, alone", 1, IN_CHILD(pthread_create(&t, NULL, thread, &is_thread); pthread_join(t, NULL); _exit(is_thread)));
  GIVES("fork: while threads come and go", 0, ({
    int bad = 0;
    pthread_t turn;
    pthread_create(&turn, NULL, churn, NULL);
    for (int n = 0; n < 60; n++) bad += IN_CHILD(int x = 0; pthread_create(&t, NULL, thread, &x); pthread_join(t, NULL); _exit(!x));
    stop = 1;
    pthread_join(turn, NULL);
    bad;
  }));
  GIVES("vfork: the parent waits", 5, ({ c = vfork(); if (c == 0) _exit(5); reap(c); }));
  GIVES("vfork: executes", 42, ({ char *v[] = {"calls", "clone3", "args", "", "b c", NULL}, *e[] = {"K=v", NULL}; c = vfork(); if (c == 0) { execve("/bin/calls", v, e); _exit(1); } reap(c); }));
  GIVES("vfork: its memory is the parent's", 6, ({ static volatile int word; c = vfork(); if (c == 0) { word = 6; _exit(0); } reap(c); word; }));

  FAILS("wait4: no child", ECHILD, sys(wait4, -1, &status, 0, NULL));
  FAILS("wait4: unknown options", EINVAL, sys(wait4, -1, &status, 0x100, NULL));
  c = fork();
  if (c == 0) { pause_ms(40); _exit(3); }
  GIVES("wait4: WNOHANG", 0, sys(wait4, c, &status, WNOHANG, NULL));
  FAILS("wait4: another's child", ECHILD, sys(wait4, getppid(), &status, 0, NULL));
  GIVES("wait4: the child", c, sys(wait4, c, &status, 0, &ru));
  OK("wait4: its status and times", WEXITSTATUS(status) == 3 && ru.ru_utime.tv_sec == 0);
  c = fork();
  if (c == 0) { raise(SIGSTOP); pause_ms(60); _exit(4); }
  GIVES("wait4: WUNTRACED", c, sys(wait4, c, &status, WUNTRACED, NULL));
  OK("wait4: stopped by SIGSTOP", WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
  kill(c, SIGCONT);
  GIVES("wait4: WCONTINUED", c, sys(wait4, c, &status, WCONTINUED, NULL));
  OK("wait4: continued", WIFCONTINUED(status));
  GIVES("waitid: WNOWAIT leaves the child", 0, sys(waitid, P_PID, c, &i, WEXITED | WNOWAIT, NULL));
  GIVES("waitid: and finds it again", 0, sys(waitid, P_PID, c, &i, WEXITED, NULL));
  OK("waitid: siginfo", i.si_signo == SIGCHLD && i.si_code == CLD_EXITED && i.si_status == 4 && i.si_pid == c);
  FAILS("waitid: no options", EINVAL, sys(waitid, P_ALL, 0, &i, 0, NULL));
  FAILS("waitid: unknown kind", EINVAL, sys(waitid, 9, 0, &i, WEXITED, NULL));
  FAILS("waitid: no child", ECHILD, sys(waitid, P_ALL, 0, &i, WEXITED, NULL));
  c = fork();
  if (c == 0) { setpgid(0, 0); _exit(6); }
  setpgid(c, c);
  GIVES("waitid: P_PGID", 0, sys(waitid, P_PGID, c, &i, WEXITED, NULL));
  GIVES("waitid: WNOHANG and nothing clears si_pid", 0, ({ c = fork(); if (c == 0) { pause_ms(50); _exit(0); } i.si_pid = 9; sys(waitid, P_PID, c, &i, WEXITED | WNOHANG, NULL); i.si_pid; }));
  reap(c);
  GIVES("wait4: SA_NOCLDWAIT leaves no children", ECHILD, IN_CHILD({
    struct sigaction n = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
    sigaction(SIGCHLD, &n, NULL);
    c = fork();
    if (c == 0) _exit(0);
    _exit(sys(wait4, c, NULL, 0, NULL) < 0 ? errno : 0);
  }));

  char *none[] = {NULL}, *v[] = {"calls", "clone3", "fd", NULL}, *w[] = {"calls", "clone3", "signals", NULL};
  FAILS("execve: missing", ENOENT, sys(execve, "/missing", v, none));
  FAILS("execve: no permission", EACCES, sys(execve, "/etc/passwd", v, none));
  FAILS("execve: a directory", EACCES, sys(execve, "/data", v, none));
  FAILS("execve: bad address", EFAULT, sys(execve, bad_address(), v, none));
  GIVES("execve: close-on-exec", 43, IN_CHILD(dup3(0, 10, O_CLOEXEC); dup2(0, 11); execve("/bin/calls", v, none)));
  GIVES("execve: handlers go, ignored signals and the mask stay", 44, IN_CHILD({
    sigset_t s;
    signal(SIGUSR1, catcher);
    signal(SIGUSR2, SIG_IGN);
    sigemptyset(&s);
    sigaddset(&s, SIGTERM);
    sigprocmask(SIG_BLOCK, &s, NULL);
    execve("/bin/calls", w, none);
  }));
  GIVES("execve: from a thread", 43, IN_CHILD({ dup2(0, 11); pthread_create(&t, NULL, thread, &is_thread); execve("/proc/self/exe", v, none); }));
  GIVES("execveat: AT_EMPTY_PATH", 43, IN_CHILD(dup2(0, 11); sys(execveat, open("/bin/calls", O_PATH | O_CLOEXEC), "", v, none, AT_EMPTY_PATH)));
  FAILS("execveat: unknown flags", EINVAL, sys(execveat, AT_FDCWD, "/bin/calls", v, none, 1));
  symlink("/bin/calls", "link");
  FAILS("execveat: AT_SYMLINK_NOFOLLOW", ELOOP, sys(execveat, AT_FDCWD, "link", v, none, AT_SYMLINK_NOFOLLOW));
  GIVES("exit: of the only thread", 3, IN_CHILD(sys(exit, 3)));
  GIVES("exit: of one thread", 9, IN_CHILD(pthread_create(&t, NULL, exits, NULL); pthread_join(t, NULL); _exit(9)));
  GIVES("exit_group: ends all threads", 4, IN_CHILD(pthread_create(&t, NULL, waits, NULL); sys(exit_group, 4)));
  GIVES("exit_group: eight bits", 0x34, IN_CHILD(sys(exit_group, 0x1234)));
  GIVES("set_tid_address: the thread", gettid(), sys(set_tid_address, &tid_word));
  void *head;
  size_t len;
  GIVES("get_robust_list: its size", 24, (sys(get_robust_list, 0, &head, &len), len));
  FAILS("get_robust_list: no thread", ESRCH, sys(get_robust_list, 99999, &head, &len));
  FAILS("set_robust_list: size", EINVAL, sys(set_robust_list, head, 7));
  GIVES("set_robust_list: set", 0, sys(set_robust_list, head, 24));
  pthread_mutex_t *m = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pthread_mutexattr_t ma;
  pthread_mutexattr_init(&ma);
  pthread_mutexattr_setrobust(&ma, PTHREAD_MUTEX_ROBUST);
  pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(m, &ma);
  IN_CHILD(pthread_mutex_lock(m));
  GIVES("set_robust_list: the owner has died", EOWNERDEAD, pthread_mutex_lock(m));
  GIVES("fork: needs no descriptor", 0, IN_CHILD({
    struct rlimit few = {8, 8};
    setrlimit(RLIMIT_NOFILE, &few);
    while (dup(0) >= 0) {}
    _exit(IN_CHILD(_exit(dup(0) >= 0)));
  }));
  GIVES("vfork: needs no descriptor", 0, IN_CHILD({
    struct rlimit few = {8, 8};
    setrlimit(RLIMIT_NOFILE, &few);
    while (dup(0) >= 0) {}
    pid_t c = vfork();
    if (c == 0) _exit(0);
    _exit(reap(c));
  }));
  return done();
}
