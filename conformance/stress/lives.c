/* Rounds of lives: cancellation, threads that come and go, fork, exec and exit among threads, signals. */
#include "stress.h"

/* Cancellation in calls that wait: cleanups run, the mutex of a condition is held by them. */
int never[2];
static void cleaned(void *p) {
  if (p) same("the mutex at a cleanup", pthread_mutex_unlock(p), 0);
  atomic_fetch_add(&S->c, 1);
}
static void *waits(void *p) {
  char b;
  struct pollfd f = {never[0], POLLIN, 0};
  sigset_t none;
  sigemptyset(&none);
  sigaddset(&none, SIGUSR2);
  pthread_mutex_t *held = (long)p % 8 == 1 ? &S->mutex : NULL;
  if (held) pthread_mutex_lock(held);
  pthread_cleanup_push(cleaned, held);
  atomic_fetch_add(&S->d, 1);
  for (;;) switch ((long)p % 8) {
    case 0: if (read(never[0], &b, 1) != -1) wrong("read", 1, -1); break;
    case 1: pthread_cond_wait(&S->cond, &S->mutex); break;
    case 2: sem_wait(&S->sem); break;
    case 3: poll(&f, 1, -1); break;
    case 4: pause(); break;
    case 5: sleep(1000); break;
    case 6: sigwait(&none, &(int){0}); break;
    default: for (volatile int n = 0;; n++) if (n % 1000 == 0) pthread_testcancel();
    }
  pthread_cleanup_pop(0);
  return NULL;
}
static _Noreturn void *computes(void *p) {
  (void)p;
  pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
  atomic_fetch_add(&S->d, 1);
  for (volatile long n = 0;; n++) {}
}
void cancellation(void) {
  int busy = below(4) == 0;
  if (busy && count > 8) count = 8;
  init_mutex(PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_NONE, 0, 0);
  pthread_cond_init(&S->cond, NULL);
  sem_init(&S->sem, 0, 0);
  S->c = S->d = 0;
  start_all(busy ? computes : waits);
  if (below(2)) while (S->d < count) pause_us(100);
  for (int n = 0; n < count; n++) same("pthread_cancel", pthread_cancel(threads[n]), 0);
  long started = 0;
  for (int n = 0; n < count; n++) {
    void *r;
    same("pthread_join", pthread_join(threads[n], &r), 0);
    same("a cancelled thread's value", (long)r, (long)PTHREAD_CANCELED);
    started++;
  }
  if (!busy) same("cleanups of those that came to wait", S->c, S->d);
  same("the mutex is free", pthread_mutex_trylock(&S->mutex), 0);
  pthread_mutex_unlock(&S->mutex);
}

/* Threads that come and go; their own data is destroyed. */
static pthread_key_t key;
static pthread_once_t once;
static _Thread_local long own;
static void destroyed(void *p) {
  (void)p;
  atomic_fetch_add(&S->c, 1);
}
static void only_once(void) { atomic_fetch_add(&S->d, 1); }
static void *comes(void *p) {
  pthread_once(&once, only_once);
  own += (long)p + 1;
  same("a new thread's own", own, (long)p + 1);
  pthread_setspecific(key, p ? p : &own);
  char *m = malloc(100 + (long)p * 100);
  memset(m, 1, 100);
  free(m);
  return p;
}
void coming_and_going(void) {
  pthread_key_create(&key, destroyed);
  S->c = S->d = 0;
  once = PTHREAD_ONCE_INIT;
  pthread_attr_t small, detached;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 65536);
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  for (int k = 0; k < 4; k++) {
    long begun = S->c;
    for (int n = 0; n < count; n++) same("pthread_create", pthread_create(&threads[n], k % 2 ? &small : &detached, comes, (void *)(long)n), 0);
    if (k % 2) join_all();
    else while (S->c < begun + count) pause_us(100);
  }
  same("destructors", S->c, 4L * count);
  same("pthread_once", S->d, 1);
  pthread_key_delete(key);
}

/* fork from several threads while others hold locks of malloc and stdio. */
static atomic_int stopped;
static void *allocates(void *p) {
  while (!stopped) {
    char *m = malloc(32 + (long)p * 500);
    m[0] = 1;
    free(m);
    fflush(stdout);
  }
  return NULL;
}
static void *returns(void *p) { return p; }
static void *forks(void *p) {
  for (int n = 0; n < 1 + turns / 200; n++) {
    pid_t c = fork();
    if (c < 0) wrong("fork", -errno, 0);
    if (c == 0) {
      pthread_t t;
      void *r;
      char *m = malloc(1000);
      m[0] = 1;
      free(m);
      if (pthread_create(&t, NULL, returns, p) || pthread_join(t, &r) || r != p) _exit(2);
      if ((n + (long)p) % 4 == 0) execl(self, self, "--exec", NULL);
      _exit(0);
    }
    int status;
    same("waitpid", waitpid(c, &status, 0), c);
    same("a child's status", status, 0);
  }
  return NULL;
}
static void *fork_or_not(void *p) { return (long)p % 4 == 0 ? forks(p) : allocates(p); }
void forking(void) {
  if (count > 16) count = 16;
  stopped = 0;
  start_all(fork_or_not);
  for (int n = 0; n < count; n += 4) pthread_join(threads[n], NULL);
  stopped = 1;
  for (int n = 0; n < count; n++) if (n % 4) pthread_join(threads[n], NULL);
}

/* exec, exit and the end by a signal in the midst of many threads. */
static void *spins_or_waits(void *p) {
  atomic_fetch_add(&S->c, 1);
  if ((long)p % 2) return waits(p);
  for (volatile long n = 0;; n++) if (n % 100000 == 0) sched_yield();
}
static void *ends(void *p) {
  if ((long)p == 0) execl(self, self, "--exec", NULL);
  if ((long)p == 1) exit(0);
  kill(getpid(), SIGUSR1);
  return NULL;
}
void ending(void) {
  for (long how = 0; how < 6; how++) {
    S->c = 0;
    pid_t p = fork();
    if (p == 0) {
      signal(SIGUSR1, SIG_DFL);
      if (count > 12) count = 12;
      start_all(spins_or_waits);
      if (how > 2) while (S->c < count) pause_us(100);
      pthread_t t;
      if (below(2)) ends((void *)(how % 3));
      pthread_create(&t, NULL, ends, (void *)(how % 3));
      for (;;) pause();
    }
    int status;
    same("waitpid", waitpid(p, &status, 0), p);
    same("the process's status", status, how % 3 == 2 ? SIGUSR1 : 0);
  }
}

/* Handlers in the middle of everything. */
static void handler(int s) {
  (void)s;
  int e = errno;
  atomic_fetch_add(&S->d, 1);
  errno = e;
}
static void *storms(void *p) {
  (void)p;
  unsigned n = 0;
  while (!stopped) {
    pthread_kill(threads[n++ % count], SIGUSR1);
    pause_us(50);
  }
  return NULL;
}
void signals(void) {
  pthread_t t;
  struct sigaction a = {.sa_handler = handler, .sa_flags = below(2) ? SA_RESTART : 0};
  sigaction(SIGUSR1, &a, NULL);
  init_mutex(mutex_type = PTHREAD_MUTEX_NORMAL, below(2) ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE, 0, 0);
  S->a = 0;
  stopped = 0;
  start_all(counts);
  pthread_create(&t, NULL, storms, NULL);
  /* Not joined before the storm is over: a thread that was joined is none. */
  for (;;) {
    pthread_mutex_lock(&S->mutex);
    long a = S->a;
    pthread_mutex_unlock(&S->mutex);
    if (a == (long)count * turns) break;
    pause_us(1000);
  }
  stopped = 1;
  pthread_join(t, NULL);
  join_all();
  same("the count", S->a, (long)count * turns);
  signal(SIGUSR1, SIG_DFL);
}
