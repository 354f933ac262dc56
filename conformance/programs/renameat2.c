/* rename, renameat, renameat2, link, linkat, symlink, symlinkat, readlink, readlinkat: rename(2), link(2), symlink(2), readlink(2). */
#include "check.h"
#include <stdio.h>

static ino_t ino(const char *p) {
  struct stat st;
  return lstat(p, &st) ? 0 : st.st_ino;
}

int main(int argc, char **argv) {
  struct stat st;
  char b[64], big[5000];
  mkdir("d", 0755);
  mkdir("d/sub", 0755);
  mkdir("e", 0755);
  close(file_with("a", "a", O_RDONLY));
  close(file_with("b", "b", O_RDONLY));
  ino_t a = ino("a"), bb = ino("b");
  GIVES("rename: onto a file", 0, sys(rename, "a", "b"));
  OK("rename: the same inode", ino("b") == a && ino("a") == 0);
  FAILS("rename: missing", ENOENT, sys(rename, "a", "c"));
  FAILS("rename: a file onto a directory", EISDIR, sys(rename, "b", "d"));
  FAILS("rename: a directory onto a file", ENOTDIR, sys(rename, "d", "b"));
  FAILS("rename: onto a directory that is not empty", ENOTEMPTY, sys(rename, "e", "d"));
  FAILS("rename: below itself", EINVAL, sys(rename, "d", "d/sub/x"));
  FAILS("rename: onto what is above", ENOTEMPTY, sys(rename, "d/sub", "d"));
  FAILS("rename: dot", EBUSY, sys(rename, "d/.", "x"));
  FAILS("rename: dot dot", EBUSY, sys(rename, "b", "d/.."));
  FAILS("rename: a file with a slash", ENOTDIR, sys(rename, "b/", "x"));
  FAILS("rename: a file to a name with a slash", ENOTDIR, sys(rename, "b", "x/"));
  FAILS("rename: between file systems", EXDEV, sys(rename, "b", "/dev/shm/b"));
  GIVES("rename: a directory to a name with a slash", 0, sys(rename, "e", "e2/"));
  GIVES("rename: a directory onto an empty one", 0, sys(rename, "e2", "d/sub"));
  link("b", "hard");
  GIVES("rename: two names of one file: nothing", 0, sys(rename, "b", "hard"));
  OK("rename: both stay", ino("b") && ino("hard"));
  GIVES("renameat: relative", 0, sys(renameat, AT_FDCWD, "hard", open("d", O_PATH), "moved"));
  FAILS("renameat2: unknown flags", EINVAL, sys(renameat2, AT_FDCWD, "b", AT_FDCWD, "c", 8));
  FAILS("renameat2: both flags", EINVAL, sys(renameat2, AT_FDCWD, "b", AT_FDCWD, "c", 3));
  FAILS("renameat2: RENAME_NOREPLACE", EEXIST, sys(renameat2, AT_FDCWD, "b", AT_FDCWD, "d", 1));
  GIVES("renameat2: RENAME_NOREPLACE to a new name", 0, sys(renameat2, AT_FDCWD, "b", AT_FDCWD, "c", 1));
  FAILS("renameat2: RENAME_EXCHANGE with nothing", ENOENT, sys(renameat2, AT_FDCWD, "c", AT_FDCWD, "x", 2));
  ino_t d = ino("d");
  GIVES("renameat2: RENAME_EXCHANGE of a file and a directory", 0, sys(renameat2, AT_FDCWD, "c", AT_FDCWD, "d", 2));
  OK("renameat2: exchanged", ino("c") == d && ino("d") == a);
  GIVES("renameat2: an image directory", 0, ({ int r = sys(renameat2, AT_FDCWD, "/data/dir/sub", AT_FDCWD, "/data/dir/sub2", 0); r < 0 && errno != EXDEV ? r : 0; }));
  (void)bb;

  close(file_with("f", "f", O_RDONLY));
  GIVES("link: made", 0, sys(link, "f", "g"));
  GIVES("link: counts", 2, (stat("g", &st), st.st_nlink));
  FAILS("link: exists", EEXIST, sys(link, "f", "g"));
  FAILS("link: a directory", EPERM, sys(link, "c", "c2"));
  FAILS("link: missing", ENOENT, sys(link, "x", "y"));
  FAILS("link: between file systems", EXDEV, sys(link, "f", "/dev/shm/f"));
  symlink("f", "s");
  GIVES("link: a symbolic link itself", 0, sys(link, "s", "s2"));
  OK("link: it is one", lstat("s2", &st) == 0 && S_ISLNK(st.st_mode));
  GIVES("linkat: AT_SYMLINK_FOLLOW", 0, sys(linkat, AT_FDCWD, "s", AT_FDCWD, "h", AT_SYMLINK_FOLLOW));
  GIVES("linkat: three names", 3, (stat("h", &st), st.st_nlink));
  FAILS("linkat: unknown flags", EINVAL, sys(linkat, AT_FDCWD, "f", AT_FDCWD, "i", 1));
  FAILS("linkat: a name with a slash", ENOENT, sys(linkat, AT_FDCWD, "f", AT_FDCWD, "i/", 0));

  GIVES("symlink: made", 0, sys(symlink, "to/where", "t"));
  FAILS("symlink: exists", EEXIST, sys(symlink, "x", "t"));
  FAILS("symlink: an empty target", ENOENT, sys(symlink, "", "t2"));
  FAILS("symlink: an empty name", ENOENT, sys(symlink, "x", ""));
  memset(big, 'x', 4096);
  big[4096] = 0;
  FAILS("symlink: a target of 4096 bytes", ENAMETOOLONG, sys(symlink, big, "t3"));
  GIVES("symlinkat: relative", 0, sys(symlinkat, "x", open(".", O_PATH), "u"));
  GIVES("readlink: bytes without NUL", 8, sys(readlink, "t", b, sizeof b));
  GIVES("readlink: cut", 2, sys(readlink, "t", b, 2));
  FAILS("readlink: a file", EINVAL, sys(readlink, "f", b, sizeof b));
  FAILS("readlink: no room", EINVAL, sys(readlink, "t", b, 0));
  FAILS("readlink: a negative size", EINVAL, sys(readlink, "t", b, -1));
  FAILS("readlink: missing", ENOENT, sys(readlink, "x", b, sizeof b));
  GIVES("readlinkat: relative", 8, sys(readlinkat, open(".", O_PATH), "t", b, sizeof b));
  GIVES("readlinkat: an O_PATH descriptor", 8, sys(readlinkat, open("t", O_PATH | O_NOFOLLOW), "", b, sizeof b));
  FAILS("readlinkat: an empty path of a directory", ENOENT, sys(readlinkat, open(".", O_PATH), "", b, sizeof b));
  return done();
}
