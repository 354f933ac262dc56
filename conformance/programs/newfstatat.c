/* stat, lstat, fstat, newfstatat, statx, access, faccessat, faccessat2: stat(2), statx(2), access(2). */
#include "check.h"
#include <sys/sysmacros.h>

int main(int argc, char **argv) {
  struct stat st, other;
  struct statx sx;
  umask(0);
  int fd = file_with("f", "12345", O_RDWR), p[2];
  mkdir("d", 02751);
  symlink("f", "l");
  symlink("gone", "dangling");
  pipe(p);
  GIVES("stat: a file", 0, sys(stat, "f", &st));
  OK("stat: type, mode, size", st.st_mode == (S_IFREG | 0644) && st.st_size == 5 && st.st_nlink == 1);
  OK("stat: owner", st.st_uid == 0 && st.st_gid == 0);
  OK("stat: blocks", st.st_blksize == 4096 && st.st_blocks > 0);
  FAILS("stat: a dangling link", ENOENT, sys(stat, "dangling", &st));
  FAILS("stat: bad address of the path", EFAULT, sys(stat, bad_address(), &st));
  FAILS("stat: bad address of the buffer", EFAULT, sys(stat, "f", bad_address()));
  GIVES("stat: a device", makedev(1, 3), (stat("/dev/null", &st), st.st_rdev));
  OK("stat: is a character device", S_ISCHR(st.st_mode));
  GIVES("lstat: a link", 0, sys(lstat, "l", &st));
  OK("lstat: its mode and size", st.st_mode == (S_IFLNK | 0777) && st.st_size == 1);
  GIVES("lstat: with a slash it is followed, to no directory", -1, sys(lstat, "l/", &st));
  GIVES("fstat: a file", 0, sys(fstat, fd, &st));
  stat("l", &other);
  OK("fstat: the same inode as through the link", st.st_ino == other.st_ino && st.st_dev == other.st_dev);
  GIVES("fstat: a pipe", S_IFIFO | 0600, (fstat(p[0], &st), st.st_mode));
  FAILS("fstat: closed", EBADF, sys(fstat, 99, &st));
  GIVES("fstat: mkdir gives no set-group-id", S_IFDIR | 0751, (stat("d", &st), st.st_mode));
  GIVES("fstat: an empty directory has no subdirectories", 0, st.st_nlink > 2);
  GIVES("newfstatat: AT_SYMLINK_NOFOLLOW", S_IFLNK, (sys(newfstatat, AT_FDCWD, "l", &st, AT_SYMLINK_NOFOLLOW), st.st_mode & S_IFMT));
  GIVES("newfstatat: AT_EMPTY_PATH", 5, (sys(newfstatat, fd, "", &st, AT_EMPTY_PATH), st.st_size));
  GIVES("newfstatat: AT_EMPTY_PATH of the working directory", S_IFDIR, (sys(newfstatat, AT_FDCWD, "", &st, AT_EMPTY_PATH), st.st_mode & S_IFMT));
  FAILS("newfstatat: an empty path without it", ENOENT, sys(newfstatat, fd, "", &st, 0));
  FAILS("newfstatat: relative to a file", ENOTDIR, sys(newfstatat, fd, "x", &st, 0));
  FAILS("newfstatat: unknown flags", EINVAL, sys(newfstatat, AT_FDCWD, "f", &st, 1));
  GIVES("newfstatat: image file", 13, (sys(newfstatat, AT_FDCWD, "/data/hello", &st, 0), st.st_size));
  GIVES("statx: basic", 0, sys(statx, AT_FDCWD, "f", 0, STATX_BASIC_STATS, &sx));
  OK("statx: size, links, mask", sx.stx_size == 5 && sx.stx_nlink == 1 && (sx.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
  OK("statx: the same inode and device", sx.stx_ino == other.st_ino && makedev(sx.stx_dev_major, sx.stx_dev_minor) == other.st_dev);
  FAILS("statx: both kinds of synchronisation", EINVAL, sys(statx, AT_FDCWD, "f", 0x6000, STATX_BASIC_STATS, &sx));
  FAILS("statx: the reserved bit", EINVAL, sys(statx, AT_FDCWD, "f", 0, 0x80000000u, &sx));
  GIVES("statx: a pipe by AT_EMPTY_PATH", 0, sys(statx, p[0], "", AT_EMPTY_PATH, STATX_BASIC_STATS, &sx));
  GIVES("statx: closed standard input would be EBADF", -1, sys(statx, 99, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &sx));
  GIVES("access: root reads everything", 0, (chmod("f", 0), sys(access, "f", R_OK | W_OK)));
  FAILS("access: root executes nothing without a bit", EACCES, sys(access, "f", X_OK));
  FAILS("access: unknown mode", EINVAL, sys(access, "f", 8));
  GIVES("access: F_OK", 0, sys(access, "d", F_OK));
  FAILS("access: missing", ENOENT, sys(access, "x", F_OK));
  FAILS("access: below a file", ENOTDIR, sys(access, "f/x", F_OK));
  GIVES("access: by the real user id", EACCES, IN_CHILD(if (setresuid(1000, 0, 0)) _exit(99); _exit(sys(access, "f", R_OK) < 0 ? errno : 0)));
  GIVES("faccessat: relative", 0, sys(faccessat, open("/data", O_PATH), "hello", R_OK));
  GIVES("faccessat2: AT_EACCESS", 0, IN_CHILD(if (setresuid(1000, 0, 0)) _exit(99); _exit(sys(faccessat2, AT_FDCWD, "f", R_OK, AT_EACCESS) < 0 ? errno : 0)));
  GIVES("faccessat2: AT_SYMLINK_NOFOLLOW", 0, sys(faccessat2, AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW));
  FAILS("faccessat2: unknown flags", EINVAL, sys(faccessat2, AT_FDCWD, "f", F_OK, 1));
  GIVES("faccessat2: AT_EMPTY_PATH", 0, sys(faccessat2, fd, "", F_OK, AT_EMPTY_PATH));
  return done();
}
