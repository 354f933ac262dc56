/* System V IPC and POSIX message queues: shmget(2), shmop(2), semget(2), semop(2), semctl(2), msgget(2), msgop(2), mq_overview(7). */
#include "check.h"
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

struct message { long type; char text[64]; };

int main(int argc, char **argv) {
  struct shmid_ds sd;
  struct message out = {5, "five"}, in;
  struct sembuf up = {0, 2, 0}, down = {0, -1, IPC_NOWAIT}, zero = {0, 0, IPC_NOWAIT}, wait = {0, -9, 0};
  struct timespec ms = {0, 5000000};
  int id, sem, q;
  char *a, *b;
  FAILS("shmget: no size", EINVAL, sys(shmget, IPC_PRIVATE, 0L, IPC_CREAT | 0600));
  FAILS("shmget: none of that key", ENOENT, sys(shmget, 4711, 100L, 0));
  OK("shmget: made", (id = sys(shmget, 4711, 100L, IPC_CREAT | 0600)) >= 0);
  GIVES("shmget: found", id, sys(shmget, 4711, 100L, 0));
  FAILS("shmget: IPC_EXCL", EEXIST, sys(shmget, 4711, 100L, IPC_CREAT | IPC_EXCL | 0600));
  FAILS("shmget: larger than it is", EINVAL, sys(shmget, 4711, 5000L, 0));
  FAILS("shmat: none", EINVAL, sys(shmat, 99999, NULL, 0));
  FAILS("shmat: within a page", EINVAL, sys(shmat, id, (void *)0x20000001, 0));
  a = (char *)sys(shmat, id, NULL, 0);
  b = (char *)sys(shmat, id, NULL, SHM_RDONLY);
  OK("shmat: twice, the same memory", a != (char *)-1 && b != (char *)-1 && a != b && (a[0] = 'x', b[0] == 'x'));
  GIVES("shmat: read-only", 1000 + SIGSEGV, IN_CHILD(*(volatile char *)b = 1));
  GIVES("shmat: a child has it", 'c', (IN_CHILD(a[1] = 'c'), b[1]));
  GIVES("shmctl: IPC_STAT", 0, sys(shmctl, id, IPC_STAT, &sd));
  OK("shmctl: size and attachments", sd.shm_segsz == 100 && sd.shm_nattch == 2 && sd.shm_cpid == getpid());
  FAILS("shmctl: unknown command", EINVAL, sys(shmctl, id, 99, &sd));
  FAILS("shmctl: bad address", EFAULT, sys(shmctl, id, IPC_STAT, bad_address()));
  GIVES("shmdt: detached", 0, sys(shmdt, b));
  FAILS("shmdt: not attached", EINVAL, sys(shmdt, b));
  GIVES("shmdt: one attachment is left", 1, (sys(shmctl, id, IPC_STAT, &sd), sd.shm_nattch));
  GIVES("shmctl: IPC_RMID", 0, sys(shmctl, id, IPC_RMID, NULL));
  GIVES("shmctl: memory stays while attached", 'x', a[0]);
  sys(shmdt, a);
  FAILS("shmat: it is gone", EINVAL, sys(shmat, id, NULL, 0));

  FAILS("semget: none of that key", ENOENT, sys(semget, 4712, 1, 0));
  OK("semget: made", (sem = sys(semget, 4712, 3, IPC_CREAT | 0600)) >= 0);
  FAILS("semget: more than there are", EINVAL, sys(semget, 4712, 4, 0));
  GIVES("semop: up", 0, sys(semop, sem, &up, 1));
  GIVES("semctl: GETVAL", 2, sys(semctl, sem, 0, GETVAL, 0));
  GIVES("semop: down", 0, sys(semop, sem, &down, 1));
  FAILS("semop: not zero", EAGAIN, sys(semop, sem, &zero, 1));
  FAILS("semop: no semaphore", EFBIG, ({ struct sembuf x = {9, 1, 0}; sys(semop, sem, &x, 1); }));
  FAILS("semop: no operations", EINVAL, sys(semop, sem, &up, 0));
  FAILS("semop: too many", E2BIG, sys(semop, sem, &up, 100000));
  FAILS("semtimedop: not in time", EAGAIN, sys(semtimedop, sem, &wait, 1, &ms));
  GIVES("semop: wakes", 0, ({ pid_t c = fork(); if (c == 0) _exit(sys(semop, sem, &wait, 1) < 0 ? errno : 0); pause_ms(20); struct sembuf x = {0, 9, 0}; sys(semop, sem, &x, 1); reap(c); }));
  GIVES("semop: SEM_UNDO", 1, ({ IN_CHILD(struct sembuf x = {0, 5, SEM_UNDO}; sys(semop, sem, &x, 1)); sys(semctl, sem, 0, GETVAL, 0); }));
  unsigned short all[3] = {7, 8, 9}, got[3];
  GIVES("semctl: SETALL", 0, sys(semctl, sem, 0, SETALL, all));
  GIVES("semctl: GETALL", 9, (sys(semctl, sem, 0, GETALL, got), got[2]));
  GIVES("semctl: SETVAL", 0, sys(semctl, sem, 1, SETVAL, 4));
  GIVES("semctl: GETPID", getpid(), sys(semctl, sem, 1, GETPID, 0));
  FAILS("semctl: SETVAL out of range", ERANGE, sys(semctl, sem, 1, SETVAL, 40000));
  struct semid_ds ds;
  GIVES("semctl: IPC_STAT", 3, (sys(semctl, sem, 0, IPC_STAT, &ds), ds.sem_nsems));
  GIVES("semctl: IPC_RMID", 0, sys(semctl, sem, 0, IPC_RMID, 0));
  FAILS("semop: it is gone", EINVAL, sys(semop, sem, &up, 1));

  OK("msgget: made", (q = sys(msgget, IPC_PRIVATE, IPC_CREAT | 0600)) >= 0);
  GIVES("msgsnd: sent", 0, sys(msgsnd, q, &out, 5L, 0));
  out.type = 3;
  sys(msgsnd, q, &out, 5L, 0);
  FAILS("msgsnd: no type", EINVAL, ({ struct message z = {0}; sys(msgsnd, q, &z, 5L, 0); }));
  FAILS("msgsnd: bad address", EFAULT, sys(msgsnd, q, bad_address(), 5L, 0));
  FAILS("msgrcv: no room", E2BIG, sys(msgrcv, q, &in, 2L, 0L, 0));
  GIVES("msgrcv: MSG_NOERROR cuts", 2, sys(msgrcv, q, &in, 2L, 3L, MSG_NOERROR));
  GIVES("msgrcv: the type", 3, in.type);
  FAILS("msgrcv: none of that type", ENOMSG, sys(msgrcv, q, &in, 64L, 4L, IPC_NOWAIT));
  GIVES("msgrcv: the lowest type", 5, (sys(msgrcv, q, &in, 64L, -9L, 0), in.type));
  struct msqid_ds md;
  GIVES("msgctl: IPC_STAT", 0, (sys(msgctl, q, IPC_STAT, &md), md.msg_qnum));
  GIVES("msgctl: IPC_RMID", 0, sys(msgctl, q, IPC_RMID, NULL));
  FAILS("msgrcv: it is gone", EINVAL, sys(msgrcv, q, &in, 64L, 0L, IPC_NOWAIT));

  struct mq_attr attr = {.mq_maxmsg = 2, .mq_msgsize = 16}, now;
  unsigned prio;
  FAILS("mq_open: none of that name", ENOENT, sys(mq_open, "queue", O_RDWR, 0, NULL));
  FAILS("mq_open: a slash in the name", EACCES, sys(mq_open, "a/b", O_RDWR | O_CREAT, 0600, NULL));
  q = 0;
  GIVES("mq_open: made", 1, (q = sys(mq_open, "queue", O_RDWR | O_CREAT | O_NONBLOCK, 0600, &attr)) > 0 ? 1 : q);
  FAILS("mq_open: O_EXCL", EEXIST, sys(mq_open, "queue", O_RDWR | O_CREAT | O_EXCL, 0600, &attr));
  GIVES("mq_timedsend: sent", 0, sys(mq_timedsend, q, "low", 3L, 1, NULL));
  GIVES("mq_timedsend: of a higher priority", 0, sys(mq_timedsend, q, "high", 4L, 9, NULL));
  FAILS("mq_timedsend: full", EAGAIN, sys(mq_timedsend, q, "x", 1L, 1, NULL));
  FAILS("mq_timedsend: too long", EMSGSIZE, sys(mq_timedsend, q, in.text, 17L, 1, NULL));
  FAILS("mq_timedreceive: no room", EMSGSIZE, sys(mq_timedreceive, q, in.text, 8L, &prio, NULL));
  GIVES("mq_timedreceive: the higher one first", 4, sys(mq_timedreceive, q, in.text, 16L, &prio, NULL));
  GIVES("mq_timedreceive: its priority", 9, prio);
  GIVES("mq_getsetattr: what is there", 1, (sys(mq_getsetattr, q, NULL, &now), now.mq_curmsgs));
  sys(mq_timedreceive, q, in.text, 16L, &prio, NULL);
  now.mq_flags = 0;
  GIVES("mq_getsetattr: blocking", 0, sys(mq_getsetattr, q, &now, NULL));
  FAILS("mq_timedreceive: not in time", ETIMEDOUT, ({ struct timespec past = {1, 0}; sys(mq_timedreceive, q, in.text, 16L, &prio, &past); }));
  struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  sigset_t s;
  sigemptyset(&s);
  sigaddset(&s, SIGUSR1);
  sigprocmask(SIG_BLOCK, &s, NULL);
  GIVES("mq_notify: asked", 0, sys(mq_notify, q, &ev));
  FAILS("mq_notify: once", EBUSY, IN_CHILD(_exit(sys(mq_notify, q, &ev) < 0 ? errno : 0)) == EBUSY ? (errno = EBUSY, -1L) : 0L);
  sys(mq_timedsend, q, "x", 1L, 1, NULL);
  siginfo_t i;
  GIVES("mq_notify: the signal", SIGUSR1, sys(rt_sigtimedwait, &s, &i, &ms, 8));
  GIVES("mq_unlink: removed", 0, sys(mq_unlink, "queue"));
  FAILS("mq_unlink: none", ENOENT, sys(mq_unlink, "queue"));
  return done();
}
