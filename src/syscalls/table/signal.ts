/** Signals. */
import { flags, input, int, output, pointer, syscall } from './schema.ts'

const direct = { class: 'direct', policy: 'signal' } as const
const local = { class: 'local', policy: 'signal' } as const

export const entries = [
  syscall(13, 'rt_sigaction', { signum: int, act: pointer, oldact: pointer, sigsetsize: int }, { ...local, doc: 'Set a signal\'s action.' }),
  syscall(14, 'rt_sigprocmask', { how: int, set: pointer, oldset: pointer, sigsetsize: int }, { ...local, doc: 'Set the thread\'s signal mask.' }),
  syscall(15, 'rt_sigreturn', {}, { ...local, doc: 'Return from a handler.', quirk: 'A handler of a synchronous fault cannot return to the faulting instruction of translated code.' }),
  syscall(34, 'pause', {}, { ...direct, doc: 'Wait for a signal.' }),
  syscall(62, 'kill', { pid: int, sig: int }, { ...direct, doc: 'Signal a process or group of the container.' }),
  syscall(127, 'rt_sigpending', { set: output(8), sigsetsize: int }, { ...local, doc: 'Read pending signals.' }),
  syscall(128, 'rt_sigtimedwait', { set: pointer, info: pointer, timeout: pointer, sigsetsize: int }, { ...local, doc: 'Take a pending signal.' }),
  syscall(129, 'rt_sigqueueinfo', { pid: int, sig: int, info: pointer }, { ...local, doc: 'Queue a signal with a value.' }),
  syscall(130, 'rt_sigsuspend', { mask: pointer, sigsetsize: int }, { ...local, doc: 'Wait for a signal with another mask.' }),
  syscall(131, 'sigaltstack', { ss: pointer, old_ss: pointer }, { ...local, doc: 'Set the alternate signal stack.' }),
  syscall(200, 'tkill', { tid: int, sig: int }, { ...direct, doc: 'Signal a thread.' }),
  syscall(219, 'restart_syscall', {}, { class: 'absent', policy: 'signal', doc: 'Not implemented.', errno: ['ENOSYS'], quirk: 'Used by the kernel itself only.' }),
  syscall(234, 'tgkill', { tgid: int, tid: int, sig: int }, { ...direct, doc: 'Signal a thread of a process.' }),
  syscall(297, 'rt_tgsigqueueinfo', { tgid: int, tid: int, sig: int, info: pointer }, { ...local, doc: 'Queue a signal with a value to a thread.' }),
  syscall(282, 'signalfd', { fd: int, mask: input('sizemask'), sizemask: int }, { ...direct, newFd: true, doc: 'Read signals from a descriptor.' }),
  syscall(289, 'signalfd4', { fd: int, mask: input('sizemask'), sizemask: int, flags }, { ...direct, newFd: true, doc: 'Read signals from a descriptor.' }),
]
