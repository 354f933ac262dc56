/* futex: futex(2). Waiting, waking, bitsets, requeueing, FUTEX_WAKE_OP, priority inheritance. */
#include "check.h"
#include <linux/futex.h>
#include <pthread.h>

static uint32_t word, other, pi;
static volatile int woken;

static long futex(uint32_t *a, int op, uint32_t v, const void *t, uint32_t *b, uint32_t v3) { return sys(futex, a, op, v, t, b, v3); }
static void *waits(void *bits) {
  if (futex(&word, FUTEX_WAIT_BITSET, 0, NULL, NULL, (uint32_t)(long)bits) == 0) __atomic_fetch_add(&woken, 1, __ATOMIC_SEQ_CST);
  return NULL;
}
static void *locks(void *p) {
  long r = futex(&pi, FUTEX_LOCK_PI, 0, NULL, NULL, 0);
  if (r == 0 && (pi & FUTEX_TID_MASK) == (uint32_t)gettid()) woken = 1;
  futex(&pi, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0);
  return NULL;
}
static pthread_t start(void *(*f)(void *), void *a) {
  pthread_t t;
  pthread_create(&t, NULL, f, a);
  pause_ms(15);
  return t;
}

int main(int argc, char **argv) {
  struct timespec ms = {0, 5000000}, past = {0, 0}, wrong = {0, 1000000000};
  pthread_t t[4];
  FAILS("futex: misaligned", EINVAL, futex((uint32_t *)((char *)&word + 1), FUTEX_WAKE, 1, NULL, NULL, 0));
  FAILS("futex: unknown operation", ENOSYS, futex(&word, 77, 1, NULL, NULL, 0));
  FAILS("futex: another value", EAGAIN, futex(&word, FUTEX_WAIT, 1, NULL, NULL, 0));
  FAILS("futex: bad address", EFAULT, futex(bad_address(), FUTEX_WAIT, 1, NULL, NULL, 0));
  FAILS("futex: timeout", ETIMEDOUT, futex(&word, FUTEX_WAIT, 0, &ms, NULL, 0));
  FAILS("futex: private, timeout", ETIMEDOUT, futex(&word, FUTEX_WAIT_PRIVATE, 0, &ms, NULL, 0));
  FAILS("futex: too many nanoseconds", EINVAL, futex(&word, FUTEX_WAIT, 0, &wrong, NULL, 0));
  FAILS("futex: bad address of the timeout", EFAULT, futex(&word, FUTEX_WAIT, 0, bad_address(), NULL, 0));
  FAILS("futex: an absolute time that is past", ETIMEDOUT, futex(&word, FUTEX_WAIT_BITSET, 0, &past, NULL, ~0u));
  FAILS("futex: an empty bitset", EINVAL, futex(&word, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0));
  FAILS("futex: an empty bitset to wake", EINVAL, futex(&word, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0));
  FAILS("futex: FUTEX_CLOCK_REALTIME is not for waking", ENOSYS, futex(&word, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1, NULL, NULL, 0));
  GIVES("futex: nobody to wake", 0, futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0));
  t[0] = start(waits, (void *)1);
  t[1] = start(waits, (void *)2);
  GIVES("futex: a bitset nobody waits for", 0, futex(&word, FUTEX_WAKE_BITSET, 9, NULL, NULL, 4));
  GIVES("futex: one bitset", 1, futex(&word, FUTEX_WAKE_BITSET, 9, NULL, NULL, 2));
  GIVES("futex: the rest", 1, futex(&word, FUTEX_WAKE, 9, NULL, NULL, 0));
  pthread_join(t[0], NULL);
  pthread_join(t[1], NULL);
  GIVES("futex: both ran on", 2, woken);
  for (int n = 0; n < 3; n++) t[n] = start(waits, (void *)-1L);
  FAILS("futex: FUTEX_CMP_REQUEUE of another value", EAGAIN, futex(&word, FUTEX_CMP_REQUEUE, 1, (void *)9, &other, 7));
  GIVES("futex: FUTEX_CMP_REQUEUE", 3, futex(&word, FUTEX_CMP_REQUEUE, 1, (void *)9, &other, 0));
  GIVES("futex: two wait elsewhere now", 2, futex(&other, FUTEX_WAKE, 9, NULL, NULL, 0));
  for (int n = 0; n < 3; n++) pthread_join(t[n], NULL);
  t[0] = start(waits, (void *)-1L);
  other = 5;
  GIVES("futex: FUTEX_WAKE_OP", 1, futex(&word, FUTEX_WAKE_OP, 1, (void *)1, &other, FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 5)));
  GIVES("futex: has added", 8, other);
  pthread_join(t[0], NULL);
  GIVES("futex: FUTEX_LOCK_PI of a free one", 0, futex(&pi, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
  GIVES("futex: is the thread's", gettid(), pi & FUTEX_TID_MASK);
  FAILS("futex: FUTEX_LOCK_PI twice", EDEADLK, futex(&pi, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
  FAILS("futex: FUTEX_TRYLOCK_PI of one's own", EDEADLK, futex(&pi, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0));
  woken = 0;
  t[0] = start(locks, NULL);
  OK("futex: FUTEX_WAITERS", pi & FUTEX_WAITERS);
  GIVES("futex: FUTEX_UNLOCK_PI", 0, futex(&pi, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
  pthread_join(t[0], NULL);
  GIVES("futex: hands over", 1, woken);
  pi = 1;
  FAILS("futex: FUTEX_UNLOCK_PI of another's", EPERM, futex(&pi, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
  pi = gettid() | FUTEX_OWNER_DIED;
  pi = 0;
  GIVES("futex: FUTEX_LOCK_PI2 with a time", 0, ({ struct timespec later = {1 << 30, 0}; futex(&pi, 13, 0, &later, NULL, 0); }));
  uint32_t *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pid_t child = fork();
  if (child == 0) _exit(futex(shared, FUTEX_WAIT, 0, NULL, NULL, 0) == 0 ? 0 : errno);
  pause_ms(20);
  GIVES("futex: shared with a child", 1, futex(shared, FUTEX_WAKE, 1, NULL, NULL, 0));
  GIVES("futex: the child ran on", 0, reap(child));
  return done();
}
