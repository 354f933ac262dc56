/** Clocks and timers. */
import { flags, inout, input, int, output, refused, syscall } from './schema.ts'

const direct = { class: 'direct', policy: 'time' } as const
const local = { class: 'local', policy: 'time' } as const

export const entries = [
  syscall(35, 'nanosleep', { rqtp: input(16), rmtp: output(16) }, { ...direct, doc: 'Sleep.' }),
  syscall(36, 'getitimer', { which: int, value: output(32) }, { ...direct, doc: 'Read an interval timer.' }),
  syscall(37, 'alarm', { seconds: int }, { ...direct, doc: 'Send SIGALRM later.' }),
  syscall(38, 'setitimer', { which: int, value: input(32), ovalue: output(32) }, { ...direct, doc: 'Set an interval timer.' }),
  syscall(96, 'gettimeofday', { tv: output(16), tz: output(8) }, { ...local, doc: 'Read the time of day.' }),
  syscall(100, 'times', { buf: output(32) }, { ...direct, doc: 'Read process times.' }),
  syscall(201, 'time', { tloc: output(8) }, { ...local, doc: 'Read the time in seconds.' }),
  syscall(222, 'timer_create', { clockid: int, sevp: inout(64), timerid: output(4) }, { ...direct, doc: 'Make a POSIX timer.' }),
  syscall(223, 'timer_settime', { timerid: int, flags, new_value: input(32), old_value: output(32) }, { ...direct, doc: 'Arm a POSIX timer.' }),
  syscall(224, 'timer_gettime', { timerid: int, curr_value: output(32) }, { ...direct, doc: 'Read a POSIX timer.' }),
  syscall(225, 'timer_getoverrun', { timerid: int }, { ...direct, doc: 'Count missed expirations.' }),
  syscall(226, 'timer_delete', { timerid: int }, { ...direct, doc: 'Delete a POSIX timer.' }),
  syscall(228, 'clock_gettime', { clockid: int, tp: output(16) }, { ...local, doc: 'Read a clock.' }),
  syscall(229, 'clock_getres', { clockid: int, res: output(16) }, { ...direct, doc: 'Read a clock\'s resolution.' }),
  syscall(230, 'clock_nanosleep', { clockid: int, flags, rqtp: input(16), rmtp: output(16) }, { ...direct, doc: 'Sleep on a clock.' }),
  syscall(283, 'timerfd_create', { clockid: int, flags }, { ...direct, newFd: true, doc: 'Make a timer with a descriptor.' }),
  syscall(286, 'timerfd_settime', { fd: { kind: 'fd' }, flags, new_value: input(32), old_value: output(32) }, { ...direct, doc: 'Arm a timer descriptor.' }),
  syscall(287, 'timerfd_gettime', { fd: { kind: 'fd' }, curr_value: output(32) }, { ...direct, doc: 'Read a timer descriptor.' }),
  syscall(159, 'adjtimex', { buf: inout(208) }, { ...direct, doc: 'Read the clock\'s tuning.' }),
  syscall(305, 'clock_adjtime', { clockid: int, buf: inout(208) }, { ...direct, doc: 'Read a clock\'s tuning.' }),
  ...refused('time', 'The clock is the host\'s.', { settimeofday: 164, clock_settime: 227 }),
]
