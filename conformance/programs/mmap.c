/* Memory: mmap(2), munmap(2), mprotect(2), mremap(2), madvise(2), mincore(2), mlock(2), msync(2), brk(2), pkeys(7). */
#include "check.h"
#include <setjmp.h>

static sigjmp_buf out;
static volatile int code, signo;
static void fault(int s, siginfo_t *i, void *c) {
  signo = s;
  code = i->si_code;
  siglongjmp(out, 1);
}
/* 0, or the signal that a write (read) of the byte raises. */
static int touch(volatile char *p, int write) {
  signo = 0;
  if (sigsetjmp(out, 1) == 0) {
    if (write) *p = 1;
    else (void)*p;
  }
  return signo;
}
static void *map(size_t len, int prot, int flags, int fd) { return mmap(NULL, len, prot, flags, fd, 0); }
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
/* Where nothing is mapped. */
#define NOWHERE ((char *)0x6f000000)
#define MAPS(addr, len, prot, flags, fd, off) (long)(errno = 0, sys(mmap, addr, (long)(len), prot, flags, fd, (long)(off)))

int main(int argc, char **argv) {
  struct sigaction sa = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigaction(SIGSEGV, &sa, NULL);
  sigaction(SIGBUS, &sa, NULL);
  int fd = file_with("f", "file", O_RDWR), ro = open("f", O_RDONLY), img = open("/data/pages", O_RDONLY), p[2];
  char b[8], *a, *m;
  unsigned char vec[4];
  pipe(p);
  FAILS("mmap: no length", EINVAL, MAPS(NULL, 0, RW, ANON, -1, 0));
  FAILS("mmap: neither private nor shared", EINVAL, MAPS(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0));
  FAILS("mmap: an offset within a page", EINVAL, MAPS(NULL, PAGE, RW, MAP_PRIVATE, fd, 100));
  FAILS("mmap: a fixed address within a page", EINVAL, MAPS(0x10001000 + 1L, PAGE, RW, ANON | MAP_FIXED, -1, 0));
  FAILS("mmap: no descriptor", EBADF, MAPS(NULL, PAGE, RW, MAP_PRIVATE, 99, 0));
  FAILS("mmap: a pipe", ENODEV, MAPS(NULL, PAGE, PROT_READ, MAP_PRIVATE, p[0], 0));
  FAILS("mmap: a directory", ENODEV, MAPS(NULL, PAGE, PROT_READ, MAP_PRIVATE, open(".", O_RDONLY), 0));
  FAILS("mmap: shared and writable, read-only file", EACCES, MAPS(NULL, PAGE, RW, MAP_SHARED, ro, 0));
  FAILS("mmap: a write-only file", EACCES, MAPS(NULL, PAGE, PROT_WRITE, MAP_SHARED, open("f", O_WRONLY), 0));
  FAILS("mmap: all of memory", ENOMEM, MAPS(NULL, -4096L, RW, ANON, -1, 0));
  FAILS("mmap: MAP_SHARED_VALIDATE and unknown flags", EOPNOTSUPP, MAPS(NULL, PAGE, RW, MAP_SHARED_VALIDATE | 0x80000, fd, 0));
  a = map(4 * PAGE, RW, ANON, -1);
  OK("mmap: zeroes", a != MAP_FAILED && a[0] == 0 && a[4 * PAGE - 1] == 0);
  FAILS("mmap: MAP_FIXED_NOREPLACE", EEXIST, MAPS(a, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
  a[0] = 1;
  GIVES("mmap: MAP_FIXED replaces", a, MAPS(a, PAGE, RW, ANON | MAP_FIXED, -1, 0));
  GIVES("mmap: with zeroes", 0, a[0]);
  m = map(PAGE, RW, MAP_PRIVATE, fd);
  OK("mmap: a file", !memcmp(m, "file", 4) && m[4] == 0);
  m[0] = 'F';
  GIVES("mmap: private writes stay so", 'f', (pread(fd, b, 1, 0), b[0]));
  m = map(2 * PAGE, RW, MAP_SHARED, fd);
  m[0] = 'S';
  GIVES("mmap: shared writes are the file's", 'S', (pread(fd, b, 1, 0), b[0]));
  pwrite(fd, "W", 1, 1);
  GIVES("mmap: and the file's are seen", 'W', m[1]);
  GIVES("mmap: SIGBUS behind the end", SIGBUS, touch(m + PAGE, 0));
  GIVES("mmap: BUS_ADRERR", BUS_ADRERR, code);
  char *image = map(3 * PAGE, PROT_READ, MAP_PRIVATE, img);
  OK("mmap: an image file", !memcmp(image, "page\n", 4) && image[12000] != 1);
  image = map(PAGE, RW, MAP_PRIVATE, img);
  image[0] = 'X';
  GIVES("mmap: writes to an image file's private copy", 'p', (pread(img, b, 1, 0), b[0]));
  char *s = map(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1);
  IN_CHILD(s[0] = 7);
  GIVES("mmap: shared with a child", 7, s[0]);

  GIVES("munmap: gone", SIGSEGV, (munmap(a, PAGE), touch(a, 0)));
  GIVES("munmap: SEGV_MAPERR", SEGV_MAPERR, code);
  GIVES("munmap: the rest stays", 0, touch(a + PAGE, 1));
  FAILS("munmap: within a page", EINVAL, sys(munmap, a + 1, PAGE));
  FAILS("munmap: no length", EINVAL, sys(munmap, a, 0L));
  GIVES("munmap: nothing there is no error", 0, sys(munmap, a, (long)PAGE));
  GIVES("mprotect: read-only", SIGSEGV, (mprotect(a + PAGE, PAGE, PROT_READ), touch(a + PAGE, 1)));
  GIVES("mprotect: SEGV_ACCERR", SEGV_ACCERR, code);
  GIVES("mprotect: reads still", 0, touch(a + PAGE, 0));
  GIVES("mprotect: none", SIGSEGV, (mprotect(a + PAGE, PAGE, PROT_NONE), touch(a + PAGE, 0)));
  GIVES("mprotect: writable again", 0, (mprotect(a + PAGE, PAGE, RW), touch(a + PAGE, 1)));
  FAILS("mprotect: within a page", EINVAL, sys(mprotect, a + PAGE + 1, (long)PAGE, RW));
  FAILS("mprotect: what is not mapped", ENOMEM, sys(mprotect, NOWHERE, (long)PAGE, RW));
  FAILS("mprotect: a shared mapping of a read-only file", EACCES, sys(mprotect, map(PAGE, PROT_READ, MAP_SHARED, ro), (long)PAGE, RW));
  GIVES("mprotect: no length", 0, sys(mprotect, a + PAGE, 0L, RW));

  char *r = map(8 * PAGE, RW, ANON, -1);
  munmap(r + 4 * PAGE, 4 * PAGE);
  r[0] = 'r';
  FAILS("mremap: unknown flags", EINVAL, sys(mremap, r, (long)PAGE, (long)PAGE, 64, 0L));
  FAILS("mremap: within a page", EINVAL, sys(mremap, r + 1, (long)PAGE, (long)PAGE, 0, 0L));
  FAILS("mremap: no new length", EINVAL, sys(mremap, r, (long)PAGE, 0L, 0, 0L));
  FAILS("mremap: MREMAP_FIXED alone", EINVAL, sys(mremap, r, (long)PAGE, (long)PAGE, MREMAP_FIXED, a));
  FAILS("mremap: what is not mapped", EFAULT, sys(mremap, NOWHERE, (long)PAGE, 2L * PAGE, MREMAP_MAYMOVE, 0L));
  FAILS("mremap: growing into another mapping, not moving", ENOMEM, sys(mremap, r, (long)PAGE, 2L * PAGE, 0, 0L));
  GIVES("mremap: shrinks", r, sys(mremap, r, 4L * PAGE, 2L * PAGE, 0, 0L));
  GIVES("mremap: what was cut is gone", SIGSEGV, touch(r + 2 * PAGE, 0));
  char *moved = (char *)sys(mremap, r, 2L * PAGE, 64L * PAGE, MREMAP_MAYMOVE, 0L);
  OK("mremap: moves with its content", moved != MAP_FAILED && moved[0] == 'r' && moved[64 * PAGE - 1] == 0);
  char *to = map(4 * PAGE, RW, ANON, -1);
  GIVES("mremap: MREMAP_FIXED", to, sys(mremap, moved, (long)PAGE, (long)PAGE, MREMAP_FIXED | MREMAP_MAYMOVE, to));
  OK("mremap: is there", to[0] == 'r' && touch(moved, 0) == SIGSEGV);
  FAILS("mremap: overlapping", EINVAL, sys(mremap, to, 2L * PAGE, 2L * PAGE, MREMAP_FIXED | MREMAP_MAYMOVE, to + PAGE));
  char *dup = (char *)sys(mremap, s, 0L, (long)PAGE, MREMAP_MAYMOVE, 0L);
  OK("mremap: an old size of zero duplicates a shared mapping", dup != MAP_FAILED && dup != s && dup[0] == 7 && (s[0] = 8, dup[0] == 8));
  FAILS("mremap: not a private one", EINVAL, sys(mremap, to, 0L, (long)PAGE, MREMAP_MAYMOVE, 0L));
  char *left = (char *)sys(mremap, to, (long)PAGE, (long)PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0L);
  OK("mremap: MREMAP_DONTUNMAP leaves an empty mapping", left != MAP_FAILED && left != to && left[0] == 'r' && to[0] == 0);
  FAILS("mremap: MREMAP_DONTUNMAP resizes nothing", EINVAL, sys(mremap, to, (long)PAGE, 2L * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0L));

  to[0] = 5;
  GIVES("madvise: MADV_DONTNEED", 0, (sys(madvise, to, (long)PAGE, MADV_DONTNEED), to[0]));
  GIVES("madvise: a hint", 0, sys(madvise, to, (long)PAGE, MADV_WILLNEED));
  FAILS("madvise: unknown advice", EINVAL, sys(madvise, to, (long)PAGE, 999));
  FAILS("madvise: within a page", EINVAL, sys(madvise, to + 1, (long)PAGE, MADV_NORMAL));
  FAILS("madvise: what is not mapped", ENOMEM, sys(madvise, NOWHERE, (long)PAGE, MADV_NORMAL));
  GIVES("madvise: MADV_WIPEONFORK", 0, ({ to[0] = 6; sys(madvise, to, (long)PAGE, MADV_WIPEONFORK); IN_CHILD(_exit(to[0])); }));
  GIVES("madvise: MADV_DONTFORK", 1000 + SIGSEGV, ({ sys(madvise, left, (long)PAGE, MADV_DONTFORK); IN_CHILD(signal(SIGSEGV, SIG_DFL); (void)*(volatile char *)left); }));
  GIVES("madvise: MADV_REMOVE of private memory", -1, sys(madvise, to, (long)PAGE, MADV_REMOVE));

  char *c = map(3 * PAGE, RW, ANON, -1);
  c[PAGE] = 1;
  GIVES("mincore: three pages", 0, sys(mincore, c, 3L * PAGE, vec));
  OK("mincore: the one that was touched", (vec[1] & 1) && !(vec[0] & 1) && !(vec[2] & 1));
  FAILS("mincore: within a page", EINVAL, sys(mincore, c + 1, (long)PAGE, vec));
  FAILS("mincore: what is not mapped", ENOMEM, sys(mincore, NOWHERE, (long)PAGE, vec));
  FAILS("mincore: bad address", EFAULT, sys(mincore, c, (long)PAGE, bad_address()));
  GIVES("mlock: locks and touches", 1, (sys(mlock, c, 3L * PAGE), sys(mincore, c, 3L * PAGE, vec), vec[0] & 1));
  FAILS("mlock: what is not mapped", ENOMEM, sys(mlock, NOWHERE, (long)PAGE));
  GIVES("mlock: beyond the limit", ENOMEM, IN_CHILD(struct rlimit l = {PAGE, PAGE}; setrlimit(RLIMIT_MEMLOCK, &l); _exit(sys(mlock, c, 3L * PAGE) < 0 ? errno : 0)));
  GIVES("mlock: no limit at all", EPERM, IN_CHILD(struct rlimit l = {0, 0}; setrlimit(RLIMIT_MEMLOCK, &l); _exit(sys(mlock, c, 3L * PAGE) < 0 ? errno : 0)));
  FAILS("madvise: MADV_DONTNEED of locked pages", EINVAL, sys(madvise, c, (long)PAGE, MADV_DONTNEED));
  GIVES("munlock: unlocks", 0, sys(munlock, c, 3L * PAGE));
  FAILS("munlock: what is not mapped", ENOMEM, sys(munlock, NOWHERE, (long)PAGE));
  GIVES("mlock2: on fault", 0, sys(mlock2, c, 3L * PAGE, 1));
  FAILS("mlock2: unknown flags", EINVAL, sys(mlock2, c, 3L * PAGE, 2));
  FAILS("mlockall: no flags", EINVAL, sys(mlockall, 0));
  FAILS("mlockall: MCL_ONFAULT alone", EINVAL, sys(mlockall, 4));
  GIVES("mlockall: future mappings are touched", 1, IN_CHILD({
    struct rlimit l = {8 << 20, 8 << 20};
    setrlimit(RLIMIT_MEMLOCK, &l);
    if (sys(mlockall, MCL_FUTURE)) _exit(9);
    char *x = map(PAGE, RW, ANON, -1);
    sys(mincore, x, (long)PAGE, vec);
    _exit(vec[0] & 1);
  }));
  GIVES("munlockall: unlocks", 0, sys(munlockall));
  GIVES("msync: shared", 0, sys(msync, m, (long)PAGE, MS_SYNC));
  FAILS("msync: both kinds", EINVAL, sys(msync, m, (long)PAGE, MS_SYNC | MS_ASYNC));
  FAILS("msync: unknown flags", EINVAL, sys(msync, m, (long)PAGE, 8));
  FAILS("msync: within a page", EINVAL, sys(msync, m + 1, (long)PAGE, MS_SYNC));
  FAILS("msync: what is not mapped", ENOMEM, sys(msync, NOWHERE, (long)PAGE, MS_SYNC));
  long brk0 = sys(brk, 0L);
  GIVES("brk: grows", brk0 + 2 * PAGE, sys(brk, brk0 + 2 * PAGE));
  GIVES("brk: is zero", 0, *(char *)(brk0 + PAGE));
  GIVES("brk: shrinks", brk0, sys(brk, brk0));
  GIVES("brk: below its start", brk0, sys(brk, 1L));
  FAILS("pkey_free: none", EINVAL, sys(pkey_free, 5));
  FAILS("pkey_alloc: flags", EINVAL, sys(pkey_alloc, 1, 0));
  GIVES("pkey_mprotect: no key is mprotect", 0, sys(pkey_mprotect, c, (long)PAGE, PROT_READ, -1));
  return done();
}
