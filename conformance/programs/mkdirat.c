/* mkdir, mkdirat, rmdir, unlink, unlinkat, mknod, mknodat, umask. */
#include "check.h"
#include <sys/sysmacros.h>

int main(int argc, char **argv) {
  struct stat st;
  umask(027);
  GIVES("mkdir: made", 0, sys(mkdir, "d", 0777));
  GIVES("mkdir: the mode without the mask", S_IFDIR | 0750, (stat("d", &st), st.st_mode));
  FAILS("mkdir: exists", EEXIST, sys(mkdir, "d", 0777));
  FAILS("mkdir: the root", EEXIST, sys(mkdir, "/", 0777));
  FAILS("mkdir: dot", EEXIST, sys(mkdir, ".", 0777));
  FAILS("mkdir: below what is missing", ENOENT, sys(mkdir, "x/y", 0777));
  FAILS("mkdir: empty path", ENOENT, sys(mkdir, "", 0777));
  GIVES("mkdir: a trailing slash", 0, sys(mkdir, "e/", 0700));
  symlink("nowhere", "dangling");
  FAILS("mkdir: a dangling link", EEXIST, sys(mkdir, "dangling", 0777));
  close(file_with("f", "x", O_RDONLY));
  FAILS("mkdir: below a file", ENOTDIR, sys(mkdir, "f/x", 0777));
  int d = open("d", O_RDONLY), e = open("e", O_RDONLY), old;
  GIVES("mkdirat: relative", 0, sys(mkdirat, d, "in", 01777));
  GIVES("mkdirat: keeps the sticky bit", S_IFDIR | 01750, (fstatat(d, "in", &st, 0), st.st_mode));
  GIVES("mkdirat: counts as a link above", 3, (fstat(d, &st), st.st_nlink > 1 ? 3 : (long)st.st_nlink));
  FAILS("mkdirat: relative to a file", ENOTDIR, sys(mkdirat, open("f", O_RDONLY), "x", 0700));
  FAILS("rmdir: not empty", ENOTEMPTY, sys(rmdir, "d"));
  FAILS("rmdir: a file", ENOTDIR, sys(rmdir, "f"));
  FAILS("rmdir: dot", EINVAL, sys(rmdir, "e/."));
  FAILS("rmdir: dot dot", ENOTEMPTY, sys(rmdir, "d/in/.."));
  FAILS("rmdir: the root", EBUSY, sys(rmdir, "/"));
  FAILS("rmdir: missing", ENOENT, sys(rmdir, "x"));
  GIVES("rmdir: removed", 0, sys(rmdir, "e"));
  FAILS("rmdir: nothing is made in what is gone", ENOENT, sys(mkdirat, e, "x", 0700));
  GIVES("rmdir: has no links", 0, (fstat(e, &st), st.st_nlink));
  FAILS("unlink: a directory", EISDIR, sys(unlink, "d"));
  FAILS("unlink: missing", ENOENT, sys(unlink, "x"));
  FAILS("unlink: a file with a slash", ENOTDIR, sys(unlink, "f/"));
  int f = open("f", O_RDWR);
  GIVES("unlink: removed", 0, sys(unlink, "f"));
  GIVES("unlink: the file lives on", 1, pwrite(f, "y", 1, 0));
  GIVES("unlink: without names", 0, (fstat(f, &st), st.st_nlink));
  GIVES("unlink: a link, not its target", 0, sys(unlink, "dangling"));
  FAILS("unlinkat: unknown flags", EINVAL, sys(unlinkat, AT_FDCWD, "x", 1));
  GIVES("unlinkat: AT_REMOVEDIR", 0, sys(unlinkat, d, "in", AT_REMOVEDIR));
  GIVES("unlinkat: image file", 0, sys(unlinkat, AT_FDCWD, "/data/dir/two", 0));
  FAILS("unlinkat: it is gone", ENOENT, access("/data/dir/two", F_OK));
  GIVES("unlinkat: image directory with its entries", -1, sys(unlinkat, AT_FDCWD, "/data/dir", AT_REMOVEDIR));
  GIVES("umask: the old one", 027, old = umask(022));
  GIVES("umask: permission bits only", 022, umask(07777));
  GIVES("umask: reads back", 0777, umask(022));
  GIVES("mknod: a FIFO", 0, sys(mknod, "fifo", S_IFIFO | 0666, 0));
  GIVES("mknod: its mode", S_IFIFO | 0644, (stat("fifo", &st), st.st_mode));
  GIVES("mknod: a regular file", 0, sys(mknod, "reg", 0600, 0));
  GIVES("mknod: a socket", 0, sys(mknod, "sock", S_IFSOCK | 0600, 0));
  FAILS("mknod: a directory", EPERM, sys(mknod, "dir", S_IFDIR | 0700, 0));
  FAILS("mknod: no type", EINVAL, sys(mknod, "bad", 0170000 | 0700, 0));
  FAILS("mknod: exists", EEXIST, sys(mknod, "reg", S_IFIFO | 0600, 0));
  GIVES("mknodat: relative", 0, sys(mknodat, d, "fifo", S_IFIFO | 0600, 0));
  GIVES("mknodat: a FIFO opened for both", 0, ({ int x = open("d/fifo", O_RDWR | O_NONBLOCK); x < 0; }));
  GIVES("unlink: the sticky bit", EPERM, IN_CHILD(mkdir("sticky", 01777); chmod("sticky", 01777); close(open("sticky/x", O_CREAT | O_WRONLY, 0600));
    if (setgid(1001) || setuid(1000)) _exit(9); _exit(unlink("sticky/x") < 0 ? errno : 0)));
  GIVES("mkdir: no permission", EACCES, IN_CHILD(if (setgid(1001) || setuid(1000)) _exit(9); _exit(mkdir("d/x", 0700) < 0 ? errno : 0)));
  (void)old;
  return done();
}
