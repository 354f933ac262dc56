/* chmod, fchmod, fchmodat, chown, fchown, lchown, fchownat, utimensat, utime, utimes, futimesat, truncate, ftruncate. */
#include "check.h"
#include <utime.h>

static struct stat st;
static mode_t mode(const char *p) { return lstat(p, &st) ? 0 : st.st_mode; }

int main(int argc, char **argv) {
  int fd = file_with("f", "0123456789", O_RDWR), dir = open(".", O_RDONLY);
  symlink("f", "l");
  GIVES("chmod: all bits", 0, sys(chmod, "f", 07777));
  GIVES("chmod: are there", S_IFREG | 07777, mode("f"));
  GIVES("chmod: the type cannot be changed", 0, sys(chmod, "f", S_IFDIR | 0644));
  GIVES("chmod: it is not", S_IFREG | 0644, mode("f"));
  GIVES("chmod: follows links", 0, sys(chmod, "l", 0600));
  GIVES("chmod: the target's mode", S_IFREG | 0600, mode("f"));
  FAILS("chmod: missing", ENOENT, sys(chmod, "x", 0600));
  GIVES("fchmod: by descriptor", 0, sys(fchmod, fd, 0640));
  FAILS("fchmod: O_PATH", EBADF, sys(fchmod, open("f", O_PATH), 0600));
  GIVES("fchmodat: relative", 0, sys(fchmodat, dir, "f", 0604));
  GIVES("chmod: not the owner", EPERM, IN_CHILD(if (setgid(1001) || setuid(1000)) _exit(9); _exit(chmod("f", 0600) < 0 ? errno : 0)));
  GIVES("chown: both", 0, sys(chown, "f", 1000, 1001));
  OK("chown: are set", stat("f", &st) == 0 && st.st_uid == 1000 && st.st_gid == 1001);
  chmod("f", 06755);
  GIVES("chown: -1 leaves", 0, sys(chown, "f", -1, 5));
  OK("chown: left", stat("f", &st) == 0 && st.st_uid == 1000 && st.st_gid == 5);
  GIVES("chown: clears set-id bits", S_IFREG | 0755, mode("f"));
  GIVES("fchown: by descriptor", 0, sys(fchown, fd, 0, 0));
  GIVES("lchown: a link itself", 0, sys(lchown, "l", 7, 8));
  OK("lchown: not the target", lstat("l", &st) == 0 && st.st_uid == 7 && stat("f", &st) == 0 && st.st_uid == 0);
  GIVES("fchownat: AT_SYMLINK_NOFOLLOW", 0, sys(fchownat, dir, "l", 9, -1, AT_SYMLINK_NOFOLLOW));
  GIVES("fchownat: AT_EMPTY_PATH", 0, sys(fchownat, fd, "", 1000, -1, AT_EMPTY_PATH));
  FAILS("fchownat: unknown flags", EINVAL, sys(fchownat, dir, "f", 0, 0, 1));
  GIVES("chown: not the owner", EPERM, IN_CHILD(if (setgid(1001) || setuid(1000)) _exit(9); _exit(chown("/data/hello", 1000, -1) < 0 ? errno : 0)));
  GIVES("chown: the owner cannot give away", EPERM, IN_CHILD(if (setgid(1001) || setuid(1000)) _exit(9); _exit(chown("f", 0, -1) < 0 ? errno : 0)));
  GIVES("chown: the owner to its own group", 0, IN_CHILD(if (setgid(1001) || setuid(1000)) _exit(9); _exit(chown("f", -1, 1001) < 0 ? errno : 0)));

  struct timespec t[2] = {{100, 5}, {200, 6}};
  GIVES("utimensat: both", 0, sys(utimensat, AT_FDCWD, "f", t, 0));
  OK("utimensat: are set to the nanosecond", stat("f", &st) == 0 && st.st_atim.tv_sec == 100 && st.st_atim.tv_nsec == 5 && st.st_mtim.tv_sec == 200 && st.st_mtim.tv_nsec == 6);
  t[0].tv_nsec = UTIME_OMIT;
  t[1].tv_nsec = UTIME_NOW;
  GIVES("utimensat: UTIME_OMIT and UTIME_NOW", 0, sys(utimensat, AT_FDCWD, "f", t, 0));
  OK("utimensat: one is left, one is now", stat("f", &st) == 0 && st.st_atim.tv_sec == 100 && st.st_mtim.tv_sec > 1000000);
  t[0].tv_nsec = 1000000000;
  FAILS("utimensat: too many nanoseconds", EINVAL, sys(utimensat, AT_FDCWD, "f", t, 0));
  GIVES("utimensat: the descriptor itself", 0, sys(utimensat, fd, NULL, NULL, 0));
  FAILS("utimensat: AT_FDCWD without a path", EFAULT, sys(utimensat, AT_FDCWD, NULL, NULL, 0));
  t[0] = t[1] = (struct timespec){5, 0};
  GIVES("utimensat: a link itself", 0, sys(utimensat, AT_FDCWD, "l", t, AT_SYMLINK_NOFOLLOW));
  GIVES("utimensat: its time", 5, (lstat("l", &st), st.st_mtim.tv_sec));
  FAILS("utimensat: missing", ENOENT, sys(utimensat, AT_FDCWD, "x", t, 0));
  GIVES("utimensat: a negative time", 0, ({ t[0].tv_sec = t[1].tv_sec = -100; sys(utimensat, AT_FDCWD, "f", t, 0); }));
  GIVES("utimensat: reads back", -100, (stat("f", &st), st.st_mtim.tv_sec));
  GIVES("utime: seconds", 0, ({ struct utimbuf u = {11, 22}; sys(utime, "f", &u); }));
  OK("utime: are set", stat("f", &st) == 0 && st.st_atim.tv_sec == 11 && st.st_mtim.tv_sec == 22);
  GIVES("utimes: microseconds", 0, ({ struct timeval v[2] = {{1, 2}, {3, 4}}; sys(utimes, "f", v); }));
  OK("utimes: are set", stat("f", &st) == 0 && st.st_atim.tv_nsec == 2000 && st.st_mtim.tv_nsec == 4000);
  FAILS("utimes: too many microseconds", EINVAL, ({ struct timeval v[2] = {{1, 1000000}, {3, 4}}; sys(utimes, "f", v); }));
  GIVES("futimesat: relative", 0, ({ struct timeval v[2] = {{9, 2}, {3, 4}}; sys(futimesat, dir, "f", v); }));
  GIVES("futimesat: is set", 9, (stat("f", &st), st.st_atim.tv_sec));

  chown("f", 0, 0);
  GIVES("truncate: shorter", 0, sys(truncate, "f", 4));
  GIVES("truncate: is", 4, (stat("f", &st), st.st_size));
  GIVES("truncate: longer, with zeroes", 0, sys(truncate, "f", 5000));
  GIVES("truncate: is longer", 5000, (stat("f", &st), st.st_size));
  FAILS("truncate: negative", EINVAL, sys(truncate, "f", -1L));
  FAILS("truncate: a directory", EISDIR, sys(truncate, ".", 0));
  FAILS("truncate: missing", ENOENT, sys(truncate, "x", 0));
  GIVES("truncate: no permission", EACCES, IN_CHILD(if (setgid(1001) || setuid(1000)) _exit(9); _exit(truncate("/data/secret", 0) < 0 ? errno : 0)));
  GIVES("truncate: image file", 0, sys(truncate, "/data/plain-text", 3));
  GIVES("truncate: image file is shorter", 3, (stat("/data/plain-text", &st), st.st_size));
  GIVES("ftruncate: by descriptor", 0, sys(ftruncate, fd, 7));
  FAILS("ftruncate: negative", EINVAL, sys(ftruncate, fd, -1L));
  FAILS("ftruncate: read-only", EINVAL, sys(ftruncate, open("f", O_RDONLY), 1));
  FAILS("ftruncate: a pipe", EINVAL, ({ int p[2]; pipe(p); sys(ftruncate, p[1], 1); }));
  FAILS("ftruncate: a directory", EINVAL, sys(ftruncate, dir, 1));
  FAILS("ftruncate: an image file, read-only", EINVAL, sys(ftruncate, open("/data/hello", O_RDONLY), 1));
  GIVES("ftruncate: beyond the file-size limit", 1000 + SIGXFSZ, IN_CHILD(struct rlimit r = {100, 100}; setrlimit(RLIMIT_FSIZE, &r); ftruncate(fd, 1000)));
  return done();
}
