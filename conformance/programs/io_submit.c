/*
 * Linux AIO: io_setup(2), io_submit(2), io_getevents(2), io_cancel(2), io_destroy(2).
 */
#include "check.h"
#include <linux/aio_abi.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

static aio_context_t ctx;

static struct iocb request(int op, int fd, void *buf, size_t len, long off) {
  struct iocb b = {.aio_data = 7, .aio_lio_opcode = op, .aio_fildes = fd, .aio_buf = (uint64_t)buf, .aio_nbytes = len, .aio_offset = off};
  return b;
}
static long submit(struct iocb *b) {
  struct iocb *list[] = {b};
  return sys(io_submit, ctx, 1, list);
}
/* The result of one request that is submitted alone. */
static long result(struct iocb *b) {
  struct io_event e = {0};
  if (submit(b) != 1) return -10000 - errno;
  struct timespec t = {5, 0};
  if (sys(io_getevents, ctx, 1, 1, &e, &t) != 1) return -20000;
  return e.data == 7 && e.obj == (uint64_t)b ? e.res : -30000;
}
#define FRESH(...) ({ static struct iocb b; b = request(__VA_ARGS__); &b; })

int main(void) {
  char buf[64] = "";
  struct io_event events[8];
  struct timespec none = {0, 0};
  FAILS("io_setup: no events", EINVAL, sys(io_setup, 0, &ctx));
  FAILS("io_setup: no address", EFAULT, sys(io_setup, 8, bad_address()));
  aio_context_t used = 1;
  FAILS("io_setup: a context that is not 0", EINVAL, sys(io_setup, 8, &used));
  GIVES("io_setup: a context", 0, sys(io_setup, 8, &ctx));
  OK("io_setup: its number is not 0", ctx != 0);
  FAILS("io_submit: no such context", EINVAL, sys(io_submit, 12345, 0, 0));
  GIVES("io_submit: nothing", 0, sys(io_submit, ctx, 0, 0));
  FAILS("io_submit: a negative number", EINVAL, sys(io_submit, ctx, -1L, 0));
  FAILS("io_submit: no list", EFAULT, sys(io_submit, ctx, 1, bad_address()));
  struct iocb *bad[] = {bad_address()};
  FAILS("io_submit: no request", EFAULT, sys(io_submit, ctx, 1, bad));
  FAILS("io_getevents: no such context", EINVAL, sys(io_getevents, 12345, 0, 1, events, &none));
  FAILS("io_getevents: more at least than at most", EINVAL, sys(io_getevents, ctx, 2, 1, events, &none));
  FAILS("io_getevents: a negative number", EINVAL, sys(io_getevents, ctx, -1L, 1, events, &none));
  GIVES("io_getevents: none", 0, sys(io_getevents, ctx, 1, 1, events, &none));
  GIVES("io_getevents: none for a while", 0, sys(io_getevents, ctx, 1, 1, events, &((struct timespec){0, 20000000})));

  int fd = open("f", O_CREAT | O_RDWR, 0644);
  GIVES("io_submit: a write", 12, result(FRESH(IOCB_CMD_PWRITE, fd, "hello, world", 12, 0)));
  GIVES("io_submit: another, beyond the end", 3, result(FRESH(IOCB_CMD_PWRITE, fd, "end", 3, 20)));
  GIVES("io_submit: a read", 5, result(FRESH(IOCB_CMD_PREAD, fd, buf, 5, 7)));
  OK("io_submit: of what was written", !memcmp(buf, "world", 5));
  GIVES("io_submit: a read at the end", 0, result(FRESH(IOCB_CMD_PREAD, fd, buf, 5, 100)));
  GIVES("io_submit: the file's offset stays", 0, lseek(fd, 0, SEEK_CUR));
  struct iovec v[2] = {{buf, 3}, {buf + 10, 4}};
  GIVES("io_submit: several buffers", 7, result(FRESH(IOCB_CMD_PREADV, fd, v, 2, 0)));
  OK("io_submit: each of them", !memcmp(buf, "hel", 3) && !memcmp(buf + 10, "lo, ", 4));
  GIVES("io_submit: several buffers written", 7, result(FRESH(IOCB_CMD_PWRITEV, fd, v, 2, 30)));
  GIVES("io_submit: a buffer that faults", -EFAULT, result(FRESH(IOCB_CMD_PREAD, fd, bad_address(), 5, 0)));
  GIVES("io_submit: fdatasync", 0, result(FRESH(IOCB_CMD_FDSYNC, fd, 0, 0, 0)));
  FAILS("io_submit: no descriptor", EBADF, submit(FRESH(IOCB_CMD_PREAD, 99, buf, 5, 0)));
  FAILS("io_submit: no such operation", EINVAL, submit(FRESH(77, fd, buf, 5, 0)));
  FAILS("io_submit: a directory", EINVAL, submit(FRESH(IOCB_CMD_PREAD, open(".", O_RDONLY), buf, 5, 0)));
  FAILS("io_submit: a read of what is open for writing", EBADF, submit(FRESH(IOCB_CMD_PREAD, open("f", O_WRONLY), buf, 5, 0)));
  FAILS("io_submit: a write of what is open for reading", EBADF, submit(FRESH(IOCB_CMD_PWRITE, open("f", O_RDONLY), buf, 5, 0)));
  struct iocb b = request(IOCB_CMD_PREAD, fd, buf, 5, 0);
  b.aio_reserved2 = 1;
  FAILS("io_submit: a reserved field", EINVAL, submit(&b));
  b = request(IOCB_CMD_PREAD, fd, buf, 5, 0);
  b.aio_flags = 0x80;
  GIVES("io_submit: an unknown flag is ignored", 5, result(&b));
  GIVES("io_submit: a file of the image", 5, result(FRESH(IOCB_CMD_PREAD, open("/data/hello", O_RDONLY), buf, 5, 0)));
  OK("io_submit: its bytes", !memcmp(buf, "hello", 5));

  struct iocb many[4], *list[4];
  char bytes[4];
  for (int n = 0; n < 4; n++) {
    many[n] = request(IOCB_CMD_PREAD, n == 2 ? 99 : fd, &bytes[n], 1, n);
    many[n].aio_data = n;
    list[n] = &many[n];
  }
  GIVES("io_submit: as far as the first wrong one", 2, sys(io_submit, ctx, 4, list));
  GIVES("io_getevents: at most as many as asked for", 1, sys(io_getevents, ctx, 1, 1, events, NULL));
  GIVES("io_getevents: the rest", 1, sys(io_getevents, ctx, 0, 8, events + 1, &none));
  OK("io_getevents: each once", events[0].data + events[1].data == 1 && events[0].res == 1 && !memcmp(bytes, "he", 2));
  FAILS("io_getevents: no room", EFAULT, (submit(list[0]), sys(io_getevents, ctx, 1, 1, bad_address(), NULL)));
  sys(io_getevents, ctx, 0, 8, events, &none);

  int event = eventfd(0, EFD_NONBLOCK);
  b = request(IOCB_CMD_PREAD, fd, buf, 5, 0);
  b.aio_flags = IOCB_FLAG_RESFD;
  b.aio_resfd = event;
  GIVES("io_submit: with an eventfd", 5, result(&b));
  uint64_t count = 0;
  OK("io_submit: which is told", read(event, &count, 8) == 8 && count == 1);

  int p[2];
  if (pipe(p)) return 3;
  struct iocb wait = request(IOCB_CMD_POLL, p[0], (void *)POLLIN, 0, 0);
  GIVES("io_submit: a poll that waits", 1, submit(&wait));
  GIVES("io_getevents: it is not ready", 0, sys(io_getevents, ctx, 1, 1, events, &((struct timespec){0, 20000000})));
  if (fork() == 0) {
    pause_ms(50);
    write(p[1], "x", 1);
    _exit(0);
  }
  GIVES("io_getevents: waits for it", 1, sys(io_getevents, ctx, 1, 1, events, NULL));
  GIVES("io_getevents: with what is ready", POLLIN, events[0].res & POLLIN);
  GIVES("io_submit: a read of a pipe", 1, result(FRESH(IOCB_CMD_PREAD, p[0], buf, 5, 0)));
  submit(&wait);
  FAILS("io_cancel: a poll", EINPROGRESS, sys(io_cancel, ctx, &wait, events));
  GIVES("io_cancel: its event comes", 1, sys(io_getevents, ctx, 1, 1, events, &((struct timespec){5, 0})));
  FAILS("io_cancel: once", EINVAL, sys(io_cancel, ctx, &wait, events));
  FAILS("io_cancel: a request that has ended", EINVAL, sys(io_cancel, ctx, &b, events));

  GIVES("io_destroy: a child has none of its parent's", EINVAL, IN_CHILD(_exit(sys(io_destroy, ctx) ? errno : 0)));
  GIVES("io_destroy: a context", 0, sys(io_destroy, ctx));
  FAILS("io_destroy: once", EINVAL, sys(io_destroy, ctx));
  return done();
}
