/* setxattr and its kin: setxattr(2), getxattr(2), listxattr(2), removexattr(2), xattr(7). */
#include "check.h"
#include <sys/xattr.h>

int main(int argc, char **argv) {
  static char big[70000];
  char b[100];
  int fd = file_with("f", "x", O_RDWR), dir;
  mkdir("d", 0755);
  dir = open("d", O_RDONLY);
  symlink("f", "l");
  mkfifo("fifo", 0600);
  GIVES("setxattr: user", 0, sys(setxattr, "f", "user.one", "value", 5, 0));
  GIVES("getxattr: length", 5, sys(getxattr, "f", "user.one", b, sizeof b));
  OK("getxattr: value", !memcmp(b, "value", 5));
  GIVES("getxattr: how long", 5, sys(getxattr, "f", "user.one", NULL, 0));
  FAILS("getxattr: no room", ERANGE, sys(getxattr, "f", "user.one", b, 3));
  FAILS("getxattr: none", ENODATA, sys(getxattr, "f", "user.two", b, sizeof b));
  FAILS("getxattr: missing file", ENOENT, sys(getxattr, "x", "user.two", b, sizeof b));
  FAILS("getxattr: an empty name", ERANGE, sys(getxattr, "f", "", b, sizeof b));
  FAILS("getxattr: no name space", EOPNOTSUPP, sys(getxattr, "f", "plain", b, sizeof b));
  FAILS("setxattr: no name space", EOPNOTSUPP, sys(setxattr, "f", "plain", "v", 1, 0));
  FAILS("setxattr: unknown flags", EINVAL, sys(setxattr, "f", "user.one", "v", 1, 4));
  FAILS("setxattr: XATTR_CREATE", EEXIST, sys(setxattr, "f", "user.one", "v", 1, XATTR_CREATE));
  FAILS("setxattr: XATTR_REPLACE", ENODATA, sys(setxattr, "f", "user.two", "v", 1, XATTR_REPLACE));
  FAILS("setxattr: too large", E2BIG, sys(setxattr, "f", "user.big", big, 65537, 0));
  FAILS("setxattr: a trusted one needs a privilege", EPERM, sys(setxattr, "f", "trusted.x", "v", 1, 0));
  FAILS("setxattr: a FIFO has none of users", EPERM, sys(setxattr, "fifo", "user.x", "v", 1, 0));
  GIVES("setxattr: follows links", 0, sys(setxattr, "l", "user.two", "", 0, 0));
  GIVES("setxattr: an empty value", 0, sys(getxattr, "f", "user.two", b, sizeof b));
  GIVES("setxattr: an image file", 0, sys(setxattr, "/data/hello", "user.i", "v", 1, 0));
  GIVES("setxattr: no permission", EACCES, IN_CHILD(if (setgid(1001) || setuid(1000)) _exit(9); _exit(setxattr("f", "user.n", "v", 1, 0) < 0 ? errno : 0)));
  FAILS("lsetxattr: a link has none of users", EPERM, sys(lsetxattr, "l", "user.x", "v", 1, 0));
  FAILS("lgetxattr: of a link", ENODATA, sys(lgetxattr, "l", "user.one", b, sizeof b));
  GIVES("fsetxattr: by descriptor", 0, sys(fsetxattr, fd, "user.three", "3", 1, 0));
  GIVES("fsetxattr: a directory", 0, sys(fsetxattr, dir, "user.d", "3", 1, 0));
  FAILS("fsetxattr: O_PATH", EBADF, sys(fsetxattr, open("f", O_PATH), "user.x", "3", 1, 0));
  GIVES("fgetxattr: by descriptor", 1, sys(fgetxattr, fd, "user.three", b, sizeof b));
  GIVES("listxattr: all names", 29, sys(listxattr, "f", b, sizeof b));
  GIVES("listxattr: how long", 29, sys(listxattr, "f", NULL, 0));
  FAILS("listxattr: no room", ERANGE, sys(listxattr, "f", b, 3));
  GIVES("llistxattr: of a link", 0, sys(llistxattr, "l", b, sizeof b));
  GIVES("flistxattr: by descriptor", 29, sys(flistxattr, fd, b, sizeof b));
  GIVES("removexattr: removed", 0, sys(removexattr, "f", "user.one"));
  FAILS("removexattr: is gone", ENODATA, sys(removexattr, "f", "user.one"));
  FAILS("lremovexattr: of a link", EPERM, sys(lremovexattr, "l", "user.one"));
  GIVES("fremovexattr: by descriptor", 0, sys(fremovexattr, fd, "user.three"));
  GIVES("rename: keeps attributes", 0, ({ rename("f", "g"); sys(getxattr, "g", "user.two", b, sizeof b); }));
  return done();
}
