/* Identity: setuid(2), setreuid(2), setresuid(2), setgid(2), getgroups(2), setfsuid(2), capget(2), credentials(7). */
#include "check.h"
#include <grp.h>
#include <linux/capability.h>

static int uids(uid_t r, uid_t e, uid_t s) {
  uid_t a, b, c;
  sys(getresuid, &a, &b, &c);
  return a == r && b == e && c == s;
}
static int gids(gid_t r, gid_t e, gid_t s) {
  gid_t a, b, c;
  sys(getresgid, &a, &b, &c);
  return a == r && b == e && c == s;
}

int main(int argc, char **argv) {
  gid_t g[4] = {5, 6, 7, 8};
  struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct d[2], e[2];
  OK("getuid: root", sys(getuid) == 0 && sys(geteuid) == 0);
  OK("getgid: root", sys(getgid) == 0 && sys(getegid) == 0);
  FAILS("getresuid: bad address", EFAULT, sys(getresuid, g, bad_address(), g));
  FAILS("getresgid: bad address", EFAULT, sys(getresgid, g, g, bad_address()));
  GIVES("geteuid: follows setresuid", 5, IN_CHILD(sys(setresuid, -1, 5, -1); _exit(sys(geteuid))));
  GIVES("getegid: follows setresgid", 6, IN_CHILD(sys(setresgid, -1, 6, -1); _exit(sys(getegid))));
  GIVES("setuid: root sets all three", 1, IN_CHILD(sys(setuid, 1000); _exit(uids(1000, 1000, 1000))));
  GIVES("setuid: and cannot go back", EPERM, IN_CHILD(sys(setuid, 1000); _exit(sys(setuid, 0) < 0 ? errno : 0)));
  FAILS("setuid: no user", EINVAL, sys(setuid, -1));
  GIVES("setresuid: three", 1, IN_CHILD(sys(setresuid, 1, 2, 3); _exit(uids(1, 2, 3))));
  GIVES("setresuid: among the three", 1, IN_CHILD(sys(setresuid, 1, 2, 3); if (sys(setresuid, 3, 1, 2)) _exit(9); _exit(uids(3, 1, 2))));
  GIVES("setresuid: not another", EPERM, IN_CHILD(sys(setresuid, 1, 2, 3); _exit(sys(setresuid, -1, 4, -1) < 0 ? errno : 0)));
  GIVES("setresuid: -1 leaves", 1, IN_CHILD(sys(setresuid, -1, 5, -1); _exit(uids(0, 5, 0))));
  GIVES("setresuid: back from the saved one", 1, IN_CHILD(sys(setresuid, 1000, 1000, 0); if (sys(setresuid, 0, 0, 0)) _exit(9); _exit(uids(0, 0, 0))));
  GIVES("setreuid: the saved one follows", 1, IN_CHILD(sys(setreuid, 1, 2); _exit(uids(1, 2, 2))));
  GIVES("setreuid: the effective one to the real one", 1, IN_CHILD(sys(setresuid, 1, 2, 3); if (sys(setreuid, -1, 1)) _exit(9); _exit(uids(1, 1, 3))));
  GIVES("setreuid: the real one not to the saved one", EPERM, IN_CHILD(sys(setresuid, 1, 2, 3); _exit(sys(setreuid, 3, -1) < 0 ? errno : 0)));
  GIVES("setuid: a user sets the effective one", 1, IN_CHILD(sys(setresuid, 1, 2, 3); if (sys(setuid, 3)) _exit(9); _exit(uids(1, 3, 3))));
  GIVES("setgid: root sets all three", 1, IN_CHILD(sys(setgid, 7); _exit(gids(7, 7, 7))));
  GIVES("setregid: the saved one follows", 1, IN_CHILD(sys(setregid, 7, 8); _exit(gids(7, 8, 8))));
  GIVES("setresgid: three", 1, IN_CHILD(sys(setresgid, 7, 8, 9); _exit(gids(7, 8, 9))));
  GIVES("setresgid: a user, not another", EPERM, IN_CHILD(sys(setuid, 1000); _exit(sys(setresgid, 7, -1, -1) < 0 ? errno : 0)));
  GIVES("setgroups: set", 4, IN_CHILD(sys(setgroups, 4, g); _exit(sys(getgroups, 0, NULL))));
  GIVES("getgroups: reads", 8, IN_CHILD(gid_t x[4]; sys(setgroups, 4, g); sys(getgroups, 4, x); _exit(x[3])));
  GIVES("getgroups: no room", EINVAL, IN_CHILD(gid_t x[4]; sys(setgroups, 4, g); _exit(sys(getgroups, 2, x) < 0 ? errno : 0)));
  FAILS("getgroups: negative", EINVAL, sys(getgroups, -1, g));
  FAILS("setgroups: too many", EINVAL, sys(setgroups, 65537, g));
  FAILS("setgroups: bad address", EFAULT, sys(setgroups, 2, bad_address()));
  GIVES("setgroups: a user", EPERM, IN_CHILD(sys(setuid, 1000); _exit(sys(setgroups, 1, g) < 0 ? errno : 0)));
  GIVES("setfsuid: tells the old", 0, sys(setfsuid, -1));
  GIVES("setfsgid: tells the old", 0, sys(setfsgid, -1));
  GIVES("setfsuid: follows the effective one", 1000, IN_CHILD(sys(setresuid, -1, 1000, -1); _exit(sys(setfsuid, -1) == 1000 ? 1000 & 0xff : 0)) == (1000 & 0xff) ? 1000 : 0);
  GIVES("setfsuid: is for files", EACCES, IN_CHILD(sys(setfsuid, 1000); _exit(open("/data/secret", O_RDONLY) < 0 ? errno : 0)));
  GIVES("capget: reads", 0, sys(capget, &h, d));
  OK("capget: a container's set", d[0].effective == 0xa80425fb && d[0].permitted == 0xa80425fb);
  h.version = 1;
  FAILS("capget: unknown version", EINVAL, sys(capget, &h, d));
  GIVES("capget: tells the right one", _LINUX_CAPABILITY_VERSION_3, h.version);
  GIVES("capget: a user has none", 0, IN_CHILD(sys(setuid, 1000); sys(capget, &h, d); _exit(d[0].effective != 0)));
  GIVES("capget: only permitted after an effective user", 1, IN_CHILD(sys(setresuid, -1, 1000, -1); sys(capget, &h, d); _exit(d[0].effective == 0 && d[0].permitted == 0xa80425fb)));
  sys(capget, &h, d);
  GIVES("capset: fewer", 0, IN_CHILD(memcpy(e, d, sizeof e); e[0].effective = e[0].permitted = 1; if (sys(capset, &h, e)) _exit(1); sys(capget, &h, d); _exit(d[0].permitted != 1)));
  FAILS("capset: more than permitted", EPERM, (memcpy(e, d, sizeof e), e[0].permitted |= 1 << 21, sys(capset, &h, e)));
  FAILS("capset: effective beyond permitted", EPERM, (memcpy(e, d, sizeof e), e[0].permitted = 0, sys(capset, &h, e)));
  FAILS("capset: another process", EPERM, (h.pid = 1, sys(capset, &h, d)));
  return done();
}
