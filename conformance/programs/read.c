/* read, write, pread64, pwrite64, readv, writev, preadv, pwritev, preadv2, pwritev2, lseek. */
#include "check.h"
#include <sys/uio.h>

int main(int argc, char **argv) {
  int fd = file_with("f", "0123456789", O_RDWR), ro = open("f", O_RDONLY), wo = open("f", O_WRONLY), dir = open(".", O_RDONLY), img = open("/data/hello", O_RDONLY);
  char b[64], c[64];
  struct iovec v[2] = {{b, 3}, {c, 3}}, bad[2] = {{b, 3}, {bad_address(), 3}}, many[1025] = {0};
  GIVES("read: bytes", 4, read(fd, b, 4));
  GIVES("read: the rest", 6, read(fd, b, 64));
  GIVES("read: end of file", 0, read(fd, b, 64));
  GIVES("read: none at all", 0, read(fd, NULL, 0));
  FAILS("read: a directory", EISDIR, read(dir, b, 1));
  FAILS("read: not open for reading", EBADF, read(wo, b, 1));
  FAILS("read: bad address", EFAULT, pread(fd, bad_address(), 4, 0));
  FAILS("read: count beyond all memory", EFAULT, (lseek(fd, 0, SEEK_SET), sys(read, fd, b, -1L)));
  GIVES("read: image file", 5, read(img, b, 5));
  OK("read: its text", !memcmp(b, "hello", 5));
  FAILS("read: image file, bad address", EFAULT, read(img, bad_address(), 1));
  FAILS("write: not open for writing", EBADF, write(ro, b, 1));
  FAILS("write: bad address", EFAULT, write(fd, bad_address(), 1));
  FAILS("write: image file", EBADF, write(img, b, 1));
  GIVES("write: none at all", 0, write(fd, NULL, 0));
  GIVES("write: none, read-only", -1, write(ro, NULL, 0));
  FAILS("pread64: negative offset", EINVAL, pread(fd, b, 1, -1));
  GIVES("pread64: leaves the offset", 3, (lseek(fd, 3, SEEK_SET), pread(fd, b, 2, 8), lseek(fd, 0, SEEK_CUR)));
  GIVES("pread64: behind the end", 0, pread(fd, b, 1, 100));
  FAILS("pread64: image, negative offset", EINVAL, pread(img, b, 1, -5));
  FAILS("pwrite64: negative offset", EINVAL, pwrite(fd, b, 1, -1));
  GIVES("pwrite64: behind the end", 1, pwrite(fd, "x", 1, 20));
  GIVES("pwrite64: leaves a hole of zeroes", 0, (pread(fd, b, 1, 15), b[0]));
  ftruncate(fd, 10);
  lseek(fd, 0, SEEK_SET);
  GIVES("readv: two buffers", 6, readv(fd, v, 2));
  OK("readv: in order", !memcmp(b, "012", 3) && !memcmp(c, "345", 3));
  GIVES("readv: no buffers", 0, readv(fd, v, 0));
  FAILS("readv: too many", EINVAL, sys(readv, fd, many, 1025));
  GIVES("readv: as many as there may be", 0, sys(readv, fd, many, 1024));
  FAILS("readv: a negative count", EINVAL, sys(readv, fd, v, -1));
  FAILS("readv: a negative length", EINVAL, ({ struct iovec n = {b, -1L}; readv(fd, &n, 1); }));
  FAILS("readv: a bad list", EFAULT, readv(fd, bad_address(), 1));
  lseek(fd, 0, SEEK_SET);
  GIVES("readv: up to the bad buffer", 3, readv(fd, bad, 2));
  GIVES("readv: image file", 6, (lseek(img, 0, SEEK_SET), readv(img, v, 2)));
  GIVES("writev: two buffers", 6, (lseek(fd, 0, SEEK_SET), writev(fd, v, 2)));
  FAILS("writev: descriptor first", EBADF, writev(77, bad_address(), 1));
  GIVES("preadv: at an offset", 6, preadv(fd, v, 2, 1));
  FAILS("preadv: negative offset", EINVAL, preadv(fd, v, 2, -2));
  FAILS("preadv: a pipe", ESPIPE, ({ int p[2]; pipe(p); preadv(p[0], v, 2, 0); }));
  GIVES("pwritev: at an offset", 6, pwritev(fd, v, 2, 4));
  GIVES("preadv2: -1 uses the offset", 6, (lseek(fd, 2, SEEK_SET), preadv2(fd, v, 2, -1, 0)));
  FAILS("preadv2: unknown flags", EOPNOTSUPP, preadv2(fd, v, 2, 0, 0x4000));
  GIVES("preadv2: image, unknown flags", -1, preadv2(img, v, 2, 0, 0x4000));
  GIVES("pwritev2: RWF_APPEND", 6, pwritev2(fd, v, 2, 0, RWF_APPEND));
  GIVES("pwritev2: is behind the end", 16, lseek(fd, 0, SEEK_END));
  FAILS("lseek: before the start", EINVAL, lseek(fd, -1, SEEK_SET));
  FAILS("lseek: whence", EINVAL, lseek(fd, 0, 77));
  GIVES("lseek: past the end", 100, lseek(fd, 100, SEEK_SET));
  GIVES("lseek: SEEK_DATA", 0, lseek(fd, 0, SEEK_DATA));
  GIVES("lseek: SEEK_HOLE", 16, lseek(fd, 0, SEEK_HOLE));
  FAILS("lseek: SEEK_DATA at the end", ENXIO, lseek(fd, 16, SEEK_DATA));
  GIVES("lseek: image, SEEK_END", 13, lseek(img, 0, SEEK_END));
  FAILS("lseek: image, SEEK_DATA behind", ENXIO, lseek(img, 13, SEEK_DATA));
  FAILS("lseek: image, whence", EINVAL, lseek(img, 0, 9));
  FAILS("lseek: image, before the start", EINVAL, lseek(img, -50, SEEK_CUR));
  GIVES("lseek: directory", 0, lseek(dir, 0, SEEK_SET));
  return done();
}
