/* Jump tables and computed gotos in the forms compilers give them; prints what each computes. */
#include <stdint.h>
#include <stdio.h>

static uint64_t seed = 88172645463325252u;
static uint64_t next(void) {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return seed;
}

/* Dense, in a loop: one table, bounded. */
__attribute__((noinline)) static long dense(const uint8_t *code, int n) {
  long a = 1, b = 2, c = 3;
  for (int i = 0; i < n; i++) switch (code[i] & 31) {
    case 0: a += b; break;
    case 1: b += c; break;
    case 2: c += a; break;
    case 3: a ^= c; break;
    case 4: b -= a; break;
    case 5: c = -c; break;
    case 6: a = a << 1 | (uint64_t)a >> 63; break;
    case 7: if (b & 1) goto odd; b >>= 1; break;
    case 8: a *= 3; break;
    case 9: b *= 5; /* fall through */
    case 10: c *= 7; break;
    case 11: i += 1; break;
    case 12: odd: a -= 11; break;
    case 13: for (int k = 0; k < (c & 3); k++) b += k; break;
    case 14: a = c; break;
    case 15: c = b; break;
    case 16: if (i % 97 == 0) return a + b; break;
    case 17: { long t = a; a = b; b = t; } break;
    default: c++;
    }
  return a ^ b ^ c;
}

/* Two switches in one loop: the compiler keeps both tables' addresses in registers. */
__attribute__((noinline)) static unsigned two(const uint8_t *code, int n) {
  unsigned x = 0, y = 1;
  for (int i = 0; i < n; i++) {
    switch (code[i] % 9) { case 0: x++; break; case 1: x += y; break; case 2: x ^= 5; break; case 3: x <<= 1; break; case 4: x -= 3; break; case 5: y += x; break; case 6: x |= 8; break; case 7: x = ~x; break; case 8: y ^= x; }
    switch ((signed char)code[i] >> 4) { case -8: y++; break; case -7: y += 2; break; case -5: y *= 3; break; case -3: y -= x; break; case -1: y ^= 77; break; case 0: y += 5; break; case 2: y = x; break; case 5: x = y; break; case 7: x += 9; }
  }
  return x * 31 + y;
}

__attribute__((noinline)) static int sparse(uint64_t v) {
  switch (v) {
  case 1: return 10; case 2: return 20; case 3: return 30; case 4: return 41; case 5: return 50; case 6: return 61;
  case 100: return 7; case 10000: return 8; case 0xffffffffull: return 9; case 0x100000001ull: return 11; case 0x100000003ull: return 12;
  default: return -1;
  }
}

/* Threaded code with a dispatch at each label. */
__attribute__((noinline)) static long threaded(const uint8_t *code, int n) {
  static void *const labels[] = { &&add, &&sub, &&dup, &&mul, &&jump, &&loop, &&swap, &&stop };
  const uint8_t *p = code, *end = code + n;
  long stack[4] = { 1, 2, 3, 4 }, top = 5;
  int left = 3000;
#define NEXT do { if (p >= end || --left < 0) goto stop; goto *labels[*p++ & 7]; } while (0)
  NEXT;
add: top += stack[0]; NEXT;
sub: top -= stack[1]; stack[1] = top & 0xff; NEXT;
dup: stack[2] = top; NEXT;
mul: top = top * 17 + stack[2]; NEXT;
jump: p += *p & 3; NEXT;
loop: for (int i = 0; i < 3; i++) { stack[3] += i; if (stack[3] & 4) goto add; } NEXT;
swap: { long t = stack[0]; stack[0] = stack[3]; stack[3] = t & 1023; } NEXT;
stop: return top;
}

/* Labels as differences, as position independent interpreters have them. */
__attribute__((noinline)) static long differences(const uint8_t *code, int n) {
  static const int at[] = { &&a - &&a, &&b - &&a, &&c - &&a, &&d - &&a };
  long v = 0;
  int i = 0;
step:
  if (i >= n) return v;
  goto *(&&a + at[code[i++] & 3]);
a: v += 1; goto step;
b: v *= 3; goto step;
c: v ^= i; goto step;
d: v -= 7; if (v & 1) goto b; goto step;
}

/* A table of 256 labels read by a byte, as CPython's interpreter has one: no comparison, and values in registers
   of every kind from one label to the next. */
__attribute__((noinline)) static long scaled(long a, long b) { return a * 3 + b; }
__attribute__((noinline)) static long by_byte(const uint8_t *code, int n) {
  static void *const labels[256] = { [0 ... 255] = &&rest, [3] = &&add, [5 ... 60] = &&turn, [61 ... 99] = &&call, [100 ... 140] = &&divide, [250] = &&real };
  const uint8_t *p = code, *end = code + n;
  long a = 1, b = 2, c = 3, d = 5;
  double f = 1;
#define GO do { if (p >= end) return a ^ b ^ c ^ d ^ (long)f; goto *labels[*p++]; } while (0)
  GO;
add: a += b; GO;
turn: { long t = a; a = b; b = c; c = d; d = t + 1; } GO;
call: a = scaled(a, d) & 0xffff; GO;
divide: b = (unsigned long)b / (unsigned char)(c | 1); d ^= b << (c & 31); GO;
real: f = f * 1.5 + (double)(a & 7); if (f > 1e9) f = 1; GO;
rest: c = c * 33 + p[-1]; GO;
}

/* Duff's device: a table into the middle of a loop. */
__attribute__((noinline)) static unsigned duff(const uint8_t *p, unsigned n) {
  unsigned s = 0, k = (n + 7) / 8;
  if (n == 0) return 0;
  switch (n % 8) {
  case 0: do { s = s * 33 + *p++;
  case 7: s = s * 33 + *p++;
  case 6: s = s * 33 + *p++;
  case 5: s = s * 33 + *p++;
  case 4: s = s * 33 + *p++;
  case 3: s = s * 33 + *p++;
  case 2: s = s * 33 + *p++;
  case 1: s = s * 33 + *p++;
  } while (--k > 0);
  }
  return s;
}

int main(void) {
  static uint8_t code[5000];
  for (int round = 0; round < 20; round++) {
    for (unsigned i = 0; i < sizeof code; i++) code[i] = next() >> 24;
    printf("%ld %u %ld %ld", dense(code, sizeof code), two(code, sizeof code), threaded(code, sizeof code), differences(code, sizeof code));
    printf(" %ld", by_byte(code, sizeof code));
    for (unsigned n = 0; n < 18; n++) printf(" %x", duff(code, n));
    puts("");
  }
  const uint64_t values[] = { 0, 1, 2, 3, 4, 5, 6, 7, 99, 100, 10000, 0xffffffff, 0x100000000, 0x100000001, 0x100000002, 0x100000003, ~0ull };
  for (unsigned i = 0; i < sizeof values / sizeof *values; i++) printf("%d ", sparse(values[i]));
  puts("");
  return 0;
}
