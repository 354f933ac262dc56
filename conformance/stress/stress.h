/* What the rounds of threads.c share: threads, checks that end the run, memory that children share. */
#ifndef STRESS_H
#define STRESS_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX = 64 };
#define LENGTH(a) ((int)(sizeof(a) / sizeof *(a)))

/* The program's name, for execl. */
extern char *self;
unsigned below(unsigned n);
/* Ends the run. */
_Noreturn void wrong(const char *what, long got, long want);
static inline void same(const char *what, long got, long want) {
  if (got != want) wrong(what, got, want);
}
static inline void pause_us(long us) {
  struct timespec t = {0, us * 1000};
  nanosleep(&t, NULL);
}
static inline struct timespec in_ms(long ms) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  t.tv_nsec += ms % 1000 * 1000000;
  t.tv_sec += ms / 1000 + t.tv_nsec / 1000000000;
  t.tv_nsec %= 1000000000;
  return t;
}

/* How many threads a round has, and how often each does something. */
extern pthread_t threads[MAX];
extern int count, turns;
static inline void start_all(void *(*f)(void *)) {
  for (int n = 0; n < count; n++) same("pthread_create", pthread_create(&threads[n], NULL, f, (void *)(long)n), 0);
}
static inline void join_all(void) {
  for (int n = 0; n < count; n++) same("pthread_join", pthread_join(threads[n], NULL), 0);
}
static inline void all(void *(*f)(void *)) {
  start_all(f);
  join_all();
}
/* Waits for `n` children that have to end with 0. */
static inline void reap_all(int n) {
  for (int status; n > 0; n--) {
    pid_t p = wait(&status);
    if (p < 0) wrong("wait", -errno, n);
    same("a child's status", status, 0);
  }
}

/* Memory that children share with us. */
extern struct shared {
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  pthread_barrier_t barrier;
  pthread_rwlock_t rwlock;
  sem_t sem;
  long a, b;
  atomic_long c, d;
} *S;

/* A pipe that nobody writes to. */
extern int never[2];
void init_mutex(int type, int protocol, int robust, int shared);
/* Counts S->a up under S->mutex, `turns` times; `mutex_type` is that of the mutex. */
extern int mutex_type;
void *counts(void *p);

void mutexes(void);
void processes(void);
void conditions(void);
void barriers(void);
void rwlocks(void);
void semaphores(void);
void robust(void);
void cancellation(void);
void coming_and_going(void);
void forking(void);
void ending(void);
void signals(void);
#endif
