/* swapcontext(3): fifty coroutines that wait at one and the same place in the code, and one that ends. */
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

enum { COUNT = 50, ROUNDS = 200, STACK = 1 << 15 };
static ucontext_t home, of[COUNT];
static long sums[COUNT];
static int current;

static long yield(long v) {
  int me = current;
  swapcontext(&of[me], &home);
  return v + me;
}

static long deep(int n, long v) { return n == 0 ? yield(v) : deep(n - 1, v + n) * 3 % 1000003; }

static void body(int n) {
  for (int i = 0; i < ROUNDS; i++) {
    sums[n] = sums[n] * 7 + yield(i);
    if (i % 8 == n % 8) sums[n] ^= deep(n % 5 + 1, i);
  }
}

int main(void) {
  for (int n = 0; n < COUNT; n++) {
    getcontext(&of[n]);
    of[n].uc_stack.ss_sp = malloc(STACK);
    of[n].uc_stack.ss_size = STACK;
    of[n].uc_link = &home;
    makecontext(&of[n], (void (*)(void))body, 1, n);
  }
  for (int i = 0; i < ROUNDS; i++)
    for (current = 0; current < COUNT; current++) swapcontext(&home, &of[current]);
  for (int n = 0; n < COUNT; n++) printf("%lx\n", sums[n]);
  return 0;
}
