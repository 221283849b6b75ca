"""A system-call filter: what calculation needs is let through, all else fails (x86_64 and aarch64)."""

import ctypes
import errno
import os
import struct
import sys

from s2l_jax.evaluation.sandbox import linux

# name:number on x86_64:number on aarch64, from Linux's <asm/unistd.h>; `-` where there is none.
_ALLOWED = """
# files, those that Landlock leaves
read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 pwrite64:18:68 preadv:295:69 pwritev:296:70
lseek:8:62 close:3:57 close_range:436:436 stat:4:- fstat:5:80 lstat:6:-
newfstatat:262:79 statx:332:291 access:21:- faccessat:269:48 faccessat2:439:439 readlink:89:-
readlinkat:267:78 getcwd:79:17 chdir:80:49 fchdir:81:50 getdents:78:- getdents64:217:61 mkdir:83:-
mkdirat:258:34 ftruncate:77:46 fsync:74:82 fdatasync:75:83 flock:73:32
umask:95:166 statfs:137:43 fstatfs:138:44 copy_file_range:326:285 sendfile:40:71 fadvise64:221:223
dup:32:23 dup2:33:- dup3:292:24 pipe:22:- pipe2:293:59
# waiting
eventfd2:290:19 poll:7:- ppoll:271:73 select:23:- pselect6:270:72 epoll_create1:291:20 epoll_ctl:233:21
epoll_wait:232:- epoll_pwait:281:22
# memory
mmap:9:222 munmap:11:215 mprotect:10:226 mremap:25:216 madvise:28:233 brk:12:214 membarrier:324:283
mincore:27:232
# threads and who we are
futex:202:98 futex_waitv:449:449 set_robust_list:273:99 get_robust_list:274:100 rseq:334:293
set_tid_address:218:96 arch_prctl:158:- gettid:186:178 getpid:39:172 getppid:110:173 getpgid:121:155
getpgrp:111:- getsid:124:156 getuid:102:174 geteuid:107:175 getgid:104:176 getegid:108:177
getresuid:118:148 getresgid:120:150 getgroups:115:158 getcpu:309:168
# signals and time
rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139 rt_sigpending:127:136
rt_sigtimedwait:128:137 rt_sigsuspend:130:133 sigaltstack:131:132 pause:34:- alarm:37:- setitimer:38:103
getitimer:36:102 restart_syscall:219:128 nanosleep:35:101 clock_nanosleep:230:115 clock_gettime:228:113
clock_getres:229:114 gettimeofday:96:169 time:201:- times:100:153 getrusage:98:165 getrlimit:97:163
sched_yield:24:124 sched_getaffinity:204:123 sched_getparam:143:121 sched_getscheduler:145:120
sched_get_priority_max:146:125 sched_get_priority_min:147:126 sysinfo:99:179 uname:63:160
getrandom:318:278 timer_create:222:107 timer_settime:223:110 timer_gettime:224:108 timer_delete:226:111
timerfd_create:283:85 timerfd_settime:286:86 timerfd_gettime:287:87
# the end
wait4:61:260 waitid:247:95 exit:60:93 exit_group:231:94
"""

# Let through for some values of one argument.
_FCNTL_COMMANDS = (*range(8), 36, 37, 38, 1030, 1031, 1032)  # duplicates, flags and locks; no owners
_IOCTL_COMMANDS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # is it a terminal, how much waits, flags
_PRCTL_OPTIONS = (15, 16)  # a thread's name
_CLONE_THREAD = 0x10000
_TMPFILE = 0x400000  # of open: a file without a name, which nobody would find

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
MACHINES = tuple(_AUDIT_ARCH)
# From here on numbers are the same everywhere, and "no such call" is what an older kernel would say.
_FIRST_SHARED = 424

_LOAD, _EQUAL, _GREATER, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_OFFSET, _ARCH_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16

_Instruction = tuple[int, int, int, int]  # code, jumps if true and if false, operand


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def supported() -> bool:
    """Whether this machine's architecture is known, and its kernel has filters."""
    if sys.platform != "linux" or os.uname().machine not in MACHINES:
        return False
    try:
        linux.prctl(linux.PR_SET_SECCOMP, 2)  # without a filter: a bad address where there are filters
    except OSError as error:
        return error.errno == errno.EFAULT
    return False


def install() -> None:
    """Filter this process's system calls from now on, and those of its threads.

    No new processes, programs, sockets, mounts or traces, and signals to itself only.

    Raises:
      OSError: the kernel refused; `PR_SET_NO_NEW_PRIVS` has to be set before.
    """
    machine = os.uname().machine
    code = b"".join(struct.pack("=HBBI", *each) for each in _filter(machine, os.getpid()))
    program = _Program(len(code) // 8, code)
    linux.syscall(_SECCOMP[machine], ctypes.c_uint(1), ctypes.c_uint(0), ctypes.byref(program))


def _filter(machine: str, pid: int) -> list[_Instruction]:
    """The filter's instructions, for a process that calls itself `pid`."""
    code = [
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
    ]
    for first, last in _ranges(_numbers(machine)):
        code += [
            (_GREATER_EQUAL, 0, 2, first),
            (_GREATER, 1, 0, last),
            (_RETURN, 0, 0, _ALLOW),
        ]
    for number, argument, test, values, verdicts in _conditions(machine, pid):
        checks = [(_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8 * argument)]
        for value in values:
            checks += [(test, 0, 1, value), (_RETURN, 0, 0, verdicts[0])]
        checks.append((_RETURN, 0, 0, verdicts[1]))
        code += [(_EQUAL, 0, len(checks), number), *checks]
    return [
        *code,
        (_GREATER_EQUAL, 0, 1, _FIRST_SHARED),
        (_RETURN, 0, 0, _FAIL | errno.ENOSYS),
        (_RETURN, 0, 0, _FAIL | errno.EPERM),
    ]


def _conditions(machine: str, pid: int) -> list[tuple[int, int, int, tuple[int, ...], tuple[int, int]]]:
    """Calls that go by an argument: number, argument, test, values, verdicts on those and on others."""
    which = 1 if machine == "aarch64" else 0
    only, never = (_ALLOW, _FAIL | errno.EPERM), (_FAIL | errno.EPERM, _ALLOW)
    conditions = [
        ((56, 220)[which], 0, _ANY_BIT, (_CLONE_THREAD,), only),  # clone
        ((62, 129)[which], 0, _EQUAL, (pid,), only),  # kill
        ((234, 131)[which], 0, _EQUAL, (pid,), only),  # tgkill
        ((72, 25)[which], 1, _EQUAL, _FCNTL_COMMANDS, only),  # fcntl
        ((16, 29)[which], 1, _EQUAL, _IOCTL_COMMANDS, only),  # ioctl
        ((157, 167)[which], 0, _EQUAL, _PRCTL_OPTIONS, only),  # prctl
        ((302, 261)[which], 0, _EQUAL, (0,), only),  # prlimit64, of itself
        ((257, 56)[which], 2, _ANY_BIT, (_TMPFILE,), never),  # openat
    ]
    if machine == "x86_64":
        conditions.append((2, 1, _ANY_BIT, (_TMPFILE,), never))  # open
    return conditions


def _numbers(machine: str) -> list[int]:
    which = 2 if machine == "aarch64" else 1
    lines = [line for line in _ALLOWED.splitlines() if not line.startswith("#")]
    fields = [entry.split(":")[which] for line in lines for entry in line.split()]
    return sorted(int(field) for field in fields if field != "-")


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Sorted numbers as first and last of each run."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


_SECCOMP = {"x86_64": 317, "aarch64": 277}  # the system call's number
