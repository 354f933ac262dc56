/*
 * What every program of a system call includes: TAP on standard output, raw calls. A program stands
 * alone (cc -static openat.c) and is also linked into build/conformance/rootfs/bin/calls, which runs
 * all of them. A case's title begins with the name of the call it is about.
 */
#ifndef CHECK_H
#define CHECK_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The call itself, not libc's idea of it. */
#define sys(name, ...) syscall(SYS_##name, ##__VA_ARGS__)
#define PAGE 4096
#define LENGTH(a) ((int)(sizeof(a) / sizeof *(a)))

static int check_count;
static int check_failed;

__attribute__((unused)) static void check_line(int good, const char *title, const char *got) {
  check_count++;
  if (!good) check_failed++;
  printf("%sok %d - %s%s%s\n", good ? "" : "not ", check_count, title, good ? "" : " # ", good ? "" : got);
  fflush(stdout);
}

/* Holds. */
#define OK(title, condition) check_line(!!(condition), title, "does not hold: " #condition)
/* Returns exactly this. */
#define GIVES(title, value, call) check_gives(title, (long)(value), (errno = 0, (long)(call)))
/* Fails with this error. */
#define FAILS(title, error, call) check_fails(title, error, (errno = 0, (long)(call)))
/* Cannot be asked on this kernel. */
#define SKIP(title, why) printf("ok %d - %s # SKIP %s\n", ++check_count, title, why)

__attribute__((unused)) static void check_gives(const char *title, long want, long got) {
  char text[80];
  snprintf(text, sizeof text, "%ld, not %ld%s%s", got, want, got == -1 ? ": " : "", got == -1 && errno ? strerrorname_np(errno) : "");
  check_line(want == got, title, text);
}
__attribute__((unused)) static void check_fails(const char *title, int want, long got) {
  int e = errno;
  char text[80];
  if (got == -1) snprintf(text, sizeof text, "%s", e ? strerrorname_np(e) : "-1");
  else snprintf(text, sizeof text, "returned %ld", got);
  check_line(got == -1 && e == want, title, text);
}

/* Ends the program's report; the status of main. */
__attribute__((unused)) static int done(void) {
  printf("1..%d\n", check_count);
  fflush(stdout);
  return check_failed != 0;
}

/* An address that is mapped and not accessible. */
__attribute__((unused)) static void *bad_address(void) {
  static void *p;
  if (!p) p = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p;
}
/* A file of the working directory with this text; opened. */
__attribute__((unused)) static int file_with(const char *name, const char *text, int flags) {
  int fd = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0644);
  if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) _exit(3);
  close(fd);
  return open(name, flags);
}
__attribute__((unused)) static void pause_ms(long ms) {
  struct timespec t = {ms / 1000, ms % 1000 * 1000000};
  while (nanosleep(&t, &t) < 0 && errno == EINTR) {}
}
/* Exit status of `pid`, or 1000 + the signal that ended it. */
__attribute__((unused)) static int reap(pid_t pid) {
  int status;
  if (waitpid(pid, &status, 0) != pid) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}
/* Runs `body` in a child, and is its status as `reap` gives it. */
#define IN_CHILD(...) ({ fflush(stdout); pid_t check_pid = fork(); if (check_pid == 0) { __VA_ARGS__; _exit(0); } reap(check_pid); })
#endif
