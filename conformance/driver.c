/*
 * calls NAME [ARG...]     one program of conformance/programs
 * calls --all DIR [TEXT]  all of them (whose name contains TEXT), each in a process group and an empty
 *                         directory of its own; prints "== NAME" before and "== NAME: STATUS" after
 *                         each. A program that takes too long is ended: status "late".
 * calls --list
 *
 * `programs` is made by conformance/run.ts from the folder's files.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct program {
  const char *name;
  int (*main)(int, char **);
};
extern const struct program programs[];

static const int LATE_MS = 20000;

static long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Copies what comes from `from` until its end or `late`; false when it was late. */
static int relay(int from, long late) {
  char b[4096];
  for (;;) {
    struct pollfd p = {from, POLLIN, 0};
    long left = late - now_ms();
    if (left <= 0 || poll(&p, 1, left) == 0) return 0;
    ssize_t n = read(from, b, sizeof b);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return 1;
    for (ssize_t at = 0; at < n;) at += write(1, b + at, n - at);
  }
}

static void run(const struct program *p, const char *dir) {
  char at[256];
  int out[2], status = 0;
  snprintf(at, sizeof at, "%s/%s", dir, p->name);
  if (mkdir(at, 0755) < 0 || pipe2(out, O_CLOEXEC) < 0) {
    perror(at);
    exit(2);
  }
  printf("== %s\n", p->name);
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    char *argv[] = {"calls", (char *)p->name, NULL};
    setpgid(0, 0);
    dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
    dup2(out[1], 1);
    dup2(out[1], 2);
    if (chdir(at) == 0) execv("/bin/calls", argv);
    perror("/bin/calls");
    _exit(2);
  }
  setpgid(pid, pid);
  close(out[1]);
  int in_time = relay(out[0], now_ms() + LATE_MS);
  if (in_time) waitpid(pid, &status, 0);
  kill(-pid, SIGKILL);
  if (!in_time) waitpid(pid, &status, 0);
  close(out[0]);
  while (waitpid(-1, NULL, WNOHANG) > 0) {}
  if (!in_time) printf("\n== %s: late\n", p->name);
  else if (WIFSIGNALED(status)) printf("\n== %s: signal %d\n", p->name, WTERMSIG(status));
  else printf("\n== %s: %d\n", p->name, WEXITSTATUS(status));
  fflush(stdout);
}

/* What a container engine leaves to root; natively the rest is given up here. */
static void give_up(void) {
  const unsigned long kept = 0xa80425fb;
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  for (int c = 0; c < 64; c++)
    if (!(kept >> c & 1)) prctl(PR_CAPBSET_DROP, c, 0, 0, 0);
}

int main(int argc, char **argv) {
  const char *verb = argc > 1 ? argv[1] : "--list";
  if (!strcmp(verb, "--all")) give_up();
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (const struct program *p = programs; p->name; p++) {
    if (!strcmp(verb, "--list")) puts(p->name);
    else if (!strcmp(verb, "--all") && (argc < 4 || strstr(p->name, argv[3]))) run(p, argc > 2 ? argv[2] : "/tmp");
    else if (!strcmp(verb, p->name)) return p->main(argc - 1, argv + 1);
  }
  return verb[0] == '-' ? 0 : 2;
}
