/*
 * unlinkat(2), and the rules of names at a path's end that it shares with renameat2(2), mkdirat(2) and linkat(2):
 * slashes, links, and who may link what.
 */
#include "check.h"

#define AS_GUEST(...) IN_CHILD(if (setresgid(1001, 1001, 1001) || setresuid(1000, 1000, 1000)) _exit(200); _exit((__VA_ARGS__) < 0 ? errno : 0))

int main(void) {
  mkdir("d", 0755);
  mkdir("full", 0755);
  close(file_with("full/x", "", O_RDONLY));
  close(file_with("f", "", O_RDONLY));
  symlink("d", "l");
  symlink("f", "lf");
  symlink("nowhere", "dangling");

  FAILS("unlinkat: a directory with a slash", EISDIR, unlink("d/"));
  FAILS("unlinkat: a file with a slash", ENOTDIR, unlink("f/"));
  FAILS("unlinkat: a link to a directory with a slash", ENOTDIR, unlink("l/"));
  FAILS("unlinkat: a link to a file with a slash", ENOTDIR, unlink("lf/"));
  FAILS("unlinkat: a dangling link with a slash", ENOTDIR, unlink("dangling/"));
  FAILS("unlinkat: nothing, with a slash", ENOENT, unlink("missing/"));
  FAILS("unlinkat: AT_REMOVEDIR of a link with a slash", ENOTDIR, rmdir("l/"));
  FAILS("unlinkat: AT_REMOVEDIR of a file with a slash", ENOTDIR, rmdir("f/"));
  FAILS("unlinkat: AT_REMOVEDIR of a full directory", ENOTEMPTY, rmdir("full/"));
  mkdir("empty", 0755);
  GIVES("unlinkat: AT_REMOVEDIR of a directory with slashes", 0, rmdir("empty///"));

  FAILS("renameat2: a link with a slash", ENOTDIR, rename("l/", "m"));
  FAILS("renameat2: a file with a slash", ENOTDIR, rename("f/", "m"));
  FAILS("renameat2: a file to a name with a slash", ENOTDIR, rename("f", "m/"));
  GIVES("renameat2: a directory to a name with a slash", 0, rename("full/", "m/"));
  FAILS("renameat2: a directory over a link with a slash", ENOTDIR, rename("m", "l/"));
  FAILS("renameat2: a link over a directory with a slash", ENOTDIR, rename("lf", "d/"));

  FAILS("mkdirat: a dangling link with a slash", EEXIST, mkdir("dangling/", 0755));
  FAILS("mkdirat: a link to a directory with a slash", EEXIST, mkdir("l/", 0755));
  FAILS("mkdirat: a file with a slash", EEXIST, mkdir("f/", 0755));
  GIVES("mkdirat: a new name with slashes", 0, mkdir("new//", 0755));
  FAILS("mknodat: a new name with a slash", ENOENT, mknod("node/", S_IFREG | 0644, 0));
  FAILS("mknodat: a dangling link with a slash", EEXIST, mknod("dangling/", S_IFREG | 0644, 0));
  FAILS("symlinkat: a new name with a slash", ENOENT, symlink("x", "sym/"));
  FAILS("linkat: a new name with a slash", ENOENT, link("f", "hard/"));
  FAILS("linkat: an old name with a slash", ENOTDIR, link("f/", "hard"));
  FAILS("linkat: over a dangling link", EEXIST, link("f", "dangling"));

  mkdir("open", 0777);
  chmod("open", 0777);
  mkdir("closed", 0755);
  chmod("f", 0644);
  close(file_with("open/theirs", "", O_RDONLY));
  chmod("open/theirs", 0666);
  close(file_with("open/program", "", O_RDONLY));
  chmod("open/program", 04777);
  GIVES("linkat: what one may read and write", 0, AS_GUEST(link("open/theirs", "open/mine")));
  GIVES("linkat: what one may only read", EPERM, AS_GUEST(link("f", "open/other")));
  GIVES("linkat: with a set-user-id bit", EPERM, AS_GUEST(link("open/program", "open/other")));
  GIVES("linkat: what is no regular file", EPERM, AS_GUEST(link("l", "open/other")));
  GIVES("linkat: before the directory's permission", EPERM, AS_GUEST(link("f", "closed/other")));
  GIVES("linkat: then the directory's permission", EACCES, AS_GUEST(link("open/theirs", "closed/other")));
  GIVES("linkat: one's own", 0, AS_GUEST(close(creat("open/own", 0400)) | link("open/own", "open/second")));
  return done();
}
