/* Random numbers that a seed decides (xorshift64*); `state` is the seed, never 0. */
#include <stdint.h>

static uint64_t state;
static uint64_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state * 0x2545f4914f6cdd1dull;
}
static unsigned below(unsigned n) { return (next() >> 33) % n; }
static int one_in(unsigned n) { return below(n) == 0; }
