/* Attributes of processes: prctl(2), prlimit(2), getrusage(2), sched_setscheduler(2), sched_setaffinity(2), getpriority(2), ioprio_set(2), setsid(2), setpgid(2), uname(2), sysinfo(2), getrandom(2), getcpu(2), personality(2), arch_prctl(2), membarrier(2). */
#include "check.h"
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

/* struct sched_attr with the clamps (linux/sched/types.h cannot be had beside sched.h). */
struct attributes { uint32_t size, sched_policy; uint64_t sched_flags; int32_t nice; uint32_t priority; uint64_t deadline[3]; uint32_t clamp[2]; };

int main(int argc, char **argv) {
  char name[17] = "";
  int v = -1;
  struct rlimit r, old;
  struct rusage ru;
  struct sched_param sp = {0};
  cpu_set_t set;
  GIVES("prctl: PR_SET_NAME", 0, sys(prctl, PR_SET_NAME, "a name of more than 15"));
  GIVES("prctl: PR_GET_NAME", 0, (sys(prctl, PR_GET_NAME, name), strcmp(name, "a name of more ")));
  FAILS("prctl: PR_SET_NAME, bad address", EFAULT, sys(prctl, PR_SET_NAME, bad_address()));
  FAILS("prctl: unknown option", EINVAL, sys(prctl, 9999, 0, 0, 0, 0));
  GIVES("prctl: PR_SET_PDEATHSIG", 0, sys(prctl, PR_SET_PDEATHSIG, SIGUSR1));
  GIVES("prctl: PR_GET_PDEATHSIG", SIGUSR1, (sys(prctl, PR_GET_PDEATHSIG, &v), v));
  FAILS("prctl: PR_SET_PDEATHSIG of no signal", EINVAL, sys(prctl, PR_SET_PDEATHSIG, 65));
  GIVES("prctl: a child has none", 0, IN_CHILD(sys(prctl, PR_GET_PDEATHSIG, &v); _exit(v)));
  sys(prctl, PR_SET_PDEATHSIG, 0);
  GIVES("prctl: PR_GET_DUMPABLE", 1, sys(prctl, PR_GET_DUMPABLE));
  FAILS("prctl: PR_SET_DUMPABLE", EINVAL, sys(prctl, PR_SET_DUMPABLE, 2));
  GIVES("prctl: PR_SET_DUMPABLE reads back", 0, IN_CHILD(sys(prctl, PR_SET_DUMPABLE, 0); _exit(sys(prctl, PR_GET_DUMPABLE))));
  FAILS("prctl: PR_SET_NO_NEW_PRIVS other than 1", EINVAL, sys(prctl, PR_SET_NO_NEW_PRIVS, 2, 0, 0, 0));
  GIVES("prctl: PR_SET_NO_NEW_PRIVS", 1, IN_CHILD(sys(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); _exit(sys(prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))));
  GIVES("prctl: PR_SET_CHILD_SUBREAPER", 0, sys(prctl, PR_SET_CHILD_SUBREAPER, 1));
  GIVES("prctl: PR_GET_CHILD_SUBREAPER", 1, (sys(prctl, PR_GET_CHILD_SUBREAPER, &v), v));
  GIVES("prctl: a subreaper gets the orphans", 5, ({
    IN_CHILD(if (fork() == 0) { pause_ms(30); _exit(5); });
    int st;
    wait(&st);
    WEXITSTATUS(st);
  }));
  GIVES("prctl: PR_CAPBSET_READ", 1, sys(prctl, PR_CAPBSET_READ, 0));
  GIVES("prctl: PR_CAPBSET_READ of what containers lack", 0, sys(prctl, PR_CAPBSET_READ, 21));
  FAILS("prctl: PR_CAPBSET_READ of none", EINVAL, sys(prctl, PR_CAPBSET_READ, 64));
  GIVES("prctl: PR_CAPBSET_DROP", 0, IN_CHILD(if (sys(prctl, PR_CAPBSET_DROP, 0)) _exit(9); _exit(sys(prctl, PR_CAPBSET_READ, 0))));
  GIVES("prctl: PR_SET_KEEPCAPS", 1, (sys(prctl, PR_SET_KEEPCAPS, 1), sys(prctl, PR_GET_KEEPCAPS)));
  sys(prctl, PR_SET_KEEPCAPS, 0);
  GIVES("prctl: PR_GET_SECUREBITS", 0, sys(prctl, PR_GET_SECUREBITS));
  GIVES("prctl: PR_SET_SECUREBITS", 5, IN_CHILD(sys(prctl, PR_SET_SECUREBITS, 5); _exit(sys(prctl, PR_GET_SECUREBITS))));
  GIVES("prctl: PR_CAP_AMBIENT_IS_SET", 0, sys(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 0, 0, 0));
  FAILS("prctl: PR_CAP_AMBIENT of no capability", EINVAL, sys(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 99, 0, 0));
  GIVES("prctl: PR_GET_SECCOMP", 0, sys(prctl, PR_GET_SECCOMP));
  GIVES("prctl: PR_SET_TIMERSLACK", 12345, (sys(prctl, PR_SET_TIMERSLACK, 12345), sys(prctl, PR_GET_TIMERSLACK)));
  FAILS("prctl: PR_SET_MM needs a privilege", EPERM, sys(prctl, PR_SET_MM, 1, 0, 0, 0));

  GIVES("prlimit64: reads", 0, sys(prlimit64, 0, RLIMIT_CORE, NULL, &old));
  r = old;
  r.rlim_cur = 0;
  GIVES("prlimit64: lowers", 0, sys(prlimit64, getpid(), RLIMIT_CORE, &r, &old));
  GIVES("prlimit64: reads back", 0, (sys(prlimit64, 0, RLIMIT_CORE, NULL, &r), r.rlim_cur));
  FAILS("prlimit64: no resource", EINVAL, sys(prlimit64, 0, 99, NULL, &r));
  FAILS("prlimit64: soft above hard", EINVAL, ({ r = (struct rlimit){2, 1}; sys(prlimit64, 0, RLIMIT_CORE, &r, NULL); }));
  FAILS("prlimit64: no process", ESRCH, sys(prlimit64, 99999, RLIMIT_CORE, NULL, &r));
  GIVES("prlimit64: a hard limit cannot be raised", EPERM, IN_CHILD(r = (struct rlimit){5, 5}; sys(prlimit64, 0, RLIMIT_CORE, &r, NULL); r.rlim_max = 6; _exit(sys(prlimit64, 0, RLIMIT_CORE, &r, NULL) < 0 ? errno : 0)));
  GIVES("getrlimit: the stack", 8 << 20, (sys(getrlimit, RLIMIT_STACK, &r), r.rlim_cur));
  GIVES("setrlimit: descriptors, by openat", EMFILE, IN_CHILD(r = (struct rlimit){5, 5}; sys(setrlimit, RLIMIT_NOFILE, &r); while (open("/dev/null", O_RDONLY) >= 0) {} _exit(errno)));
  GIVES("setrlimit: descriptors, by openat of a new file", EMFILE, IN_CHILD(r = (struct rlimit){5, 5}; sys(setrlimit, RLIMIT_NOFILE, &r); while (open("full", O_RDWR | O_CREAT, 0600) >= 0) {} _exit(errno)));
  GIVES("setrlimit: descriptors, by openat of an image file", EMFILE, IN_CHILD(r = (struct rlimit){5, 5}; sys(setrlimit, RLIMIT_NOFILE, &r); while (open("/data/hello", O_RDONLY) >= 0) {} _exit(errno)));
  GIVES("setrlimit: descriptors, by openat of a directory", EMFILE, IN_CHILD(r = (struct rlimit){5, 5}; sys(setrlimit, RLIMIT_NOFILE, &r); while (open("/proc", O_RDONLY) >= 0) {} _exit(errno)));
  GIVES("setrlimit: descriptors", EMFILE, IN_CHILD(r = (struct rlimit){5, 5}; sys(setrlimit, RLIMIT_NOFILE, &r); while (dup(0) >= 0) {} _exit(errno)));
  GIVES("setrlimit: a file's size", EFBIG, IN_CHILD(r = (struct rlimit){2, 2}; signal(SIGXFSZ, SIG_IGN); sys(setrlimit, RLIMIT_FSIZE, &r); int fd = open("f", O_CREAT | O_WRONLY, 0600); write(fd, "abc", 2); _exit(write(fd, "abc", 2) < 0 ? errno : 0)));
  GIVES("setrlimit: processor time", 1000 + SIGXCPU, IN_CHILD(r = (struct rlimit){1, 2}; sys(setrlimit, RLIMIT_CPU, &r); for (;;) {}));
  GIVES("getrusage: oneself", 0, sys(getrusage, RUSAGE_SELF, &ru));
  OK("getrusage: memory", ru.ru_maxrss > 0);
  GIVES("getrusage: children", 0, sys(getrusage, RUSAGE_CHILDREN, &ru));
  FAILS("getrusage: who", EINVAL, sys(getrusage, 9, &ru));

  GIVES("sched_getscheduler: SCHED_OTHER", SCHED_OTHER, sys(sched_getscheduler, 0));
  FAILS("sched_getscheduler: no process", ESRCH, sys(sched_getscheduler, 99999));
  FAILS("sched_getscheduler: negative", EINVAL, sys(sched_getscheduler, -1));
  GIVES("sched_setscheduler: SCHED_BATCH", SCHED_BATCH, IN_CHILD(sys(sched_setscheduler, 0, SCHED_BATCH, &sp); _exit(sys(sched_getscheduler, 0))));
  FAILS("sched_setscheduler: unknown policy", EINVAL, sys(sched_setscheduler, 0, 99, &sp));
  sp.sched_priority = 1;
  FAILS("sched_setscheduler: a priority without real time", EINVAL, sys(sched_setscheduler, 0, SCHED_OTHER, &sp));
  FAILS("sched_setscheduler: real time needs a privilege", EPERM, sys(sched_setscheduler, 0, SCHED_FIFO, &sp));
  sp.sched_priority = 0;
  GIVES("sched_setparam: zero", 0, sys(sched_setparam, 0, &sp));
  GIVES("sched_getparam: zero", 0, (sys(sched_getparam, 0, &sp), sp.sched_priority));
  struct attributes sa = {.size = sizeof sa};
  GIVES("sched_getattr: reads", 0, sys(sched_getattr, 0, &sa, sizeof sa, 0));
  GIVES("sched_getattr: the size", 56, sa.size);
  GIVES("sched_setattr: what was read", 0, (sa.sched_flags = 0, sys(sched_setattr, 0, &sa, 0)));
  FAILS("sched_setattr: unknown policy", EINVAL, (sa.sched_policy = 99, sys(sched_setattr, 0, &sa, 0)));
  GIVES("sched_get_priority_max: SCHED_FIFO", 99, sys(sched_get_priority_max, SCHED_FIFO));
  GIVES("sched_get_priority_min: SCHED_FIFO", 1, sys(sched_get_priority_min, SCHED_FIFO));
  FAILS("sched_get_priority_max: unknown policy", EINVAL, sys(sched_get_priority_max, 99));
  struct timespec ts;
  GIVES("sched_rr_get_interval: reads", 0, sys(sched_rr_get_interval, 0, &ts));
  GIVES("sched_yield: returns", 0, sys(sched_yield));
  OK("sched_getaffinity: bytes", sys(sched_getaffinity, 0, sizeof set, &set) >= 8);
  FAILS("sched_getaffinity: size", EINVAL, sys(sched_getaffinity, 0, 1, &set));
  CPU_ZERO(&set);
  FAILS("sched_setaffinity: none", EINVAL, sys(sched_setaffinity, 0, sizeof set, &set));
  CPU_SET(0, &set);
  GIVES("sched_setaffinity: the first", 0, IN_CHILD(if (sys(sched_setaffinity, 0, sizeof set, &set)) _exit(1); unsigned cpu; sys(getcpu, &cpu, NULL, NULL); _exit(cpu)));
  GIVES("getpriority: 20 less nice", 20, sys(getpriority, PRIO_PROCESS, 0));
  GIVES("setpriority: nicer", 15, IN_CHILD(sys(setpriority, PRIO_PROCESS, 0, 5); _exit(sys(getpriority, PRIO_PROCESS, 0))));
  FAILS("setpriority: less nice needs a privilege", EACCES, sys(setpriority, PRIO_PROCESS, 0, -5));
  FAILS("getpriority: which", EINVAL, sys(getpriority, 9, 0));
  FAILS("getpriority: no process", ESRCH, sys(getpriority, PRIO_PROCESS, 99999));
  GIVES("ioprio_set: best effort", 0, sys(ioprio_set, 1, 0, 2 << 13 | 5));
  GIVES("ioprio_get: reads back", 2 << 13 | 5, sys(ioprio_get, 1, 0));
  FAILS("ioprio_set: real time needs a privilege", EPERM, sys(ioprio_set, 1, 0, 1 << 13));
  FAILS("ioprio_get: which", EINVAL, sys(ioprio_get, 9, 0));

  GIVES("getpgrp: of getpgid", getpgid(0), sys(getpgrp));
  GIVES("setpgid: a group of one's own", 0, IN_CHILD(if (sys(setpgid, 0, 0)) _exit(1); _exit(sys(getpgid, 0) != getpid())));
  FAILS("setpgid: negative", EINVAL, sys(setpgid, 0, -1));
  FAILS("setpgid: no process", ESRCH, sys(setpgid, 99999, 0));
  GIVES("setsid: a session of one's own", 0, IN_CHILD(if (sys(setsid) != getpid()) _exit(1); _exit(sys(getsid, 0) != getpid())));
  GIVES("setsid: not a group's leader", EPERM, IN_CHILD(setpgid(0, 0); _exit(sys(setsid) < 0 ? errno : 0)));
  FAILS("getsid: no process", ESRCH, sys(getsid, 99999));
  FAILS("getpgid: no process", ESRCH, sys(getpgid, 99999));
  GIVES("getpid: of the kernel", getpid(), sys(getpid));
  GIVES("gettid: the first thread's", getpid(), sys(gettid));
  OK("getppid: another", sys(getppid) > 0 && sys(getppid) != getpid());
  struct utsname u;
  GIVES("uname: reads", 0, sys(uname, &u));
  OK("uname: Linux on x86_64", !strcmp(u.sysname, "Linux") && !strcmp(u.machine, "x86_64"));
  struct sysinfo si;
  OK("sysinfo: memory", sys(sysinfo, &si) == 0 && si.totalram > 0 && si.mem_unit > 0);
  GIVES("getrandom: bytes", 16, sys(getrandom, name, 16, 0));
  FAILS("getrandom: unknown flags", EINVAL, sys(getrandom, name, 16, 8));
  FAILS("getrandom: bad address", EFAULT, sys(getrandom, bad_address(), 16, 0));
  unsigned cpu = 99, node = 99;
  GIVES("getcpu: both", 0, sys(getcpu, &cpu, &node, NULL));
  GIVES("personality: asked", 0, sys(personality, 0xffffffff));
  GIVES("personality: Linux's", 0, sys(personality, 0));
  unsigned long fs;
  GIVES("arch_prctl: ARCH_GET_FS", 0, sys(arch_prctl, 0x1003, &fs));
  GIVES("arch_prctl: ARCH_SET_GS", 4711, ({ unsigned long gs; sys(arch_prctl, 0x1001, 4711L); sys(arch_prctl, 0x1004, &gs); gs; }));
  FAILS("arch_prctl: unknown code", EINVAL, sys(arch_prctl, 0x9999, 0));
  OK("membarrier: MEMBARRIER_CMD_QUERY", sys(membarrier, MEMBARRIER_CMD_QUERY, 0, 0) & MEMBARRIER_CMD_PRIVATE_EXPEDITED);
  FAILS("membarrier: not registered", EPERM, sys(membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
  GIVES("membarrier: registered", 0, sys(membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
  GIVES("membarrier: private", 0, sys(membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
  GIVES("membarrier: global", 0, sys(membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
  FAILS("membarrier: unknown command", EINVAL, sys(membarrier, 1 << 20, 0, 0));
  FAILS("getrlimit: null", EFAULT, sys(getrlimit, RLIMIT_CORE, NULL));
  FAILS("getcwd: null", EFAULT, sys(getcwd, NULL, 4096));
  FAILS("getcwd: null, too small", ERANGE, sys(getcwd, NULL, 1));
  return done();
}
