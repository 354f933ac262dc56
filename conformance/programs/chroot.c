/*
 * chroot(2): where paths begin, what ".." is there, what stays reachable, and who may.
 */
#include "check.h"

static const char *where(void) {
  static char buf[PATH_MAX];
  long n = sys(getcwd, buf, sizeof buf);
  return n < 0 ? strerrorname_np(errno) : buf;
}
static const char *points(const char *link) {
  static char buf[PATH_MAX];
  ssize_t n = readlink(link, buf, sizeof buf - 1);
  if (n < 0) return strerrorname_np(errno);
  buf[n] = 0;
  return buf;
}
#define SAME(title, want, got) do { const char *text = got; check_line(!strcmp(text, want), title, text); } while (0)
#define THERE(path) (access(path, F_OK) == 0)

/* Each in a child: a root is for good. Their cases are this process's. */
static int *shared;
#define ROOTED(...) do { fflush(stdout); *shared = check_count; pid_t p = fork(); if (p == 0) { __VA_ARGS__; shared[0] = check_count; shared[1] |= check_failed; fflush(stdout); _exit(0); } reap(p); check_count = *shared; } while (0)

int main(void) {
  shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  mkdir("jail", 0755);
  mkdir("jail/sub", 0755);
  mkdir("outside", 0755);
  close(file_with("jail/in", "inside", O_RDONLY));
  close(file_with("out", "outside", O_RDONLY));
  symlink("/in", "jail/absolute");
  symlink("/data/hello", "jail/hello");
  symlink("../../../../../in", "jail/sub/up");
  char here[PATH_MAX], path[PATH_MAX + 32];
  if (!getcwd(here, sizeof here)) return 3;

  FAILS("chroot: no such directory", ENOENT, chroot("missing"));
  FAILS("chroot: a file", ENOTDIR, chroot("out"));
  FAILS("chroot: a path that cannot be read", EFAULT, sys(chroot, bad_address()));
  mkdir("closed", 0700);
  GIVES("chroot: who may not search it", EACCES, IN_CHILD(if (setresgid(1001, 1001, 1001) || setresuid(1000, 1000, 1000)) _exit(2); _exit(chroot("closed") ? errno : 0)));
  GIVES("chroot: another user", EPERM, IN_CHILD(if (setresgid(1001, 1001, 1001) || setresuid(1000, 1000, 1000)) _exit(2); _exit(chroot("jail") ? errno : 0)));

  ROOTED({
    GIVES("chroot: a directory", 0, chroot("jail"));
    OK("chroot: absolute paths begin there", THERE("/in") && !THERE("/bin/calls") && !THERE("/data/hello"));
    OK("chroot: absolute links too", THERE("/absolute") && !THERE("/hello"));
    OK("chroot: the working directory stays where it is", THERE("out") && THERE("jail/in"));
    SAME("chroot: and cannot be reached", "(unreachable)", (path[0] = 0, strncpy(path, where(), 13), path[13] = 0, path));
    OK("chroot: its parent is its own", THERE("../../bin/calls") || THERE("../../../bin/calls"));
    GIVES("chdir: into it", 0, chdir("/"));
    SAME("getcwd: at the root", "/", where());
    OK("chroot: \"..\" at the root is the root", THERE("../in") && THERE("../../../../in") && !THERE("../out"));
    OK("chroot: a link that goes up ends there", THERE("sub/up"));
    struct stat a, b;
    OK("chroot: \"/..\" is \"/\"", stat("/", &a) == 0 && stat("/..", &b) == 0 && a.st_ino == b.st_ino);
    chdir("/sub");
    SAME("getcwd: below the root", "/sub", where());
    int fd = open("/in", O_RDONLY);
    char text[8] = "";
    OK("openat: a file by its path there", read(fd, text, 6) == 6 && !strcmp(text, "inside"));
    OK("mkdirat: a new directory is inside", mkdir("/made", 0755) == 0);
    FAILS("unlinkat: nothing outside has a name", ENOENT, unlink("/../out"));
    OK("chroot: a child has the same root", IN_CHILD(_exit(THERE("/in") && !THERE("/data") ? 0 : 1)) == 0);
    GIVES("chroot: again, deeper", 0, chroot("/sub"));
    OK("chroot: and there is less", !THERE("/in") && THERE("/up") == 0);
  });
  OK("chroot: what was made there is there", THERE("jail/made"));

  ROOTED({
    int dir = open(".", O_RDONLY | O_DIRECTORY);
    chroot("jail");
    chdir("/");
    OK("openat: a directory that was open stays", faccessat(dir, "out", F_OK, 0) == 0);
    GIVES("fchdir: leads out", 0, fchdir(dir));
    OK("chroot: and outside \"..\" goes up", THERE("out") && THERE("jail/in"));
    for (int n = 0; n < 20; n++) chdir("..");
    GIVES("chroot: back to where all paths begin", 0, chroot("."));
    OK("chroot: everything is there again", THERE("/bin/calls") && THERE("/data/hello"));
    SAME("getcwd: at the old root", "/", where());
  });

  ROOTED({
    chroot("jail");
    chdir("/sub");
    snprintf(path, sizeof path, "%s/jail/sub", here);
    OK("mknodat: a FIFO inside", mkfifo("/fifo", 0600) == 0);
    OK("renameat2: inside", rename("/fifo", "/sub/fifo") == 0 && THERE("fifo"));
    OK("linkat: inside", link("/in", "/sub/second") == 0 && THERE("second"));
    struct stat s;
    OK("statx: the links that there are", stat("/in", &s) == 0 && s.st_nlink == 2);
    setresgid(1001, 1001, 1001);
    setresuid(1000, 1000, 1000);
    OK("setresuid: keeps the root", THERE("/in") && !THERE("/data/hello"));
    FAILS("chroot: without the capability", EPERM, chroot("/sub"));
  });

  SAME("readlinkat: /proc/self/root", "/", points("/proc/self/root"));
  int ready[2];
  if (pipe(ready)) return 3;
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    chroot("jail");
    chdir("/sub");
    write(ready[1], "", 1);
    pause();
  }
  char byte;
  read(ready[0], &byte, 1);
  snprintf(path, sizeof path, "/proc/%d/root", pid);
  snprintf(here + strlen(here), sizeof here - strlen(here), "/jail");
  SAME("readlinkat: another process's root", here, points(path));
  snprintf(path, sizeof path, "/proc/%d/root/in", pid);
  OK("openat: through it", THERE(path));
  strcat(here, "/sub");
  snprintf(path, sizeof path, "/proc/%d/cwd", pid);
  SAME("readlinkat: another process's working directory", here, points(path));
  kill(pid, SIGKILL);
  reap(pid);
  check_failed |= shared[1];
  return done();
}
