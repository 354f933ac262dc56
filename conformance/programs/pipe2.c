/* pipe, pipe2: pipe(2), pipe(7) "I/O on pipes and FIFOs", "PIPE_BUF", "Pipe capacity". */
#include "check.h"

static void nothing(int s) {}

int main(int argc, char **argv) {
  int p[2] = {7, 7};
  static char b[70000];
  FAILS("pipe: bad address", EFAULT, sys(pipe, bad_address()));
  GIVES("pipe: two descriptors", 0, sys(pipe, p));
  OK("pipe: the lowest numbers, read end first", p[0] == 3 && p[1] == 4);
  GIVES("pipe: read end is O_RDONLY", O_RDONLY, fcntl(p[0], F_GETFL));
  GIVES("pipe: write end is O_WRONLY", O_WRONLY, fcntl(p[1], F_GETFL));
  GIVES("pipe: capacity", 65536, fcntl(p[1], F_GETPIPE_SZ));
  FAILS("pipe: read from the write end", EBADF, read(p[1], b, 1));
  FAILS("pipe: write to the read end", EBADF, write(p[0], b, 1));
  FAILS("pipe: no seeking", ESPIPE, lseek(p[0], 0, SEEK_SET));
  FAILS("pipe: no pread64", ESPIPE, pread(p[0], b, 1, 0));
  GIVES("pipe: written", 5, write(p[1], "hello", 5));
  GIVES("pipe: read back what is there", 5, read(p[0], b, sizeof b));
  close(p[1]);
  GIVES("pipe: end of file without a writer", 0, read(p[0], b, 1));
  close(p[0]);
  FAILS("pipe2: unknown flags", EINVAL, sys(pipe2, p, O_APPEND));
  GIVES("pipe2: O_NONBLOCK and O_CLOEXEC", 0, sys(pipe2, p, O_NONBLOCK | O_CLOEXEC));
  GIVES("pipe2: the flag is the description's", O_NONBLOCK, fcntl(p[0], F_GETFL));
  GIVES("pipe2: close-on-exec", FD_CLOEXEC, fcntl(p[1], F_GETFD));
  FAILS("pipe2: nothing to read", EAGAIN, read(p[0], b, 1));
  GIVES("pipe2: a full pipe takes what fits", 65536, write(p[1], b, sizeof b));
  FAILS("pipe2: then nothing", EAGAIN, write(p[1], b, 1));
  signal(SIGPIPE, nothing);
  close(p[0]);
  FAILS("pipe2: no reader", EPIPE, write(p[1], b, 1));
  signal(SIGPIPE, SIG_DFL);
  GIVES("pipe2: SIGPIPE", 1000 + SIGPIPE, IN_CHILD(write(p[1], b, 1)));
  GIVES("pipe2: O_DIRECT makes packets", 0, sys(pipe2, p, O_DIRECT));
  write(p[1], "one", 3);
  write(p[1], "two", 3);
  GIVES("pipe2: one packet a read", 3, read(p[0], b, sizeof b));
  return done();
}
