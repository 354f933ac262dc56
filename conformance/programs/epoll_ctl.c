/* poll, ppoll, select, pselect6, epoll_create, epoll_create1, epoll_ctl, epoll_wait, epoll_pwait, epoll_pwait2: poll(2), select(2), epoll(7). */
#include "check.h"
#include <sys/epoll.h>
#include <sys/select.h>

static volatile int handled;
static void handler(int s) { handled++; }

static int events(int ep, int timeout) {
  struct epoll_event e[8];
  int n = epoll_wait(ep, e, 8, timeout);
  return n > 0 ? (int)e[0].events : n;
}

int main(int argc, char **argv) {
  int p[2], q[2], ep, ep2, f = file_with("f", "x", O_RDWR), img = open("/data/hello", O_RDONLY);
  char b[8];
  struct epoll_event e = {.events = EPOLLIN};
  sigset_t none, usr;
  struct timespec ms = {0, 5000000}, bad = {0, 1000000000};
  pipe(p);
  pipe(q);
  struct pollfd v[3] = {{p[0], POLLIN, 0}, {p[1], POLLOUT, 0}, {-1, POLLIN, 7}};
  GIVES("poll: one ready", 1, sys(poll, v, 3, 0));
  OK("poll: the write end; a negative one is left out", v[0].revents == 0 && v[1].revents == POLLOUT && v[2].revents == 0);
  v[2].fd = 99;
  GIVES("poll: a closed one is ready", 2, sys(poll, v, 3, 1000));
  GIVES("poll: POLLNVAL", POLLNVAL, v[2].revents);
  GIVES("poll: nothing in time", 0, sys(poll, v, 1, 5));
  GIVES("poll: files are always ready", POLLIN | POLLOUT, ({ struct pollfd x = {f, POLLIN | POLLOUT, 0}; sys(poll, &x, 1, 0); x.revents; }));
  GIVES("poll: image files too", POLLIN, ({ struct pollfd x = {img, POLLIN, 0}; sys(poll, &x, 1, 0); x.revents; }));
  FAILS("poll: bad address", EFAULT, sys(poll, bad_address(), 1, 0));
  FAILS("poll: more than the limit of descriptors", EINVAL, sys(poll, v, 10000000, 0));
  close(q[1]);
  GIVES("poll: POLLHUP", POLLHUP, ({ struct pollfd x = {q[0], POLLIN, 0}; sys(poll, &x, 1, 0); x.revents; }));
  close(q[0]);
  sigemptyset(&none);
  sigemptyset(&usr);
  sigaddset(&usr, SIGUSR1);
  sigprocmask(SIG_BLOCK, &usr, NULL);
  signal(SIGUSR1, handler);
  raise(SIGUSR1);
  FAILS("ppoll: a signal the mask lets in", EINTR, sys(ppoll, v, 1, NULL, &none, 8));
  GIVES("ppoll: was handled", 1, handled);
  GIVES("ppoll: times out", 0, sys(ppoll, v, 1, &ms, NULL, 8));
  OK("ppoll: writes what is left of the time", ms.tv_sec == 0 && ms.tv_nsec < 5000000);
  FAILS("ppoll: too many nanoseconds", EINVAL, sys(ppoll, v, 1, &bad, NULL, 8));
  FAILS("ppoll: size of the set", EINVAL, sys(ppoll, v, 1, NULL, &none, 4));

  fd_set r, w;
  struct timeval tv = {0, 5000};
  FD_ZERO(&r);
  FD_ZERO(&w);
  FD_SET(p[0], &r);
  FD_SET(p[1], &w);
  GIVES("select: one ready", 1, sys(select, p[1] + 1, &r, &w, NULL, NULL));
  OK("select: which", !FD_ISSET(p[0], &r) && FD_ISSET(p[1], &w));
  FD_SET(p[0], &r);
  GIVES("select: nothing in time", 0, sys(select, p[1] + 1, &r, NULL, NULL, &tv));
  OK("select: writes what is left of the time", tv.tv_sec == 0 && tv.tv_usec < 5000);
  // Linux does not look at numbers beyond its table, which has 64 places at first.
  FD_SET(60, &r);
  FAILS("select: a closed one", EBADF, sys(select, 61, &r, NULL, NULL, &tv));
  FAILS("select: a negative number", EINVAL, sys(select, -1, NULL, NULL, NULL, &tv));
  FAILS("select: a negative time", EINVAL, ({ struct timeval n = {-1, 0}; sys(select, 0, NULL, NULL, NULL, &n); }));
  struct { const sigset_t *m; size_t size; } pair = {&none, 8};
  raise(SIGUSR1);
  FAILS("pselect6: a signal the mask lets in", EINTR, sys(pselect6, 0, NULL, NULL, NULL, NULL, &pair));
  pair.size = 4;
  FAILS("pselect6: size of the set", EINVAL, sys(pselect6, 0, NULL, NULL, NULL, &ms, &pair));
  FAILS("pselect6: too many nanoseconds", EINVAL, sys(pselect6, 0, NULL, NULL, NULL, &bad, NULL));

  FAILS("epoll_create: size", EINVAL, sys(epoll_create, 0));
  GIVES("epoll_create: made", 0, close(sys(epoll_create, 1)));
  FAILS("epoll_create1: unknown flags", EINVAL, sys(epoll_create1, 1));
  ep = sys(epoll_create1, EPOLL_CLOEXEC);
  ep2 = epoll_create1(0);
  GIVES("epoll_create1: close-on-exec", 1, fcntl(ep, F_GETFD));
  GIVES("epoll_ctl: added", 0, sys(epoll_ctl, ep, EPOLL_CTL_ADD, p[0], &e));
  FAILS("epoll_ctl: twice", EEXIST, sys(epoll_ctl, ep, EPOLL_CTL_ADD, p[0], &e));
  FAILS("epoll_ctl: not there", ENOENT, sys(epoll_ctl, ep, EPOLL_CTL_MOD, p[1], &e));
  FAILS("epoll_ctl: a file", EPERM, sys(epoll_ctl, ep, EPOLL_CTL_ADD, f, &e));
  FAILS("epoll_ctl: an image file", EPERM, sys(epoll_ctl, ep, EPOLL_CTL_ADD, img, &e));
  FAILS("epoll_ctl: itself", EINVAL, sys(epoll_ctl, ep, EPOLL_CTL_ADD, ep, &e));
  FAILS("epoll_ctl: no epoll", EINVAL, sys(epoll_ctl, p[0], EPOLL_CTL_ADD, p[1], &e));
  FAILS("epoll_ctl: unknown operation", EINVAL, sys(epoll_ctl, ep, 9, p[0], &e));
  FAILS("epoll_ctl: a closed one", EBADF, sys(epoll_ctl, ep, EPOLL_CTL_ADD, 99, &e));
  GIVES("epoll_wait: nothing", 0, events(ep, 0));
  write(p[1], "ab", 2);
  GIVES("epoll_wait: level-triggered", EPOLLIN, events(ep, 0));
  GIVES("epoll_wait: again", EPOLLIN, events(ep, 0));
  e.events = EPOLLIN | EPOLLET;
  epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &e);
  GIVES("epoll_wait: edge-triggered", EPOLLIN, events(ep, 0));
  GIVES("epoll_wait: once", 0, events(ep, 0));
  write(p[1], "c", 1);
  GIVES("epoll_wait: again when more comes", EPOLLIN, events(ep, 0));
  e.events = EPOLLIN | EPOLLONESHOT;
  epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &e);
  GIVES("epoll_wait: one shot", EPOLLIN, events(ep, 0));
  GIVES("epoll_wait: is disabled then", 0, events(ep, 0));
  e.events = EPOLLIN;
  epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &e);
  epoll_ctl(ep2, EPOLL_CTL_ADD, ep, &e);
  GIVES("epoll_wait: nested", EPOLLIN, events(ep2, 0));
  FAILS("epoll_ctl: a circle", ELOOP, sys(epoll_ctl, ep, EPOLL_CTL_ADD, ep2, &e));
  read(p[0], b, 8);
  GIVES("epoll_wait: nothing left", 0, events(ep, 5));
  FAILS("epoll_wait: no room", EINVAL, sys(epoll_wait, ep, &e, 0, 0));
  FAILS("epoll_wait: no epoll", EINVAL, sys(epoll_wait, p[0], &e, 1, 0));
  write(p[1], "x", 1);
  FAILS("epoll_wait: bad address", EFAULT, sys(epoll_wait, ep, bad_address(), 1, 0));
  GIVES("epoll_ctl: EPOLLEXCLUSIVE", 0, ({ struct epoll_event x = {.events = EPOLLIN | EPOLLEXCLUSIVE}; sys(epoll_ctl, ep, EPOLL_CTL_ADD, dup(p[0]), &x); }));
  GIVES("epoll_ctl: removed", 0, sys(epoll_ctl, ep, EPOLL_CTL_DEL, p[0], NULL));
  raise(SIGUSR1);
  int empty = epoll_create1(0);
  FAILS("epoll_pwait: a signal the mask lets in", EINTR, sys(epoll_pwait, empty, &e, 1, -1, &none, 8));
  raise(SIGUSR1);
  FAILS("epoll_pwait2: a signal the mask lets in", EINTR, sys(epoll_pwait2, empty, &e, 1, NULL, &none, 8));
  ms.tv_nsec = 2000000;
  GIVES("epoll_pwait2: nanoseconds", 0, sys(epoll_pwait2, empty, &e, 1, &ms, NULL, 8));
  FAILS("epoll_pwait2: too many nanoseconds", EINVAL, sys(epoll_pwait2, empty, &e, 1, &bad, NULL, 8));
  FAILS("epoll_pwait: size of the set", EINVAL, sys(epoll_pwait, empty, &e, 1, 0, &none, 4));
  return done();
}
