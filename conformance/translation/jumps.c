/* setjmp(3), longjmp(3), swapcontext(3), a handler of SIGSEGV that jumps out, and the end of the stack. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static jmp_buf outer;
static sigjmp_buf fault;
static ucontext_t main_context, routine_context;
static int depth_reached;

static int deep(int n) {
  volatile char pad[64];
  memset((void *)pad, n, sizeof pad);
  if (n == 0) longjmp(outer, 42);
  return deep(n - 1) + pad[3];
}

static void routine(int a, int b, int c, int d, int e, int f) {
  for (int i = 0; i < 3; i++) {
    printf("routine %d: %d %d %d %d %d %d\n", i, a, b, c, d, e, f);
    swapcontext(&routine_context, &main_context);
  }
}

static void on_fault(int s, siginfo_t *i, void *context) {
  (void)context;
  siglongjmp(fault, s * 100 + (i->si_addr == (void *)16));
}

static void on_usr1(int s) {
  static int n;
  if (++n == 3) siglongjmp(fault, 7);
  raise(s);
}

static int recurse(volatile char *up) {
  volatile char here[4096];
  here[0] = up[0];
  depth_reached++;
  return recurse(here) + here[1];
}

int main(void) {
  int r = setjmp(outer);
  if (r == 0) deep(1000);
  printf("longjmp gave %d\n", r);
  for (volatile int i = 0; i < 1000; i++) if (setjmp(outer) == 0) longjmp(outer, 1);
  puts("a thousand jumps");

  static char stack[65536];
  getcontext(&routine_context);
  routine_context.uc_stack.ss_sp = stack;
  routine_context.uc_stack.ss_size = sizeof stack;
  routine_context.uc_link = &main_context;
  makecontext(&routine_context, (void (*)(void))routine, 6, 1, 2, 3, 4, 5, 6);
  for (int i = 0; i < 4; i++) swapcontext(&main_context, &routine_context);
  puts("routine ended");

  struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigaction(SIGSEGV, &a, NULL);
  for (volatile int i = 0; i < 3; i++) {
    r = sigsetjmp(fault, 1);
    if (r == 0) *(volatile int *)16 = 1;
    printf("fault %d\n", r);
  }
  signal(SIGUSR1, on_usr1);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  r = sigsetjmp(fault, 1);
  if (r == 0) for (;;) raise(SIGUSR1);
  printf("out of nested handlers: %d\n", r);

  fflush(stdout);
  pid_t p = fork();
  if (p == 0) {
    signal(SIGSEGV, SIG_DFL);
    char start[1] = {0};
    recurse(start);
    _exit(0);
  }
  int status;
  waitpid(p, &status, 0);
  printf("deep recursion ends by signal %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
  return 3;
}
