/** The system as a whole, inter-process communication, and what user programs have no business with. */
import { absent, int, output, refused, syscall } from './schema.ts'

const direct = { class: 'direct', policy: 'system' } as const
const local = { class: 'local', policy: 'system' } as const

export const entries = [
  syscall(99, 'sysinfo', { info: output(112) }, { ...direct, doc: 'Read memory and load.' }),
  syscall(318, 'getrandom', { buf: output('buflen'), buflen: int, flags: int }, { ...direct, doc: 'Read random bytes.' }),
  syscall(170, 'sethostname', { name: int, len: int }, { ...local, doc: 'Refuse.', errno: ['EPERM'], quirk: 'The host name is fixed at container start.' }),
  syscall(171, 'setdomainname', { name: int, len: int }, { ...local, doc: 'Refuse.', errno: ['EPERM'], quirk: 'The domain name is fixed.' }),
  ...absent('ipc', 'System V IPC is not offered.', { shmget: 29, shmat: 30, shmctl: 31, semget: 64, semop: 65, semctl: 66, shmdt: 67, msgget: 68, msgsnd: 69, msgrcv: 70, msgctl: 71, semtimedop: 220 }),
  ...absent('ipc', 'POSIX message queues are not offered.', { mq_open: 240, mq_unlink: 241, mq_timedsend: 242, mq_timedreceive: 243, mq_notify: 244, mq_getsetattr: 245 }),
  ...refused('system', 'Administers the host.', { syslog: 103, vhangup: 153, _sysctl: 156, acct: 163, swapon: 167, swapoff: 168, reboot: 169, create_module: 174, init_module: 175, delete_module: 176, get_kernel_syms: 177, query_module: 178, kexec_load: 246, finit_module: 313, kexec_file_load: 320 }),
  ...refused('system', 'Runs or observes code in the host\'s kernel.', { perf_event_open: 298, bpf: 321, io_uring_setup: 425, io_uring_enter: 426, io_uring_register: 427, add_key: 248, request_key: 249, keyctl: 250 }),
  ...absent('system', 'Never implemented by Linux either.', { nfsservctl: 180, getpmsg: 181, putpmsg: 182, afs_syscall: 183, tuxcall: 184, security: 185, epoll_ctl_old: 214, epoll_wait_old: 215, vserver: 236 }),
]
