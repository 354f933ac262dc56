/** The system as a whole, inter-process communication, and what user programs have no business with. */
import { absent, fd, flags, inout, input, int, output, pointer, refused, syscall } from './schema.ts'

const direct = { class: 'direct', policy: 'system' } as const
const ipc = { class: 'direct', policy: 'ipc' } as const
const local = { class: 'local', policy: 'system' } as const

export const entries = [
  syscall(99, 'sysinfo', { info: output(112) }, { ...direct, doc: 'Read memory and load.' }),
  syscall(318, 'getrandom', { buf: output('buflen'), buflen: int, flags }, { ...direct, doc: 'Read random bytes.' }),
  syscall(170, 'sethostname', { name: pointer, len: int }, { ...local, doc: 'Refuse.', errno: ['EPERM'], quirk: 'The host name is fixed at container start.' }),
  syscall(171, 'setdomainname', { name: pointer, len: int }, { ...local, doc: 'Refuse.', errno: ['EPERM'], quirk: 'The domain name is fixed.' }),
  syscall(29, 'shmget', { key: int, size: int, shmflg: int }, { ...ipc, doc: 'Make or find shared memory.' }),
  syscall(30, 'shmat', { shmid: int, shmaddr: int, shmflg: int }, { class: 'local', policy: 'ipc', doc: 'Attach shared memory.', errno: ['EACCES'], quirk: 'SHM_EXEC is EACCES.' }),
  syscall(31, 'shmctl', { shmid: int, cmd: int, buf: pointer }, { class: 'local', policy: 'ipc', doc: 'Control shared memory.', quirk: 'Objects belong to user 0, whoever made them: users of one container are not kept apart.' }),
  syscall(64, 'semget', { key: int, nsems: int, semflg: int }, { ...ipc, doc: 'Make or find semaphores.' }),
  syscall(65, 'semop', { semid: int, sops: input('nsops', 6), nsops: int }, { ...ipc, doc: 'Change semaphores.' }),
  syscall(66, 'semctl', { semid: int, semnum: int, cmd: int, arg: int }, { class: 'local', policy: 'ipc', doc: 'Control semaphores.', quirk: 'Objects belong to user 0, whoever made them: users of one container are not kept apart.' }),
  syscall(67, 'shmdt', { shmaddr: int }, { class: 'local', policy: 'ipc', doc: 'Detach shared memory.' }),
  syscall(68, 'msgget', { key: int, msgflg: int }, { ...ipc, doc: 'Make or find a message queue.' }),
  syscall(69, 'msgsnd', { msqid: int, msgp: input('msgsz'), msgsz: int, msgflg: int }, { ...ipc, doc: 'Send a message.' }),
  syscall(70, 'msgrcv', { msqid: int, msgp: output('msgsz'), msgsz: int, msgtyp: int, msgflg: int }, { ...ipc, doc: 'Receive a message.' }),
  syscall(71, 'msgctl', { msqid: int, cmd: int, buf: inout(120) }, { ...ipc, doc: 'Control a message queue.', quirk: 'Objects belong to user 0, whoever made them: users of one container are not kept apart.' }),
  syscall(220, 'semtimedop', { semid: int, sops: input('nsops', 6), nsops: int, timeout: input(16) }, { ...ipc, doc: 'Change semaphores, for a limited time.' }),
  syscall(240, 'mq_open', { name: pointer, oflag: int, mode: int, attr: pointer }, { class: 'local', policy: 'ipc', newFd: true, doc: 'Open a message queue.', quirk: 'Objects belong to user 0, whoever made them: users of one container are not kept apart.' }),
  syscall(241, 'mq_unlink', { name: input(256) }, { ...ipc, doc: 'Remove a message queue.' }),
  syscall(242, 'mq_timedsend', { mqdes: fd, msg_ptr: input('msg_len'), msg_len: int, msg_prio: int, abs_timeout: input(16) }, { ...ipc, restart: true, doc: 'Send a message to a queue.' }),
  syscall(243, 'mq_timedreceive', { mqdes: fd, msg_ptr: output('msg_len'), msg_len: int, msg_prio: output(4), abs_timeout: input(16) }, { ...ipc, restart: true, doc: 'Receive a message from a queue.' }),
  syscall(244, 'mq_notify', { mqdes: fd, sevp: input(64) }, { ...ipc, doc: 'Ask for a signal when a message arrives.' }),
  syscall(245, 'mq_getsetattr', { mqdes: fd, newattr: input(64), oldattr: output(64) }, { ...ipc, doc: 'Read or set attributes of a queue.' }),
  ...refused('system', 'Administers the host.', { syslog: 103, vhangup: 153, _sysctl: 156, acct: 163, swapon: 167, swapoff: 168, reboot: 169, create_module: 174, init_module: 175, delete_module: 176, get_kernel_syms: 177, query_module: 178, kexec_load: 246, finit_module: 313, kexec_file_load: 320 }),
  ...refused('system', 'Runs or observes code in the host\'s kernel.', { perf_event_open: 298, bpf: 321, io_uring_setup: 425, io_uring_enter: 426, io_uring_register: 427, add_key: 248, request_key: 249, keyctl: 250 }),
  ...absent('system', 'Never implemented by Linux either.', { nfsservctl: 180, getpmsg: 181, putpmsg: 182, afs_syscall: 183, tuxcall: 184, security: 185, epoll_ctl_old: 214, epoll_wait_old: 215, vserver: 236 }),
]
