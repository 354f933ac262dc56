/* Rounds of locks: mutexes, conditions, barriers, read-write locks, semaphores, robust mutexes. */
#include "stress.h"

void init_mutex(int type, int protocol, int robust, int shared) {
  pthread_mutexattr_t at;
  pthread_mutexattr_init(&at);
  pthread_mutexattr_settype(&at, type);
  pthread_mutexattr_setprotocol(&at, protocol);
  pthread_mutexattr_setrobust(&at, robust ? PTHREAD_MUTEX_ROBUST : PTHREAD_MUTEX_STALLED);
  pthread_mutexattr_setpshared(&at, shared);
  same("pthread_mutex_init", pthread_mutex_init(&S->mutex, &at), 0);
  pthread_mutexattr_destroy(&at);
}

/* Mutexes of all kinds: nothing that they guard is lost. */
int mutex_type;
static void lock_somehow(int n) {
  int r;
  struct timespec later = in_ms(50000);
  switch (n % 4) {
  case 0: while ((r = pthread_mutex_trylock(&S->mutex)) == EBUSY) sched_yield(); break;
  case 1: r = pthread_mutex_timedlock(&S->mutex, &later); break;
  default: r = pthread_mutex_lock(&S->mutex);
  }
  same("a lock", r, 0);
}
void *counts(void *p) {
  for (int n = 0; n < turns; n++) {
    lock_somehow(n + (long)p);
    if (mutex_type == PTHREAD_MUTEX_RECURSIVE) same("a recursive lock", pthread_mutex_lock(&S->mutex), 0);
    if (mutex_type == PTHREAD_MUTEX_ERRORCHECK) same("a second lock", pthread_mutex_lock(&S->mutex), EDEADLK);
    long v = S->a;
    if (n % 16 == 0) sched_yield();
    S->a = v + 1;
    if (mutex_type == PTHREAD_MUTEX_RECURSIVE) same("a recursive unlock", pthread_mutex_unlock(&S->mutex), 0);
    same("an unlock", pthread_mutex_unlock(&S->mutex), 0);
    if (mutex_type == PTHREAD_MUTEX_ERRORCHECK) same("a second unlock", pthread_mutex_unlock(&S->mutex), EPERM);
  }
  return NULL;
}
void mutexes(void) {
  static const int types[] = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ADAPTIVE_NP};
  mutex_type = types[below(4)];
  init_mutex(mutex_type, below(2) ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE, below(2), below(2));
  S->a = 0;
  all(counts);
  same("the count", S->a, (long)count * turns);
  pthread_mutex_destroy(&S->mutex);
}

/* The same between processes. */
void processes(void) {
  mutex_type = PTHREAD_MUTEX_NORMAL;
  init_mutex(mutex_type, below(2) ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE, below(2), 1);
  S->a = 0;
  int children = 1 + count / 4;
  for (int n = 0; n < children; n++) {
    pid_t p = fork();
    same("fork", p < 0, 0);
    if (p == 0) {
      count = 4;
      all(counts);
      _exit(0);
    }
  }
  reap_all(children);
  same("the count", S->a, 4L * children * turns);
  pthread_mutex_destroy(&S->mutex);
}

/* A bounded queue: what goes in comes out, with signal, broadcast and timed waits. */
enum { QUEUE = 7 };
static long queue[QUEUE], queued, put_in, taken;
static pthread_cond_t room = PTHREAD_COND_INITIALIZER, there = PTHREAD_COND_INITIALIZER;
static void *puts_in(void *p) {
  for (long n = 1; n <= turns; n++) {
    pthread_mutex_lock(&S->mutex);
    while (queued == QUEUE) pthread_cond_wait(&room, &S->mutex);
    queue[queued++] = n;
    put_in += n;
    if (n % 3 == (long)p % 3) pthread_cond_broadcast(&there);
    else pthread_cond_signal(&there);
    pthread_mutex_unlock(&S->mutex);
  }
  return NULL;
}
static void *takes(void *p) {
  for (;;) {
    pthread_mutex_lock(&S->mutex);
    while (queued == 0) {
      struct timespec soon = in_ms(1 + (long)p % 5);
      int r = (long)p % 2 ? pthread_cond_timedwait(&there, &S->mutex, &soon) : pthread_cond_wait(&there, &S->mutex);
      if (r != 0 && r != ETIMEDOUT) wrong("pthread_cond_timedwait", r, 0);
    }
    long v = queue[--queued];
    taken += v > 0 ? v : 0;
    pthread_cond_signal(&room);
    pthread_mutex_unlock(&S->mutex);
    if (v == -1) return NULL;
  }
}
static void *both(void *p) { return (long)p < count / 2 ? puts_in(p) : takes(p); }
void conditions(void) {
  init_mutex(PTHREAD_MUTEX_NORMAL, below(2) ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE, 0, 0);
  count += count % 2;
  queued = put_in = taken = 0;
  start_all(both);
  for (int n = 0; n < count / 2; n++) pthread_join(threads[n], NULL);
  for (int n = 0; n < count / 2; n++) {
    pthread_mutex_lock(&S->mutex);
    while (queued == QUEUE) pthread_cond_wait(&room, &S->mutex);
    /* Below what is there already: taken last. */
    memmove(queue + 1, queue, queued++ * sizeof *queue);
    queue[0] = -1;
    pthread_cond_broadcast(&there);
    pthread_mutex_unlock(&S->mutex);
  }
  for (int n = count / 2; n < count; n++) pthread_join(threads[n], NULL);
  same("taken", taken, put_in);
  same("left", queued, 0);
  pthread_mutex_destroy(&S->mutex);
}

/* Nobody passes a barrier before all are there; one of them is told so. */
static void *passes(void *p) {
  (void)p;
  for (int n = 0; n < turns / 8 + 1; n++) {
    atomic_fetch_add(&S->c, 1);
    int r = pthread_barrier_wait(&S->barrier);
    if (r == PTHREAD_BARRIER_SERIAL_THREAD) atomic_fetch_add(&S->d, 1);
    else same("pthread_barrier_wait", r, 0);
    same("arrived", S->c, (long)count * (n + 1));
    pthread_barrier_wait(&S->barrier);
  }
  return NULL;
}
void barriers(void) {
  S->c = S->d = 0;
  pthread_barrier_init(&S->barrier, NULL, count);
  all(passes);
  same("told", S->d, turns / 8 + 1);
  pthread_barrier_destroy(&S->barrier);
}

static void *reads_writes(void *p) {
  for (int n = 0; n < turns; n++) {
    if ((n + (long)p) % 8 == 0) {
      struct timespec later = in_ms(50000);
      same("a write lock", n % 2 ? pthread_rwlock_wrlock(&S->rwlock) : pthread_rwlock_timedwrlock(&S->rwlock, &later), 0);
      S->a++;
      if (n % 3 == 0) sched_yield();
      S->b++;
    } else {
      int r = pthread_rwlock_tryrdlock(&S->rwlock);
      if (r == EBUSY || r == EAGAIN) r = pthread_rwlock_rdlock(&S->rwlock);
      same("a read lock", r, 0);
      same("what writers write", S->a, S->b);
    }
    same("pthread_rwlock_unlock", pthread_rwlock_unlock(&S->rwlock), 0);
  }
  return NULL;
}
void rwlocks(void) {
  pthread_rwlockattr_t at;
  pthread_rwlockattr_init(&at);
  pthread_rwlockattr_setkind_np(&at, below(2) ? PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP : PTHREAD_RWLOCK_PREFER_READER_NP);
  pthread_rwlock_init(&S->rwlock, &at);
  S->a = S->b = 0;
  all(reads_writes);
  same("the writers' two", S->a, S->b);
  pthread_rwlock_destroy(&S->rwlock);
}

static void *hands_on(void *p) {
  (void)p;
  for (int n = 0; n < turns; n++) {
    struct timespec later = in_ms(50000);
    int r = n % 2 ? sem_wait(&S->sem) : sem_timedwait(&S->sem, &later);
    if (r < 0 && errno == EINTR) continue;
    same("sem_wait", r, 0);
    if (atomic_fetch_add(&S->c, 1) >= 3) wrong("inside", S->c, 3);
    atomic_fetch_sub(&S->c, 1);
    sem_post(&S->sem);
  }
  return NULL;
}
void semaphores(void) {
  int value;
  sem_init(&S->sem, 1, 3);
  S->c = 0;
  all(hands_on);
  sem_getvalue(&S->sem, &value);
  same("the semaphore's value", value, 3);
  sem_destroy(&S->sem);
}

/* Owners that end without unlocking: every time the next one is told. */
static void *dies(void *p) {
  (void)p;
  int r = pthread_mutex_lock(&S->mutex);
  if (r == EOWNERDEAD) {
    S->b++;
    pthread_mutex_consistent(&S->mutex);
  } else same("a robust lock", r, 0);
  S->a++;
  return NULL;
}
void robust(void) {
  int between = below(2);
  init_mutex(PTHREAD_MUTEX_NORMAL, below(2) ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE, 1, between);
  S->a = S->b = 0;
  if (between) {
    for (int n = 0; n < count; n++)
      if (fork() == 0) {
        dies(NULL);
        _exit(0);
      }
    reap_all(count);
  } else all(dies);
  same("owners", S->a, count);
  same("told of a dead owner", S->b, count - 1);
  same("the last owner", pthread_mutex_lock(&S->mutex), EOWNERDEAD);
  pthread_mutex_unlock(&S->mutex);
  same("not made consistent", pthread_mutex_lock(&S->mutex), ENOTRECOVERABLE);
  pthread_mutex_destroy(&S->mutex);
}
