/*
 * The memory model, with threads on shared words: what x86-TSO forbids never shows (Intel SDM vol. 3, 8.2.3).
 * Only what is forbidden is printed, so that the output is the same on every run.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { ROUNDS = 4000 };
static volatile long x, y, seen[4];
static volatile int go, done;
static int threads;

/* Plain accesses; the compiler keeps their order, the CPU decides the rest. */
#define READ(v) (*(volatile long *)&(v))
#define WRITE(v, n) (*(volatile long *)&(v) = (n))

static void mp0(void) { WRITE(x, 1); WRITE(y, 1); }
static void mp1(void) { seen[0] = READ(y); seen[1] = READ(x); }
static int mp(void) { return seen[0] == 1 && seen[1] == 0; }
static void sb0(void) { WRITE(x, 1); __asm__ volatile("mfence" ::: "memory"); seen[0] = READ(y); }
static void sb1(void) { WRITE(y, 1); __asm__ volatile("mfence" ::: "memory"); seen[1] = READ(x); }
static int sb(void) { return seen[0] == 0 && seen[1] == 0; }
static void sbx0(void) { long v = 1; __asm__ volatile("xchg %0,%1" : "+r"(v), "+m"(x)::"memory"); seen[0] = READ(y); }
static void sbx1(void) { long v = 1; __asm__ volatile("xchg %0,%1" : "+r"(v), "+m"(y)::"memory"); seen[1] = READ(x); }
static void lb0(void) { seen[0] = READ(x); WRITE(y, 1); }
static void lb1(void) { seen[1] = READ(y); WRITE(x, 1); }
static int lb(void) { return seen[0] == 1 && seen[1] == 1; }
static void w0(void) { WRITE(x, 1); WRITE(y, 2); }
static void w1(void) { WRITE(y, 1); WRITE(x, 2); }
static int w(void) { return READ(x) == 1 && READ(y) == 1; }
static void iriw0(void) { WRITE(x, 1); }
static void iriw1(void) { WRITE(y, 1); }
static void iriw2(void) { seen[0] = READ(x); seen[1] = READ(y); }
static void iriw3(void) { seen[2] = READ(y); seen[3] = READ(x); }
static int iriw(void) { return seen[0] == 1 && seen[1] == 0 && seen[2] == 1 && seen[3] == 0; }

static const struct test { const char *name; void (*run[4])(void); int (*forbidden)(void); } tests[] = {
  { "MP", { mp0, mp1 }, mp }, { "SB with fences", { sb0, sb1 }, sb }, { "SB with XCHG", { sbx0, sbx1 }, sb },
  { "LB", { lb0, lb1 }, lb }, { "2+2W", { w0, w1 }, w }, { "IRIW", { iriw0, iriw1, iriw2, iriw3 }, iriw },
};
static const struct test *now;

static void *worker(void *arg) {
  long me = (long)arg;
  for (int round = 1; round <= ROUNDS; round++) {
    while (go < round) sched_yield();
    now->run[me]();
    __atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
  }
  return NULL;
}

static char area[64] __attribute__((aligned(64)));
static __int128 wide __attribute__((aligned(16)));

static void *counter(void *arg) {
  (void)arg;
  for (int i = 0; i < 20000; i++) {
    __asm__ volatile("lock incq %0" : "+m"(*(long *)(area + 3))::"memory");
    __asm__ volatile("lock xaddl %0,%1" : "+r"((int){ 2 }), "+m"(*(int *)(area + 32))::"memory", "cc");
    uint64_t low, high;
    unsigned char ok;
    do {
      memcpy(&low, &wide, 8), memcpy(&high, (char *)&wide + 8, 8);
      __asm__ volatile("lock cmpxchg16b %1\n setz %0" : "=q"(ok), "+m"(wide), "+a"(low), "+d"(high) : "b"(low + 1), "c"(high - 1) : "memory", "cc");
    } while (!ok);
  }
  return NULL;
}

static long flag;
static void *setter(void *arg) { sched_yield(); WRITE(flag, 1); return arg; }

int main(void) {
  pthread_t t[4];
  for (unsigned n = 0; n < sizeof tests / sizeof *tests; n++) {
    int bad = 0;
    now = &tests[n];
    for (threads = 0; threads < 4 && now->run[threads];) threads++;
    go = done = 0;
    for (long i = 0; i < threads; i++) pthread_create(&t[i], NULL, worker, (void *)i);
    for (int round = 1; round <= ROUNDS; round++) {
      x = y = 0, memset((void *)seen, 0, sizeof seen);
      __atomic_store_n(&go, round, __ATOMIC_SEQ_CST);
      while (done < round * threads) sched_yield();
      bad += now->forbidden();
    }
    for (int i = 0; i < threads; i++) pthread_join(t[i], NULL);
    printf("%s: %d forbidden\n", now->name, bad);
  }
  /* A spin on a plain load ends. */
  pthread_create(&t[0], NULL, setter, NULL);
  while (READ(flag) == 0) {}
  pthread_join(t[0], NULL);
  for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, counter, NULL);
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
  long misaligned;
  memcpy(&misaligned, area + 3, 8);
  printf("%ld %d %lx %lx\n", misaligned, *(int *)(area + 32), (long)wide, (long)(wide >> 64));
  return 0;
}
