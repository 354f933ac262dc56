/*
 * threads SECONDS SEED [NAME]     rounds of POSIX threads under stress, in random order (or NAME alone)
 *
 * Each round starts up to 64 threads or processes and checks what they leave. The first thing that is
 * wrong, or a round that makes no progress for a minute, ends the run with "not ok - ROUND: …".
 */
#include "stress.h"

enum { SILENT_SECONDS = 60 };

char *self;
pthread_t threads[MAX];
int count, turns;
struct shared *S;
static const char *round_name = "start";

static uint64_t state;
unsigned below(unsigned n) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (state >> 32) % n;
}

_Noreturn void wrong(const char *what, long got, long want) {
  char line[200];
  int n = snprintf(line, sizeof line, "not ok - %s: %s: %ld, not %ld\n", round_name, what, got, want);
  if (write(1, line, n) != n) _exit(3);
  _exit(1);
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
