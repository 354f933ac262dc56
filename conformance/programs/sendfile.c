/* sendfile, copy_file_range, splice, tee, vmsplice, fallocate, flock, fsync and its kin, readahead, fadvise64. */
#include "check.h"
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <linux/falloc.h>

int main(int argc, char **argv) {
  int in = file_with("in", "0123456789", O_RDWR), out = file_with("out", "", O_RDWR), p[2], q[2], img = open("/data/hello", O_RDONLY), dir = open(".", O_RDONLY);
  int append = open("app", O_CREAT | O_RDWR | O_APPEND, 0600);
  off_t off = 2, off2 = 0;
  char b[64];
  struct stat st;
  pipe(p);
  pipe(q);
  GIVES("sendfile: at an offset", 3, sys(sendfile, out, in, &off, 3));
  GIVES("sendfile: moves the offset", 5, off);
  GIVES("sendfile: leaves the file's own", 0, lseek(in, 0, SEEK_CUR));
  GIVES("sendfile: without one", 10, sys(sendfile, out, in, NULL, 100));
  GIVES("sendfile: moves the file's own", 10, lseek(in, 0, SEEK_CUR));
  GIVES("sendfile: at the end", 0, sys(sendfile, out, in, NULL, 100));
  FAILS("sendfile: a negative offset", EINVAL, ({ off_t o = -1; sys(sendfile, out, in, &o, 1); }));
  FAILS("sendfile: to a read-only file", EBADF, sys(sendfile, img, in, NULL, 1));
  FAILS("sendfile: from a write-only file", EBADF, sys(sendfile, out, open("in", O_WRONLY), NULL, 1));
  FAILS("sendfile: appending", EINVAL, sys(sendfile, append, in, &off2, 1));
  FAILS("sendfile: bad address", EFAULT, sys(sendfile, out, in, bad_address(), 1));
  GIVES("sendfile: image file", 13, sys(sendfile, out, img, NULL, 100));
  GIVES("sendfile: image file to a pipe", 5, ({ off_t o = 0; sys(sendfile, p[1], img, &o, 5); }));
  GIVES("sendfile: has the bytes", 0, (read(p[0], b, 64), memcmp(b, "hello", 5)));

  lseek(in, 0, SEEK_SET);
  off = 1;
  off2 = 0;
  GIVES("copy_file_range: with offsets", 4, sys(copy_file_range, in, &off, out, &off2, 4, 0));
  OK("copy_file_range: moves them", off == 5 && off2 == 4);
  GIVES("copy_file_range: without", 10, sys(copy_file_range, in, NULL, out, NULL, 100, 0));
  FAILS("copy_file_range: flags", EINVAL, sys(copy_file_range, in, NULL, out, NULL, 1, 1));
  FAILS("copy_file_range: a directory", EISDIR, sys(copy_file_range, dir, NULL, out, NULL, 1, 0));
  FAILS("copy_file_range: a pipe", EINVAL, sys(copy_file_range, p[0], NULL, out, NULL, 1, 0));
  FAILS("copy_file_range: appending", EBADF, sys(copy_file_range, in, NULL, append, NULL, 1, 0));
  FAILS("copy_file_range: overlapping", EINVAL, ({ off_t a = 0, c = 1; sys(copy_file_range, in, &a, in, &c, 5, 0); }));
  off = 0;
  GIVES("copy_file_range: image file", 13, ({ ftruncate(out, 0); off2 = 0; sys(copy_file_range, img, &off, out, &off2, 100, 0); }));
  GIVES("copy_file_range: its bytes", 0, (pread(out, b, 13, 0), memcmp(b, "hello, image\n", 13)));

  off = 0;
  GIVES("splice: file to pipe", 5, sys(splice, in, &off, p[1], NULL, 5, 0));
  GIVES("splice: moves the offset", 5, off);
  GIVES("tee: pipe to pipe", 5, sys(tee, p[0], q[1], 100, 0));
  GIVES("splice: pipe to pipe", 5, sys(splice, p[0], NULL, q[1], NULL, 100, 0));
  GIVES("splice: pipe to file", 10, sys(splice, q[0], NULL, out, NULL, 100, 0));
  FAILS("splice: no pipe", EINVAL, sys(splice, in, NULL, out, NULL, 1, 0));
  FAILS("splice: an offset of a pipe", ESPIPE, sys(splice, p[0], &off, out, NULL, 1, 0));
  FAILS("splice: empty, not waiting", EAGAIN, sys(splice, p[0], NULL, out, NULL, 1, SPLICE_F_NONBLOCK));
  FAILS("splice: unknown flags", EINVAL, sys(splice, p[0], NULL, out, NULL, 1, 0x100));
  GIVES("splice: nothing", 0, sys(splice, 77, NULL, 78, NULL, 0, 0));
  FAILS("splice: to the same pipe", EINVAL, sys(splice, p[0], NULL, p[1], NULL, 1, 0));
  GIVES("splice: image file to pipe", 5, ({ off = 7; sys(splice, img, &off, p[1], NULL, 5, 0); }));
  GIVES("splice: its bytes", 0, (read(p[0], b, 64), memcmp(b, "image", 5)));
  FAILS("tee: no pipe", EINVAL, sys(tee, in, q[1], 1, 0));
  struct iovec v = {"gift", 4};
  GIVES("vmsplice: memory to pipe", 4, sys(vmsplice, p[1], &v, 1, 0));
  GIVES("vmsplice: is there", 0, (read(p[0], b, 64), memcmp(b, "gift", 4)));
  FAILS("vmsplice: no pipe", EBADF, sys(vmsplice, in, &v, 1, 0));
  FAILS("vmsplice: unknown flags", EINVAL, sys(vmsplice, p[1], &v, 1, 0x100));

  ftruncate(out, 0);
  GIVES("fallocate: grows", 0, sys(fallocate, out, 0, 0L, 8192L));
  GIVES("fallocate: size", 8192, (fstat(out, &st), st.st_size));
  GIVES("fallocate: FALLOC_FL_KEEP_SIZE", 0, sys(fallocate, out, FALLOC_FL_KEEP_SIZE, 8192L, 4096L));
  GIVES("fallocate: kept", 8192, (fstat(out, &st), st.st_size));
  GIVES("fallocate: a hole", 0, sys(fallocate, out, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0L, 4096L));
  FAILS("fallocate: no length", EINVAL, sys(fallocate, out, 0, 0L, 0L));
  FAILS("fallocate: a negative offset", EINVAL, sys(fallocate, out, 0, -1L, 1L));
  FAILS("fallocate: a hole that changes the size", EOPNOTSUPP, sys(fallocate, out, FALLOC_FL_PUNCH_HOLE, 0L, 4096L));
  FAILS("fallocate: read-only", EBADF, sys(fallocate, open("in", O_RDONLY), 0, 0L, 1L));
  FAILS("fallocate: a pipe", ESPIPE, sys(fallocate, p[1], 0, 0L, 1L));
  FAILS("fallocate: a directory", EBADF, sys(fallocate, dir, 0, 0L, 1L));

  int two = open("in", O_RDONLY);
  GIVES("flock: exclusive", 0, sys(flock, in, LOCK_EX));
  FAILS("flock: another description", EAGAIN, sys(flock, two, LOCK_SH | LOCK_NB));
  GIVES("flock: a duplicate has it", 0, sys(flock, dup(in), LOCK_EX | LOCK_NB));
  GIVES("flock: unlocked", 0, sys(flock, in, LOCK_UN));
  GIVES("flock: shared by both", 0, sys(flock, in, LOCK_SH) + sys(flock, two, LOCK_SH | LOCK_NB));
  FAILS("flock: unknown operation", EINVAL, sys(flock, in, 77));
  GIVES("flock: image file", 0, sys(flock, img, LOCK_EX | LOCK_NB));
  FAILS("flock: image file, another description", EAGAIN, sys(flock, open("/data/hello", O_RDONLY), LOCK_EX | LOCK_NB));
  GIVES("flock: another image file", 0, sys(flock, open("/data/pages", O_RDONLY), LOCK_EX | LOCK_NB));
  GIVES("fsync: a file", 0, sys(fsync, in));
  GIVES("fsync: a directory", 0, sys(fsync, dir));
  GIVES("fsync: an image file", 0, sys(fsync, img));
  FAILS("fsync: a pipe", EINVAL, sys(fsync, p[1]));
  GIVES("fdatasync: a file", 0, sys(fdatasync, in));
  FAILS("fdatasync: a pipe", EINVAL, sys(fdatasync, p[1]));
  GIVES("sync_file_range: a file", 0, sys(sync_file_range, in, 0L, 0L, 7));
  FAILS("sync_file_range: unknown flags", EINVAL, sys(sync_file_range, in, 0L, 0L, 8));
  FAILS("sync_file_range: a pipe", ESPIPE, sys(sync_file_range, p[1], 0L, 0L, 2));
  GIVES("syncfs: a file", 0, sys(syncfs, in));
  GIVES("sync: returns", 0, sys(sync));
  GIVES("readahead: a file", 0, sys(readahead, in, 0L, 4096L));
  FAILS("readahead: a pipe", EINVAL, sys(readahead, p[0], 0L, 4096L));
  FAILS("readahead: write-only", EBADF, sys(readahead, open("in", O_WRONLY), 0L, 4096L));
  GIVES("fadvise64: a file", 0, sys(fadvise64, in, 0L, 0L, 3));
  FAILS("fadvise64: unknown advice", EINVAL, sys(fadvise64, in, 0L, 0L, 9));
  FAILS("fadvise64: a pipe", ESPIPE, sys(fadvise64, p[0], 0L, 0L, 0));
  return done();
}
