/* futex_waitv: futex_waitv(2) of the kernel's documentation. What containers refuse: capabilities(7), by call. */
#include "check.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mount.h>

static uint32_t words[3];
static void *wakes(void *p) {
  pause_ms(15);
  sys(futex, &words[1], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
  return p;
}

int main(int argc, char **argv) {
  struct futex_waitv v[3] = {0};
  struct timespec past = {1, 0};
  pthread_t t;
  for (int n = 0; n < 3; n++) v[n] = (struct futex_waitv){.uaddr = (uintptr_t)&words[n], .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG};
  FAILS("futex_waitv: none", EINVAL, sys(futex_waitv, v, 0, 0, NULL, 0));
  FAILS("futex_waitv: too many", EINVAL, sys(futex_waitv, v, 129, 0, NULL, 0));
  FAILS("futex_waitv: flags", EINVAL, sys(futex_waitv, v, 3, 1, NULL, 0));
  FAILS("futex_waitv: another value", EAGAIN, (v[2].val = 9, sys(futex_waitv, v, 3, 0, NULL, 0)));
  v[2].val = 0;
  FAILS("futex_waitv: not in time", ETIMEDOUT, sys(futex_waitv, v, 3, 0, &past, CLOCK_MONOTONIC));
  FAILS("futex_waitv: no clock", EINVAL, sys(futex_waitv, v, 3, 0, &past, 77));
  FAILS("futex_waitv: no size", EINVAL, (v[0].flags = 0, sys(futex_waitv, v, 3, 0, &past, CLOCK_MONOTONIC)));
  v[0].flags = v[1].flags;
  FAILS("futex_waitv: bad address of a word", EFAULT, (v[0].uaddr = (uintptr_t)bad_address(), sys(futex_waitv, v, 3, 0, &past, CLOCK_MONOTONIC)));
  v[0].uaddr = (uintptr_t)&words[0];
  pthread_create(&t, NULL, wakes, NULL);
  GIVES("futex_waitv: which was woken", 1, sys(futex_waitv, v, 3, 0, NULL, 0));
  pthread_join(t, NULL);
  FAILS("mount: needs a privilege", EPERM, sys(mount, "none", "/tmp", "tmpfs", 0L, NULL));
  FAILS("umount2: needs a privilege", EPERM, sys(umount2, "/proc", 0));
  FAILS("pivot_root: needs a privilege", EPERM, sys(pivot_root, "/", "/"));
  FAILS("sethostname: needs a privilege", EPERM, sys(sethostname, "x", 1L));
  FAILS("setdomainname: needs a privilege", EPERM, sys(setdomainname, "x", 1L));
  FAILS("unshare: needs a privilege", EPERM, sys(unshare, 0x20000));
  FAILS("reboot: needs a privilege", EPERM, sys(reboot, 0xfee1dead, 672274793, 0, NULL));
  FAILS("swapoff: needs a privilege", EPERM, sys(swapoff, "/x"));
  FAILS("acct: needs a privilege", EPERM, sys(acct, NULL));
  FAILS("vhangup: needs a privilege", EPERM, sys(vhangup));
  FAILS("open_by_handle_at: needs a privilege", EPERM, ({ char h[64] = {8, 0, 0, 0, 1}; sys(open_by_handle_at, AT_FDCWD, h, 0); }));
  FAILS("name_to_handle_at: an overlay has none", EOPNOTSUPP, ({ struct { unsigned bytes; int type; char b[128]; } h = {128, 0, ""}; int id; sys(name_to_handle_at, AT_FDCWD, "/data/hello", &h, &id, 0); }));
  return done();
}
