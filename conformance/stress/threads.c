/*
 * threads SECONDS SEED [NAME]     rounds of POSIX threads under stress, in random order (or NAME alone)
 *
 * Each round starts up to 64 threads or processes and checks what they leave. The first thing that is
 * wrong, or a round that makes no progress for a minute, ends the run with "not ok - ROUND: …".
 */
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

enum { MAX = 64, SILENT_SECONDS = 60 };
#define LENGTH(a) ((int)(sizeof(a) / sizeof *(a)))

static const char *round_name = "start";
static char *self;
static uint64_t state;
static unsigned below(unsigned n) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (state >> 32) % n;
}

static _Noreturn void wrong(const char *what, long got, long want) {
  char line[200];
  int n = snprintf(line, sizeof line, "not ok - %s: %s: %ld, not %ld\n", round_name, what, got, want);
  if (write(1, line, n) != n) _exit(3);
  _exit(1);
}
static void same(const char *what, long got, long want) {
  if (got != want) wrong(what, got, want);
}
static void silent(int s) {
  (void)s;
  wrong("no progress, seconds", SILENT_SECONDS, 0);
}
static long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
static void pause_us(long us) {
  struct timespec t = {0, us * 1000};
  nanosleep(&t, NULL);
}
static struct timespec in_ms(long ms) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  t.tv_nsec += ms % 1000 * 1000000;
  t.tv_sec += ms / 1000 + t.tv_nsec / 1000000000;
  t.tv_nsec %= 1000000000;
  return t;
}

static pthread_t threads[MAX];
static int count, turns;
static void start_all(void *(*f)(void *)) {
  for (int n = 0; n < count; n++) same("pthread_create", pthread_create(&threads[n], NULL, f, (void *)(long)n), 0);
}
static void join_all(void) {
  for (int n = 0; n < count; n++) same("pthread_join", pthread_join(threads[n], NULL), 0);
}
static void all(void *(*f)(void *)) {
  start_all(f);
  join_all();
}
/* Waits for `n` children that have to end with 0. */
static void reap_all(int n) {
  for (int status; n > 0; n--) {
    pid_t p = wait(&status);
    if (p < 0) wrong("wait", -errno, n);
    same("a child's status", status, 0);
  }
}

/* Memory that children share with us. */
static struct shared {
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  pthread_barrier_t barrier;
  pthread_rwlock_t rwlock;
  sem_t sem;
  long a, b;
  atomic_long c, d;
} *S;

static void init_mutex(int type, int protocol, int robust, int shared) {
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
static int mutex_type;
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
static void *counts(void *p) {
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
static void mutexes(void) {
  static const int types[] = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ADAPTIVE_NP};
  mutex_type = types[below(4)];
  init_mutex(mutex_type, below(2) ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE, below(2), below(2));
  S->a = 0;
  all(counts);
  same("the count", S->a, (long)count * turns);
  pthread_mutex_destroy(&S->mutex);
}

/* The same between processes. */
static void processes(void) {
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
static void conditions(void) {
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
static void barriers(void) {
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
static void rwlocks(void) {
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
static void semaphores(void) {
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
static void robust(void) {
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

/* Cancellation in calls that wait: cleanups run, the mutex of a condition is held by them. */
static int never[2];
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
static void cancellation(void) {
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
static void coming_and_going(void) {
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
static void forking(void) {
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
static void ending(void) {
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
static void signals(void) {
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

static const struct { const char *name; void (*run)(void); } rounds[] = {
  {"mutexes", mutexes}, {"processes", processes}, {"conditions", conditions}, {"barriers", barriers}, {"rwlocks", rwlocks}, {"semaphores", semaphores}, {"robust", robust},
  {"cancellation", cancellation}, {"coming and going", coming_and_going}, {"forking", forking}, {"ending", ending}, {"signals", signals},
};

int main(int argc, char **argv) {
  if (argc == 2 && !strcmp(argv[1], "--exec")) return 0;
  if (argc < 3) return 2;
  self = argv[0];
  state = strtoull(argv[2], NULL, 0) * 0x9e3779b97f4a7c15ull + 1;
  long until = now_ms() + atol(argv[1]) * 1000, made[LENGTH(rounds)] = {0}, total = 0;
  S = mmap(NULL, sizeof *S, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (pipe2(never, O_CLOEXEC)) return 2;
  signal(SIGALRM, silent);
  while (now_ms() < until || total < LENGTH(rounds)) {
    int n = total < LENGTH(rounds) ? total : (long)below(LENGTH(rounds));
    if (argc > 3 && strcmp(argv[3], rounds[n].name)) {
      total++;
      continue;
    }
    round_name = rounds[n].name;
    count = below(3) ? 2 + below(7) : 1 + below(MAX);
    turns = 20 + below(800) / (count / 8 + 1);
    alarm(SILENT_SECONDS);
    rounds[n].run();
    made[n]++;
    total++;
  }
  for (int n = 0; n < LENGTH(rounds); n++) printf("ok - %s # %ld rounds\n", rounds[n].name, made[n]);
  return 0;
}
