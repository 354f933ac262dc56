/* names SEED STEPS ROOT [UID]: random operations on the names below ROOT by two processes that take turns; every
   result is printed, so that two runs of one seed can be compared (src/fs/overridden.test.ts). */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned long long state;
static unsigned rnd(unsigned n) {
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return (unsigned)(state >> 33) % n;
}

static const char *part(void) {
  static const char *const parts[] = {"a", "b", "c", "d", "f", "g", "h", "l", "m", "n", "..", ".", "sub", "up"};
  return parts[rnd(sizeof parts / sizeof *parts)];
}
static void path(char *to) {
  int n = 1 + rnd(3);
  *to = 0;
  for (int k = 0; k < n; k++) {
    if (k) strcat(to, "/");
    strcat(to, part());
  }
}

/* Times of before the run are shown, and those of the run are not. */
static void show(const struct stat *s) {
  printf(" %o %d %d links %d", s->st_mode, s->st_uid, s->st_gid, (int)s->st_nlink);
  if (!S_ISDIR(s->st_mode)) printf(" size %d", (int)s->st_size);
  if (s->st_mtime < 2000000) printf(" time %d", (int)s->st_mtime);
}
static void result(int r) { printf(" %s", r < 0 ? strerrorname_np(errno) : "ok"); }
static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
static void list(int fd) {
  DIR *d = fd < 0 ? NULL : fdopendir(fd);
  if (!d) { result(-1); return; }
  char *names[256];
  int n = 0;
  for (struct dirent *e; n < 256 && (e = readdir(d));)
    if (asprintf(&names[n++], "%s:%d", e->d_name, e->d_type) < 0) exit(1);
  qsort(names, n, sizeof *names, by_name);
  for (int k = 0; k < n; k++) { printf(" %s", names[k]); free(names[k]); }
  closedir(d);
}

static int kept[4] = {-1, -1, -1, -1};

static void step(int root) {
  char p[64], q[64], b[64];
  struct stat s;
  path(p), path(q);
  int at = kept[rnd(4)], slot = rnd(4), op = rnd(22), mode = rnd(512), fd, n;
  if (at < 0) at = root;
  if (op < 10 && rnd(12) == 0) strcat(p, "/");
  printf("%d %s %s:", op, p, q);
  switch (op) {
    case 0: case 1: n = fstatat(at, p, &s, 0); result(n); if (n == 0) show(&s); break;
    case 2: n = fstatat(at, p, &s, AT_SYMLINK_NOFOLLOW); result(n); if (n == 0) show(&s); break;
    case 3: case 4:
      result(fd = openat(at, p, O_RDONLY));
      if (fd >= 0) { n = read(fd, b, 9); printf(" %d", n); if (n > 0) printf(" %.*s", n, b); close(fd); }
      break;
    case 5: result(faccessat(at, p, rnd(8), 0)); break;
    case 6: n = readlinkat(at, p, b, sizeof b); result(n); if (n >= 0) printf(" %.*s", n, b); break;
    case 7: list(openat(at, p, O_RDONLY | O_DIRECTORY)); break;
    case 8:
      if (kept[slot] >= 0) close(kept[slot]);
      result(kept[slot] = openat(at, p, O_RDONLY | O_DIRECTORY));
      break;
    case 9: n = fstat(at, &s); result(n); if (n == 0) show(&s); break;
    case 10: list(openat(at, ".", O_RDONLY)); break;
    case 11: result(mkdirat(at, p, 0777)); break;
    case 12: result(unlinkat(at, p, AT_REMOVEDIR)); break;
    case 13: result(unlinkat(at, p, 0)); break;
    case 14: result(renameat(at, p, root, q)); break;
    /* fs.protected_hardlinks is the host's own choice, and root is exempt. */
    case 15: if (geteuid() == 0) result(linkat(at, p, root, q, 0)); break;
    case 16: result(symlinkat(q, at, p)); break;
    case 17:
      result(fd = openat(at, p, O_WRONLY | O_CREAT | (mode & 1 ? O_TRUNC : O_APPEND), 0666));
      if (fd >= 0) { if (write(fd, q, 3) != 3) exit(1); close(fd); }
      break;
    case 18: result(fchmodat(at, p, mode | 0300, 0)); break;
    case 19: result(utimensat(at, p, (struct timespec[2]){{mode, 0}, {mode, 0}}, 0)); break;
    case 20: n = fchdir(at); result(n); if (n == 0) { n = stat(p, &s); result(n); if (n == 0) show(&s); } break;
    default: result(renameat2(at, p, root, q, RENAME_EXCHANGE)); break;
  }
  putchar('\n');
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  state = strtoull(argv[1], NULL, 10);
  umask(022);
  int steps = atoi(argv[2]), root = open(argv[3], O_RDONLY | O_DIRECTORY), turn[2][2];
  if (root < 0 || pipe(turn[0]) || pipe(turn[1])) return 1;
  if (argc > 4 && (setgroups(0, NULL) || setresgid(atoi(argv[4]), atoi(argv[4]), atoi(argv[4])) || setresuid(atoi(argv[4]), atoi(argv[4]), atoi(argv[4])))) return 1;
  pid_t child = fork();
  int me = child == 0;
  for (int n = 0; n < steps; n++) {
    char c = 0;
    unsigned long long seed = state + n;
    if (n % 2 == me) {
      step(root);
      if (write(turn[!me][1], &c, 1) != 1) return 1;
    } else if (read(turn[me][0], &c, 1) != 1) {
      return 1;
    }
    state = seed * 2862933555777941757ull + 3037000493ull;
  }
  if (child == 0) return 0;
  waitpid(child, NULL, 0);
  return 0;
}
