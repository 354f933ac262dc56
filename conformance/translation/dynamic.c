/* What the dynamic linker does: ifuncs, thread-local variables of all models, constructors, dlopen, symbols found by name. PART 1 is the library. */
#define _GNU_SOURCE
#include <complex.h>
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if PART == 1
static int small(int n) { return n + 1; }
static int large(int n) { return n * 1000; }
static int (*choose(void))(int) { return getenv ? large : small; }
int chosen(int) __attribute__((ifunc("choose")));
__thread int counter = 100;
__thread char area[5000] = "thread's own";
static __thread int *here;
int next(void) { if (!here) here = &counter; return ++*here; }
const char *text(void) { area[0]++; return area; }
__attribute__((constructor)) static void begins(void) { puts("library begins"); }
__attribute__((destructor)) static void ends(void) { puts("library ends"); }
__attribute__((weak)) int overridden(void) { return 1; }
int calls_overridden(void) { return overridden(); }
long double wide(long double x, float y, double complex z) { return sqrtl(x) + y + creal(z) * cimag(z); }
struct Big { long a[5]; double d; };
struct Big big(struct Big b, int n, ...) { b.a[n % 5] += n; b.d *= 2; return b; }
#else
struct Big { long a[5]; double d; };
int overridden(void) { return 2; }
static int begun;
static __thread int local = 3;
__attribute__((constructor(101))) static void first(void) { begun = begun * 10 + 1; }
__attribute__((constructor(102))) static void second(void) { begun = begun * 10 + 2; }
static void left(void) { puts("at exit"); }
static int near(int n) { return n + 7; }
static int (*resolve(void))(int) { return near; }
static int picked(int) __attribute__((ifunc("resolve")));

static void *library;
static void *threads(void *arg) {
  int (*next)(void) = dlsym(library, "next");
  const char *(*text)(void) = dlsym(library, "text");
  for (int n = 0; n < 5; n++) next(), text(), local++;
  *(int *)arg = next() * 1000 + local;
  return (void *)(size_t)text()[0];
}

int main(int argc, char **argv) {
  (void)argc;
  atexit(left);
  printf("constructors %d, ifunc %d\n", begun, picked(1));
  char path[4096];
  snprintf(path, sizeof path, "%s.so", argv[0]);
  for (int round = 0; round < 2; round++) {
    library = dlopen(path, round ? RTLD_LAZY | RTLD_GLOBAL : RTLD_NOW);
    if (!library) { printf("dlopen: %s\n", dlerror()); return 1; }
    printf("chosen %d, overridden %d\n", ((int (*)(int))dlsym(library, "chosen"))(3), ((int (*)(void))dlsym(library, "calls_overridden"))());
    printf("wide %.18Lf\n", ((long double (*)(long double, float, double complex))dlsym(library, "wide"))(2.0L, 0.5f, 3 + 4 * I));
    struct Big b = { { 1, 2, 3, 4, 5 }, 1.5 };
    b = ((struct Big(*)(struct Big, int, ...))dlsym(library, "big"))(b, 7, 1, 2.5, "three");
    printf("big %ld %ld %f\n", b.a[2], b.a[4], b.d);
    pthread_t t[3];
    int results[3];
    for (int n = 0; n < 3; n++) pthread_create(&t[n], NULL, threads, &results[n]);
    for (int n = 0; n < 3; n++) {
      void *letter;
      pthread_join(t[n], &letter);
      printf("thread %d %c\n", results[n], (char)(size_t)letter);
    }
    printf("main's own %d\n", ((int (*)(void))dlsym(library, "next"))());
    Dl_info info;
    printf("dladdr %s\n", dladdr(dlsym(library, "wide"), &info) && info.dli_sname ? info.dli_sname : "nothing");
    printf("not there: %s\n", dlsym(library, "absent") ? "found" : "none");
    printf("closed %d\n", dlclose(library));
  }
  printf("next qsort %d\n", dlsym(RTLD_NEXT, "qsort") == dlsym(RTLD_DEFAULT, "qsort"));
  char *end;
  long double parsed = strtold("3.14159265358979323846264338327950288x", &end);
  printf("%.25Lf %s %La %Lg\n", parsed, end, parsed, powl(2.0L, 16000.0L));
  printf("%.20Lf %.20Lf %.20Lf\n", sinl(1e10L), expl(1.5L), logl(parsed));
  printf("%.19Lf %Lf %Lf\n", fmodl(1e18L, 7.1L), rintl(2.5L), ldexpl(1.0L, 70));
  return 0;
}
#endif
