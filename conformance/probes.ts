/**
 * The probes that the table's types owe: EFAULT for each pointer, EBADF for each descriptor, EINVAL
 * for an unknown bit of each flags argument. As a C program: a probe is a case where Linux answers
 * so, and a comment where it does not (an argument may be looked at in no case, or after others).
 */
import { table } from '../src/syscalls/table/index.ts'
import type { Entry } from '../src/syscalls/table/schema.ts'

/** Calls that do not come back, or make another process come back. */
const LEFT_OUT = new Set(['exit', 'exit_group', 'rt_sigreturn', 'fork', 'vfork', 'clone', 'pause', 'restart_syscall'])

/** Values of integer arguments with which a call gets far enough to look at its pointers; else 0. */
const BY_NAME: Readonly<Record<string, number>> = {
  count: 8, len: 8, length: 8, size: 24, nbytes: 8, buflen: 8, optlen: 4, iovcnt: 1, vlen: 1, nfds: 1, maxevents: 1, addrlen: 16, bufsiz: 64,
  sigsetsize: 8, sizemask: 8, signum: 10, mode: 0o644, resource: 4, domain: 1, type: 1, oldd: 0, clockid: 1, nr_events: 1, msg_len: 8, nsops: 1,
}
const BY_CALL: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  arch_prctl: { code: 0x1003 }, getgroups: { size: 1 }, setgroups: { size: 1 }, getcwd: { size: 4096 }, prctl: { option: 16 },
  epoll_ctl: { op: 1 }, setsockopt: { level: 1, optname: 2 }, getsockopt: { level: 1, optname: 2 }, set_robust_list: { len: 24 }, clone3: { size: 88 },
  futex: { op: 1 }, openat2: { size: 24 }, waitid: { idtype: 0, options: 4 }, wait4: { pid: -1, options: 1 }, sched_setaffinity: { len: 8 }, sched_getaffinity: { len: 128 },
  sched_setattr: { size: 48 }, sched_getattr: { size: 48 },
}

function rowC(e: Entry): string {
  const args = e.args.map(({ name, arg }) => {
    const base = BY_CALL[e.name]?.[name] ?? BY_NAME[name] ?? 0
    const kind = { int: 'i', fd: 'f', dirfd: 'd', path: 'p', cstr: 's', ptr: 'b', iov: 'v', flags: 'F', pointer: 'b' }[arg.kind]
    return `{'${kind}', "${name}", ${base}}`
  })
  return `  {${e.nr}, "${e.name}", ${args.length}, {${args.join(', ')}}},\n`
}

export const probesC = (): string => `/* Made by conformance/probes.ts from the table. */
#include "check.h"
#include <sys/epoll.h>
#include <sys/uio.h>

struct argument { char kind; const char *name; long base; };
static const struct call { long nr; const char *name; int count; struct argument args[6]; } calls[] = {
${table.filter((e) => e.args.length > 0 && !LEFT_OUT.has(e.name)).map(rowC).join('')}};

static char buffer[6][65536];
static char path[] = "file", name[] = "user.probe", fresh[] = "new";
static const char *const kinds[] = {"file", "pipe", "socket", "epoll"};

static void tick(int s) {}

static int descriptor(int kind) {
  int p[2];
  if (kind == 0) return open(path, O_RDWR | O_CREAT, 0644);
  if (kind == 1) return pipe2(p, O_NONBLOCK) ? -1 : p[0];
  if (kind == 2) return socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, p) ? -1 : p[0];
  return epoll_create1(0);
}

/* One call with argument \`which\` replaced; its error, or 0. */
static int ask(const struct call *c, int which, long value, int kind) {
  struct iovec v = {buffer[0], 8};
  long a[6] = {0};
  int fds[6];
  for (int n = 0; n < 6; n++) fds[n] = -1;
  memset(buffer, 0, sizeof buffer);
  for (int n = 0; n < c->count; n++) {
    switch (c->args[n].kind) {
    case 'f': a[n] = fds[n] = descriptor(kind); break;
    case 'd': a[n] = AT_FDCWD; break;
    case 'p': a[n] = (long)(n > 0 && (!strncmp(c->args[n].name, "new", 3) || !strncmp(c->args[n].name, "link", 4)) ? fresh : path); break;
    case 's': a[n] = (long)name; break;
    case 'b': a[n] = (long)buffer[n]; break;
    case 'v': a[n] = (long)&v; break;
    default: a[n] = c->args[n].base;
    }
  }
  if (which >= 0) a[which] = value;
  errno = 0;
  long r = syscall(c->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
  int e = r == -1 ? errno : 0;
  for (int n = 0; n < 6; n++) if (fds[n] >= 0) close(fds[n]);
  unlink(fresh);
  return e;
}

static void probe(const struct call *c, int n, const char *what, int want, long value, int kind, int has_fd) {
  char title[160];
  snprintf(title, sizeof title, "%s: %s of %s%s%s%s", c->name, strerrorname_np(want), c->args[n].name, what, has_fd ? ", " : "", has_fd ? kinds[kind] : "");
  int got = ask(c, n, value, kind);
  if (got == want) check_line(1, title, "");
  else printf("# no: %s # %s\\n", title, got ? strerrorname_np(got) : "no error");
  fflush(stdout);
}

int main(int argc, char **argv) {
  struct sigaction act = {.sa_handler = tick};
  struct itimerval often = {{0, 50000}, {0, 50000}};
  close(open(path, O_CREAT | O_RDWR, 0644));
  for (int k = 0; k < LENGTH(calls); k++) {
    const struct call *c = &calls[k];
    if (argc > 1 && strcmp(argv[1], c->name)) continue;
    pid_t pid = fork();
    if (pid == 0) {
      int has_fd = 0;
      sigaction(SIGALRM, &act, NULL);
      setitimer(ITIMER_REAL, &often, NULL);
      for (int n = 0; n < c->count; n++) has_fd |= c->args[n].kind == 'f';
      for (int n = 0; n < c->count; n++)
        for (int kind = 0; kind < (has_fd ? 4 : 1); kind++) {
          char k = c->args[n].kind;
          if (strchr("psbv", k)) probe(c, n, "", EFAULT, (long)bad_address(), kind, has_fd);
          if (k == 'b') probe(c, n, " beyond user space", EFAULT, -4096, kind, has_fd);
          if (k == 'f' || k == 'd') probe(c, n, "", EBADF, 1000, kind, has_fd);
          if (k == 'F') probe(c, n, ", unknown bit", EINVAL, 1 << 30, kind, has_fd);
        }
      _exit(0);
    }
    reap(pid);
  }
  return 0;
}
`
