/* The end of the stack: death by SIGSEGV, and a handler on an alternate stack that leaves by siglongjmp, repeatedly. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf out;
static volatile int depth;

__attribute__((noinline)) static int down(int n) {
  volatile char frame[200];
  frame[n % 200] = n;
  depth = n;
  return down(n + 1) + frame[n % 200];
}

static void caught(int s, siginfo_t *i, void *c) {
  (void)c;
  siglongjmp(out, s * 1000 + (i->si_code > 0));
}

int main(void) {
  struct rlimit small = { 1 << 20, 1 << 20 };
  setrlimit(RLIMIT_STACK, &small);
  setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
  pid_t child = fork();
  if (child == 0) _exit(down(0));
  int status;
  waitpid(child, &status, 0);
  printf("signal %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : -1);
  stack_t alternate = { .ss_sp = malloc(1 << 16), .ss_size = 1 << 16 };
  sigaltstack(&alternate, NULL);
  struct sigaction a = { .sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_ONSTACK };
  sigaction(SIGSEGV, &a, NULL);
  for (int n = 0; n < 5; n++) {
    int r = sigsetjmp(out, 1);
    if (r == 0) down(0);
    printf("%d deep %d\n", r, depth > 1000);
  }
  return 0;
}
