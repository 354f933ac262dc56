/* Sixteen threads on a mutex and a condition variable; joins, thread-local storage, a barrier, cancellation, fork. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 16, ROUNDS = 500 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static int whose;
static long sum;
static _Atomic long spins;
static __thread long own;

static void *worker(void *arg) {
  long me = (long)arg;
  for (int n = 0; n < ROUNDS; n++) {
    pthread_mutex_lock(&lock);
    while (whose != me) pthread_cond_wait(&turn, &lock);
    sum += me * n;
    own += n;
    whose = (whose + 1) % THREADS;
    pthread_cond_broadcast(&turn);
    pthread_mutex_unlock(&lock);
  }
  pthread_barrier_wait(&barrier);
  for (int n = 0; n < 10000; n++) atomic_fetch_add(&spins, 1);
  return (void *)own;
}

static void *sleeper(void *on_condition) {
  if (!on_condition) for (;;) pause();
  pthread_mutex_lock(&lock);
  for (;;) pthread_cond_wait(&turn, &lock);
}

int main(void) {
  pthread_t t[THREADS];
  pthread_barrier_init(&barrier, NULL, THREADS);
  for (long n = 0; n < THREADS; n++) if (pthread_create(&t[n], NULL, worker, (void *)n)) return 1;
  long owns = 0;
  for (int n = 0; n < THREADS; n++) {
    void *r;
    pthread_join(t[n], &r);
    owns += (long)r;
  }
  printf("sum %ld, own %ld, atomic %ld\n", sum, owns, spins);
  for (int n = 0; n < 100; n++) {
    pthread_t one;
    void *r;
    if (pthread_create(&one, NULL, sleeper, (void *)(long)(n & 1))) return 2;
    pthread_cancel(one);
    pthread_join(one, &r);
    if (r != PTHREAD_CANCELED) return 3;
    pthread_mutex_init(&lock, NULL);
  }
  puts("cancelled");
  fflush(stdout);
  pid_t p = fork();
  if (p == 0) _exit(own == 0 ? 9 : 1);
  int status;
  waitpid(p, &status, 0);
  printf("child %d\n", WEXITSTATUS(status));
  return 0;
}
