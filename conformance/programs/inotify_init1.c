/*
 * inotify(7): instances, watches, and the events of names, attributes and bytes, in their order.
 */
#include "check.h"
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

static int in;
static char said[4096];

static const struct { unsigned bit; const char *name; } names[] = {
  {IN_ACCESS, "access"}, {IN_MODIFY, "modify"}, {IN_ATTRIB, "attrib"}, {IN_CLOSE_WRITE, "close_write"}, {IN_CLOSE_NOWRITE, "close_nowrite"},
  {IN_OPEN, "open"}, {IN_MOVED_FROM, "moved_from"}, {IN_MOVED_TO, "moved_to"}, {IN_CREATE, "create"}, {IN_DELETE, "delete"},
  {IN_DELETE_SELF, "delete_self"}, {IN_MOVE_SELF, "move_self"}, {IN_IGNORED, "ignored"}, {IN_Q_OVERFLOW, "overflow"}, {IN_ISDIR, "dir"},
};

/* What waits, as "wd:mask:name "; a cookie that follows its like is marked. */
static const char *events(int fd) {
  static char buf[65536] __attribute__((aligned(8)));
  char *out = said;
  unsigned cookie = 0;
  *said = 0;
  for (;;) {
    ssize_t n = read(fd, buf, sizeof buf);
    if (n <= 0) break;
    for (char *p = buf; p < buf + n;) {
      struct inotify_event *e = (void *)p;
      if (out - said < 3000) {
        out += sprintf(out, "%d:", e->wd);
        for (int k = 0; k < LENGTH(names); k++) if (e->mask & names[k].bit) out += sprintf(out, "%s,", names[k].name);
        out += sprintf(out, "%s%s ", e->len ? e->name : "", e->cookie ? (e->cookie == cookie ? "=" : "!") : "");
        if (e->len % 16) out += sprintf(out, "(len %u) ", e->len);
      }
      cookie = e->cookie;
      p += sizeof *e + e->len;
    }
  }
  return said;
}

#define SAYS(title, want) do { const char *got = events(in); check_line(!strcmp(got, want), title, got); } while (0)

static void instances(void) {
  FAILS("inotify_init1: an unknown flag", EINVAL, sys(inotify_init1, 1));
  int fd = sys(inotify_init1, IN_CLOEXEC | IN_NONBLOCK);
  OK("inotify_init1: a descriptor", fd >= 0);
  GIVES("inotify_init1: IN_CLOEXEC", FD_CLOEXEC, fcntl(fd, F_GETFD));
  GIVES("inotify_init1: IN_NONBLOCK, for reading", O_RDONLY | O_NONBLOCK, fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK));
  char buf[64];
  FAILS("inotify_init1: nothing to read", EAGAIN, read(fd, buf, sizeof buf));
  FAILS("inotify_init1: it is not written to", EBADF, write(fd, buf, 1));
  close(fd);
  fd = sys(inotify_init);
  GIVES("inotify_init: no flags", 0, fcntl(fd, F_GETFD) | (fcntl(fd, F_GETFL) & O_NONBLOCK));
  close(fd);
}

static void errors(void) {
  close(file_with("f", "text", O_RDONLY));
  symlink("f", "l");
  mkdir("d", 0755);
  FAILS("inotify_add_watch: no event", EINVAL, sys(inotify_add_watch, in, "f", 0));
  FAILS("inotify_add_watch: unknown bits", EINVAL, sys(inotify_add_watch, in, "f", 0x08000000 | IN_MODIFY));
  FAILS("inotify_add_watch: another kind of descriptor", EINVAL, sys(inotify_add_watch, 0, "f", IN_MODIFY));
  FAILS("inotify_add_watch: no descriptor", EBADF, sys(inotify_add_watch, 99, "f", IN_MODIFY));
  FAILS("inotify_add_watch: no such file", ENOENT, sys(inotify_add_watch, in, "missing", IN_MODIFY));
  FAILS("inotify_add_watch: IN_ONLYDIR of a file", ENOTDIR, sys(inotify_add_watch, in, "f", IN_MODIFY | IN_ONLYDIR));
  FAILS("inotify_add_watch: a path that cannot be read", EFAULT, sys(inotify_add_watch, in, bad_address(), IN_MODIFY));
  FAILS("inotify_rm_watch: no such watch", EINVAL, sys(inotify_rm_watch, in, 77));
  FAILS("inotify_rm_watch: another kind of descriptor", EINVAL, sys(inotify_rm_watch, 0, 1));
  int wd = inotify_add_watch(in, "f", IN_MODIFY);
  GIVES("inotify_add_watch: the first number is 1", 1, wd);
  GIVES("inotify_add_watch: one file has one number, whatever the name", 1, inotify_add_watch(in, "./l", IN_ATTRIB));
  GIVES("inotify_add_watch: IN_DONT_FOLLOW is the link's", 2, inotify_add_watch(in, "l", IN_ATTRIB | IN_DONT_FOLLOW));
  FAILS("inotify_add_watch: IN_MASK_CREATE of a watched file", EEXIST, inotify_add_watch(in, "f", IN_MODIFY | IN_MASK_CREATE));
  FAILS("inotify_add_watch: IN_MASK_CREATE with IN_MASK_ADD", EINVAL, inotify_add_watch(in, "f", IN_MODIFY | IN_MASK_CREATE | IN_MASK_ADD));
  GIVES("inotify_rm_watch: a watch", 0, inotify_rm_watch(in, 2));
  GIVES("inotify_rm_watch: another", 0, inotify_rm_watch(in, wd));
  SAYS("inotify_rm_watch: IN_IGNORED for each", "2:ignored, 1:ignored, ");
  FAILS("inotify_rm_watch: once", EINVAL, inotify_rm_watch(in, wd));
  int fd = -1;
  int status = IN_CHILD(chmod("d", 0300); if (setresgid(1001, 1001, 1001) || setresuid(1000, 1000, 1000)) _exit(2); fd = inotify_init(); _exit(inotify_add_watch(fd, "d", IN_CREATE) < 0 ? errno : 0));
  GIVES("inotify_add_watch: without read permission", EACCES, status);
  chmod("d", 0755);
}

static void of_directory(void) {
  int wd = inotify_add_watch(in, "d", IN_ALL_EVENTS & ~(IN_OPEN | IN_CLOSE_NOWRITE | IN_ACCESS));
  GIVES("inotify_add_watch: numbers are not used again", 3, wd);
  int fd = open("d/new", O_CREAT | O_WRONLY, 0644);
  SAYS("inotify_add_watch: a new file", "3:create,new ");
  write(fd, "abc", 3);
  write(fd, "def", 3);
  SAYS("inotify_add_watch: writes are one event until it is read", "3:modify,new ");
  write(fd, "ghi", 3);
  SAYS("inotify_add_watch: the next write", "3:modify,new ");
  ftruncate(fd, 1);
  close(fd);
  SAYS("inotify_add_watch: its length, and the close", "3:modify,new 3:close_write,new ");
  chmod("d/new", 0600);
  utimensat(AT_FDCWD, "d/new", NULL, 0);
  SAYS("inotify_add_watch: attributes", "3:attrib,new ");
  mkdir("d/sub", 0755);
  symlink("nowhere", "d/sym");
  mkfifo("d/fifo", 0600);
  link("d/new", "d/second");
  SAYS("inotify_add_watch: other new names", "3:create,dir,sub 3:create,sym 3:create,fifo 3:create,second ");
  rename("d/new", "d/renamed");
  SAYS("inotify_add_watch: a rename inside is two events of one cookie", "3:moved_from,new! 3:moved_to,renamed= ");
  rename("d/renamed", "outside");
  SAYS("inotify_add_watch: out of it", "3:moved_from,renamed! ");
  rename("outside", "d/back");
  SAYS("inotify_add_watch: into it", "3:moved_to,back! ");
  rename("d/back", "d/fifo");
  SAYS("inotify_add_watch: a rename over a name has no IN_DELETE", "3:moved_from,back! 3:moved_to,fifo= ");
  unlink("d/fifo");
  rmdir("d/sub");
  unlink("d/sym");
  unlink("d/second");
  SAYS("inotify_add_watch: removals", "3:delete,fifo 3:delete,dir,sub 3:delete,sym 3:delete,second ");
  rename("d", "e");
  SAYS("inotify_add_watch: the directory itself is moved", "3:move_self, ");
  close(open("e/x", O_CREAT | O_WRONLY, 0600));
  SAYS("inotify_add_watch: and watched on", "3:create,x 3:close_write,x ");
  unlink("e/x");
  rmdir("e");
  SAYS("inotify_add_watch: and removed", "3:delete,x 3:delete_self, 3:ignored, ");
}

static void of_file(void) {
  close(file_with("f", "text", O_RDONLY));
  int wd = inotify_add_watch(in, "f", IN_ALL_EVENTS);
  GIVES("inotify_add_watch: a file", 4, wd);
  char buf[8];
  int fd = open("f", O_RDONLY);
  read(fd, buf, sizeof buf);
  close(fd);
  SAYS("inotify_add_watch: a file that is read", "4:open, 4:access, 4:close_nowrite, ");
  fd = open("f", O_WRONLY | O_TRUNC);
  pwrite(fd, "x", 1, 5);
  SAYS("inotify_add_watch: a file that is written", "4:open, 4:modify, ");
  int copy = dup(fd);
  close(fd);
  SAYS("inotify_add_watch: a duplicate keeps it open", "");
  close(copy);
  SAYS("inotify_add_watch: the last close", "4:close_write, ");
  fd = open("f", O_RDWR);
  events(in);
  GIVES("inotify_add_watch: another mask takes its place", wd, inotify_add_watch(in, "f", IN_MODIFY));
  chmod("f", 0600);
  SAYS("inotify_add_watch: what is not asked for", "");
  GIVES("inotify_add_watch: IN_MASK_ADD", wd, inotify_add_watch(in, "f", IN_ATTRIB | IN_DELETE_SELF | IN_MASK_ADD));
  void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  *(char *)p = 'y';
  munmap(p, PAGE);
  SAYS("inotify_add_watch: writes through memory are not told", "");
  unlink("f");
  SAYS("inotify_add_watch: the last name of an open file", "4:attrib, ");
  close(fd);
  SAYS("inotify_add_watch: its end", "4:delete_self, 4:ignored, ");
  close(file_with("g", "text", O_RDONLY));
  wd = inotify_add_watch(in, "g", IN_ATTRIB | IN_ONESHOT);
  chmod("g", 0600);
  chmod("g", 0644);
  SAYS("inotify_add_watch: IN_ONESHOT", "5:attrib, 5:ignored, ");
  int other = inotify_init1(IN_NONBLOCK);
  inotify_add_watch(other, "g", IN_ATTRIB);
  inotify_add_watch(in, "g", IN_ATTRIB);
  chmod("g", 0600);
  SAYS("inotify_add_watch: two instances", "6:attrib, ");
  const char *got = events(other);
  check_line(!strcmp(got, "1:attrib, "), "inotify_add_watch: have their own numbers", got);
  close(other);
  inotify_rm_watch(in, 6);
  events(in);
}

/* A process that changes what another watches; waiting for it in each way there is. */
static void waiting(void) {
  mkdir("w", 0755);
  int fd = inotify_init();
  inotify_add_watch(fd, "w", IN_CREATE | IN_MOVED_TO);
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    pause_ms(50);
    mkdir("w/1", 0755);
    pause_ms(50);
    mkdir("w/2", 0755);
    pause_ms(50);
    mkdir("w/3", 0755);
    _exit(0);
  }
  char buf[256] __attribute__((aligned(8)));
  struct inotify_event *e = (void *)buf;
  GIVES("inotify_init1: read waits for an event", 32, read(fd, buf, sizeof buf));
  OK("inotify_init1: of another process", e->mask == (IN_CREATE | IN_ISDIR) && !strcmp(e->name, "1"));
  struct pollfd p = {fd, POLLIN | POLLOUT, 0};
  GIVES("inotify_init1: poll waits", 1, poll(&p, 1, 5000));
  GIVES("inotify_init1: it is readable, and not writable", POLLIN, p.revents);
  int n = 0;
  ioctl(fd, FIONREAD, &n);
  GIVES("inotify_init1: FIONREAD", 32, n);
  FAILS("inotify_init1: a buffer for no event", EINVAL, read(fd, buf, 31));
  GIVES("inotify_init1: the event is still there", 32, read(fd, buf, sizeof buf));
  int ep = epoll_create1(0);
  struct epoll_event want = {EPOLLIN | EPOLLET, {.u64 = 7}}, got;
  GIVES("inotify_init1: epoll takes it", 0, epoll_ctl(ep, EPOLL_CTL_ADD, fd, &want));
  GIVES("inotify_init1: epoll waits", 1, epoll_wait(ep, &got, 1, 5000));
  GIVES("inotify_init1: an edge is told once", 0, epoll_wait(ep, &got, 1, 0));
  reap(pid);
  struct iovec v[2] = {{buf, 16}, {buf + 16, 100}};
  FAILS("inotify_init1: readv, an event is not split", EINVAL, readv(fd, v, 2));
  GIVES("inotify_init1: readv", 32, readv(fd, &(struct iovec){buf, 100}, 1));
  GIVES("inotify_init1: epoll, and nothing is left", 0, epoll_wait(ep, &got, 1, 0));
  close(fd);
  close(ep);
}

static void overflow(void) {
  int fd = inotify_init1(IN_NONBLOCK);
  close(file_with("o1", "", O_RDONLY));
  close(file_with("o2", "", O_RDONLY));
  inotify_add_watch(fd, "o1", IN_ATTRIB);
  inotify_add_watch(fd, "o2", IN_ATTRIB);
  int max = 16384;
  FILE *f = fopen("/proc/sys/fs/inotify/max_queued_events", "r");
  if (f && fscanf(f, "%d", &max) != 1) max = 16384;
  if (f) fclose(f);
  for (int n = 0; n < max / 2 + 10; n++) {
    chmod("o1", 0600);
    chmod("o2", 0600);
  }
  static char buf[1 << 20] __attribute__((aligned(8)));
  int count = 0, last = 0, lost = 0;
  for (ssize_t n; (n = read(fd, buf, sizeof buf)) > 0;) {
    for (char *p = buf; p < buf + n; p += sizeof(struct inotify_event) + ((struct inotify_event *)p)->len) {
      count++;
      last = ((struct inotify_event *)p)->mask;
      lost += last == IN_Q_OVERFLOW;
    }
  }
  GIVES("inotify_init1: as many events as may wait, and one that says more came", max + 1, count);
  OK("inotify_init1: which is the last one", last == IN_Q_OVERFLOW && lost == 1);
  close(fd);
}

/* Files of the lower layer, or of the image. */
static void below(void) {
  int fd = inotify_init1(IN_NONBLOCK);
  int keep = in;
  in = fd;
  inotify_add_watch(fd, "/data", IN_CREATE | IN_DELETE | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVE);
  int w = open("/data/watched", O_CREAT | O_WRONLY, 0644);
  write(w, "x", 1);
  close(w);
  chmod("/data/watched", 0600);
  unlink("/data/watched");
  SAYS("inotify_add_watch: a directory of the image", "1:create,watched 1:modify,watched 1:close_write,watched 1:attrib,watched 1:delete,watched ");
  close(fd);
  in = keep;
}

int main(void) {
  in = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  instances();
  errors();
  of_directory();
  of_file();
  waiting();
  overflow();
  below();
  return done();
}
