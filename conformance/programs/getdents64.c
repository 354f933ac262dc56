/* getdents, getdents64, chdir, fchdir, getcwd, statfs, fstatfs: getdents(2), chdir(2), getcwd(3). */
#include "check.h"
#include <dirent.h>
#include <sys/vfs.h>

struct entry { uint64_t ino; int64_t off; unsigned short len; unsigned char type; char name[]; };
struct old { unsigned long ino, off; unsigned short len; char name[]; };

static int count(const char *path) {
  DIR *d = opendir(path);
  int n = 0;
  while (readdir(d)) n++;
  closedir(d);
  return n;
}

int main(int argc, char **argv) {
  char b[4096], c[4096];
  struct stat st;
  mkdir("d", 0755);
  for (int n = 0; n < 300; n++) {
    snprintf(b, sizeof b, "d/file-%d", n);
    close(open(b, O_CREAT | O_WRONLY, 0600));
  }
  int d = open("d", O_RDONLY);
  GIVES("getdents64: every entry once", 302, count("d"));
  long n = sys(getdents64, d, b, 600);
  OK("getdents64: whole records", n > 0 && n <= 600 && n % 8 == 0);
  struct entry *e = (void *)b;
  OK("getdents64: dot first", !strcmp(e->name, ".") && e->type == DT_DIR);
  OK("getdents64: dot has the directory's inode", fstat(d, &st) == 0 && st.st_ino == e->ino);
  FAILS("getdents64: too small for one", EINVAL, sys(getdents64, d, b, 10));
  FAILS("getdents64: bad address", EFAULT, sys(getdents64, d, bad_address(), 4096));
  FAILS("getdents64: a file", ENOTDIR, sys(getdents64, open("d/file-1", O_RDONLY), b, sizeof b));
  FAILS("getdents64: O_PATH", EBADF, sys(getdents64, open("d", O_PATH), b, sizeof b));
  GIVES("getdents64: rewound", 0, lseek(d, 0, SEEK_SET));
  GIVES("getdents64: the same again", n, sys(getdents64, d, c, 600));
  unlink("d/file-1");
  close(open("d/new", O_CREAT | O_WRONLY, 0600));
  GIVES("getdents64: a new look sees what changed", 302, count("d"));
  GIVES("getdents64: image directory", 3, count("/data/dir") > 2 ? 3 : 0);
  lseek(d, 0, SEEK_SET);
  OK("getdents: the old layout", sys(getdents, d, b, sizeof b) > 0);
  struct old *o = (void *)b;
  OK("getdents: the type is the last byte", !strcmp(o->name, ".") && b[o->len - 1] == DT_DIR && o->ino == st.st_ino);
  FAILS("getdents: too small for one", EINVAL, (lseek(d, 0, SEEK_SET), sys(getdents, d, b, 20)));
  rmdir("empty");
  mkdir("empty", 0755);
  int gone = open("empty", O_RDONLY);
  rmdir("empty");
  FAILS("getdents64: of a removed directory", ENOENT, sys(getdents64, gone, b, sizeof b));

  GIVES("chdir: there", 0, sys(chdir, "d"));
  GIVES("chdir: relative paths follow", 0, access("file-2", F_OK));
  FAILS("chdir: a file", ENOTDIR, sys(chdir, "file-2"));
  FAILS("chdir: missing", ENOENT, sys(chdir, "x"));
  FAILS("chdir: bad address", EFAULT, sys(chdir, bad_address()));
  GIVES("chdir: no permission", EACCES, IN_CHILD(mkdir("p", 0700); if (setuid(1000)) _exit(9); _exit(chdir("p") < 0 ? errno : 0)));
  GIVES("getcwd: length with the NUL", strlen("/tmp/calls/getdents64/d") + 1, sys(getcwd, b, sizeof b));
  OK("getcwd: the path", !strcmp(b, "/tmp/calls/getdents64/d"));
  FAILS("getcwd: no room", ERANGE, sys(getcwd, b, 5));
  FAILS("getcwd: no room at all", ERANGE, sys(getcwd, b, 0));
  FAILS("getcwd: bad address", EFAULT, sys(getcwd, bad_address(), 4096));
  mkdir("rm", 0755);
  chdir("rm");
  rmdir("../rm");
  FAILS("getcwd: a removed directory", ENOENT, sys(getcwd, b, sizeof b));
  FAILS("getcwd: nothing is made in it", ENOENT, open("x", O_CREAT | O_WRONLY, 0600));
  GIVES("fchdir: back", 0, sys(fchdir, d));
  GIVES("fchdir: O_PATH", 0, sys(fchdir, open("/data", O_PATH)));
  FAILS("fchdir: a file", ENOTDIR, sys(fchdir, open("/data/hello", O_RDONLY)));
  FAILS("fchdir: a pipe", ENOTDIR, ({ int p[2]; pipe(p); sys(fchdir, p[0]); }));
  GIVES("fchdir: is inherited by a child", 0, IN_CHILD(_exit(access("hello", F_OK) != 0)));
  struct statfs s;
  GIVES("statfs: proc", 0x9fa0, (sys(statfs, "/proc", &s), s.f_type));
  GIVES("statfs: names", 255, (sys(statfs, "/data", &s), s.f_namelen));
  FAILS("statfs: missing", ENOENT, sys(statfs, "/x", &s));
  GIVES("fstatfs: a pipe", 0x50495045, ({ int p[2]; pipe(p); sys(fstatfs, p[0], &s); s.f_type; }));
  GIVES("fstatfs: a directory", 4096, (sys(fstatfs, d, &s), s.f_bsize));
  return done();
}
