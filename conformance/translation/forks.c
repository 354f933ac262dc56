/* fork where the translated frames are unusual: in a handler, on a coroutine, after longjmp, deep in a recursion, beside threads. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static int status_of(pid_t child) {
  int status = -1;
  if (waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* In a handler: the child returns from it too. */
static volatile pid_t forked;
static void forks(int s) { (void)s; forked = fork(); }

static int in_handler(void) {
  long sum = 0;
  signal(SIGUSR1, forks);
  for (int i = 0; i < 100; i++) {
    sum += i;
    if (i == 50) raise(SIGUSR1);
  }
  if (forked == 0) _exit(sum == 4950 ? 7 : 1);
  return status_of(forked);
}

/* The child leaves the handler by siglongjmp, the parent returns. */
static sigjmp_buf out;
static void forks_and_leaves(int s) {
  (void)s;
  forked = fork();
  if (forked == 0) siglongjmp(out, 9);
}

static int leaves_handler(void) {
  sigset_t now;
  signal(SIGUSR2, forks_and_leaves);
  int r = sigsetjmp(out, 1);
  if (r) {
    sigprocmask(SIG_SETMASK, NULL, &now);
    _exit(r + 10 * sigismember(&now, SIGUSR2));
  }
  raise(SIGUSR2);
  return status_of(forked);
}

/* On a coroutine: the child goes on in it, goes home, and comes back. */
static ucontext_t home, there;
static pid_t of_coroutine;
static int rounds;
static void body(int n) {
  volatile int mine = n;
  of_coroutine = fork();
  for (;;) {
    mine += 1;
    rounds = mine;
    swapcontext(&there, &home);
  }
}

static int on_coroutine(void) {
  getcontext(&there);
  there.uc_stack.ss_sp = malloc(1 << 16);
  there.uc_stack.ss_size = 1 << 16;
  there.uc_link = NULL;
  makecontext(&there, (void (*)(void))body, 1, 20);
  for (int n = 0; n < 5; n++) swapcontext(&home, &there);
  if (of_coroutine == 0) _exit(rounds);
  return rounds * 1000 + status_of(of_coroutine);
}

/* Deep in a recursion: both return through all of it. */
static pid_t deepest;
__attribute__((noinline)) static int down(int n) {
  if (n == 0) { deepest = fork(); return 1; }
  volatile int here = n;
  return (down(n - 1) * 3 + here) % 251;
}

static int recursive(void) {
  int r = down(2000);
  if (deepest == 0) _exit(r);
  return r * 1000 + status_of(deepest);
}

/* After longjmp over frames, in a loop: each child longjmps again. */
static jmp_buf back;
__attribute__((noinline)) static void over(int n) { if (n == 0) longjmp(back, 3); over(n - 1); __asm__ volatile(""); }

static int after_longjmp(void) {
  volatile int sum = 0;
  for (volatile int i = 0; i < 4; i++) {
    if (setjmp(back) == 0) over(i + 1);
    pid_t child = fork();
    if (child == 0) {
      if (setjmp(back) == 0) over(5);
      _exit(i + 40);
    }
    sum += status_of(child);
  }
  return sum;
}

/* Beside threads: the child has the caller only, and its own thread-local variables. */
static __thread int own = 5;
static volatile int stop;
static void *spins(void *arg) { (void)arg; while (!stop) own++; return NULL; }
static void *forker(void *arg) {
  own = 70;
  pid_t child = fork();
  if (child == 0) {
    pthread_t t;
    stop = 1;
    pthread_create(&t, NULL, spins, NULL);
    pthread_join(t, NULL);
    _exit(own + 1);
  }
  *(int *)arg = status_of(child);
  return NULL;
}

static int beside_threads(void) {
  pthread_t a, b;
  int result = -1;
  pthread_create(&a, NULL, spins, NULL);
  pthread_create(&b, NULL, forker, &result);
  pthread_join(b, NULL);
  stop = 1;
  pthread_join(a, NULL);
  return result;
}

static void prepares(void) { write(1, "prepare\n", 8); }
static void parents(void) { write(1, "parent\n", 7); }
static void children(void) { write(1, "child\n", 6); }

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  printf("in a handler %d\n", in_handler());
  printf("leaves the handler %d\n", leaves_handler());
  printf("on a coroutine %d\n", on_coroutine());
  printf("recursive %d\n", recursive());
  printf("after longjmp %d\n", after_longjmp());
  printf("beside threads %d\n", beside_threads());
  pthread_atfork(prepares, parents, children);
  pid_t child = fork();
  if (child == 0) _exit(3);
  int status = status_of(child);
  printf("atfork %d\n", status);
  return 0;
}
