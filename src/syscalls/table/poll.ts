/** Waiting for descriptors. */
import { fd, flags, inout, input, int, output, pointer, syscall } from './schema.ts'

const direct = { class: 'direct', policy: 'poll' } as const
const local = { class: 'local', policy: 'poll' } as const

export const entries = [
  syscall(7, 'poll', { fds: inout('nfds', 8), nfds: int, timeout: int }, { ...direct, doc: 'Wait for events on descriptors.' }),
  syscall(23, 'select', { nfds: int, readfds: inout(128), writefds: inout(128), exceptfds: inout(128), timeout: inout(16) }, { ...direct, doc: 'Wait for descriptors.', quirk: 'Sets of at most 1024 descriptors.' }),
  syscall(213, 'epoll_create', { size: int }, { ...direct, newFd: true, doc: 'Make an epoll instance.' }),
  syscall(232, 'epoll_wait', { epfd: fd, events: output('maxevents', 12), maxevents: int, timeout: int }, { ...direct, doc: 'Wait for epoll events.' }),
  syscall(233, 'epoll_ctl', { epfd: fd, op: int, fd, event: input(12) }, { ...direct, doc: 'Add, change or remove an epoll interest.' }),
  syscall(270, 'pselect6', { nfds: int, readfds: inout(128), writefds: inout(128), exceptfds: inout(128), timeout: inout(16), sigmask: pointer }, { ...local, doc: 'Wait for descriptors with another signal mask.', quirk: 'Sets of at most 1024 descriptors.' }),
  syscall(271, 'ppoll', { fds: inout('nfds', 8), nfds: int, timeout: inout(16), sigmask: pointer, sigsetsize: int }, { ...local, doc: 'Wait for events with another signal mask.' }),
  syscall(281, 'epoll_pwait', { epfd: fd, events: output('maxevents', 12), maxevents: int, timeout: int, sigmask: pointer, sigsetsize: int }, { ...local, doc: 'Wait for epoll events with another signal mask.' }),
  syscall(284, 'eventfd', { initval: int }, { ...direct, newFd: true, doc: 'Make an event counter.' }),
  syscall(290, 'eventfd2', { initval: int, flags }, { ...direct, newFd: true, doc: 'Make an event counter with flags.' }),
  syscall(291, 'epoll_create1', { flags }, { ...direct, newFd: true, doc: 'Make an epoll instance with flags.' }),
  syscall(441, 'epoll_pwait2', { epfd: fd, events: output('maxevents', 12), maxevents: int, timeout: input(16), sigmask: pointer, sigsetsize: int }, { ...local, doc: 'Wait for epoll events with another signal mask, to the nanosecond.' }),
]
