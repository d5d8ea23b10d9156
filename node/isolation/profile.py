"""The filter of system calls as container engines take it: a profile in Docker's JSON.

It is made of the same lists as the program in `seccomp`. libseccomp, which compiles it, knows no
numbers: what this list does not name is refused as if the kernel did not have it. So the calls
that are allowed are named here, all of them up to `syscalls.LAST`; names that an engine's library
does not know are none that it allows. Code by another table of numbers is killed.

The format is that of `seccomp.json` in the engine's documentation; libseccomp compares whole
64-bit arguments, of which the kernel takes the low half: so all that is compared is masked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from errno import EAFNOSUPPORT, ENOSYS, EPERM
from typing import Any, Final

from manta.node.isolation import seccomp
from manta.node.isolation.syscalls import DENIED

_ALLOWED = """
accept accept4 access alarm arch_prctl bind brk cachestat capget capset chdir chown clock_getres
clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3
epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve
execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchown
fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync
ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat get_mempolicy
get_robust_list getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer
getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit
getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch
inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup
io_submit ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek
lsetxattr lsm_get_self_attr lsm_list_modules lsm_set_self_attr lstat madvise map_shadow_stack mbind
membarrier memfd_create mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget
msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat open openat openat2 pause
pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64
preadv preadv2 prlimit64 process_mrelease pselect6 pwrite64 pwritev pwritev2 read readahead readlink
readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr rename renameat renameat2
restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl
semget semop semtimedop sendfile sendmmsg sendmsg sendto set_mempolicy set_mempolicy_home_node
set_robust_list set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority
setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr shmat shmctl shmdt
shmget shutdown sigaltstack signalfd signalfd4 splice stat statfs statx symlink symlinkat sync
sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate
umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev
"""
ALLOWED: Final = tuple(_ALLOWED.split())
"""Whatever their arguments are."""

_BITS = 32
_WHOLE = (1 << _BITS) - 1
_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_ALLOW, _ERRNO, _MASKED = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_CMP_MASKED_EQ"


def profile(machine: str | None = None, *, of_gvisor: bool = False) -> str:
    """For tasks with network and IPC namespaces of their own, on machines of that architecture,
    this one's by default. Raises LookupError where there is no list of calls for it.

    gVisor's kernel answers EPERM whatever a profile says. Told that of clone3, libc starts no
    thread, as it calls clone only where there is no clone3: so that is left to this kernel, which
    is the task's own.
    """
    machine = os.uname().machine if machine is None else machine
    if machine not in _ARCHITECTURES:
        raise LookupError(
            f"System calls of {machine} are not known here, so a task can't be kept from any: "
            f"there are filters for {' and '.join(_ARCHITECTURES)}."
        )
    left = ("clone3",) if of_gvisor else ()
    rules = [_rule((*ALLOWED, *left), _ALLOW)]
    rules += [_rule(group.calls, _ERRNO, group.errno) for group in DENIED if group.calls != left]
    rules += _each(("clone",), 0, [(seccomp.NAMESPACES, 0)], _ALLOW)
    bits = [(1 << bit, 1 << bit) for bit in range(_BITS) if seccomp.NAMESPACES >> bit & 1]
    rules += _each(("clone",), 0, bits, _ERRNO, EPERM)
    rules += _each(("ioctl",), 1, others(seccomp.TERMINAL_INPUT), _ALLOW)
    rules += _each(("ioctl",), 1, _exactly(seccomp.TERMINAL_INPUT), _ERRNO, EPERM)
    rules += _only("personality", seccomp.PERSONALITIES, EPERM)
    for calls, argument in ((("chmod", "fchmod"), 1), (("fchmodat", "fchmodat2"), 2)):
        bit = seccomp.SET_USER_ID
        rules += _each(calls, argument, [(bit, 0)], _ALLOW)
        rules += _each(calls, argument, [(bit, bit)], _ERRNO, EPERM)
    rules += _only("socket", seccomp.LOCAL + seccomp.INTERNET, EAFNOSUPPORT)
    rules += _only("socketpair", seccomp.LOCAL, EAFNOSUPPORT)
    return json.dumps(
        {
            "defaultAction": _ERRNO,
            "defaultErrnoRet": ENOSYS,
            "archMap": [{"architecture": _ARCHITECTURES[machine], "subArchitectures": []}],
            "syscalls": rules,
        }
    )


_Masked = tuple[int, int]
"""A mask, and what an argument is once it is applied."""


def others(values: tuple[int, ...]) -> list[_Masked]:
    """The fewest comparisons of which one holds for whatever is none of the values, and no other.

    Those of one rule must all hold, and one argument can't be compared twice in it; of several
    rules, one. So all other values are given by the bits that they begin with.
    """

    def split(bit: int, high: int) -> Iterator[_Masked]:
        mask = _WHOLE >> bit << bit
        if all(value & mask != high for value in values):
            yield mask, high
        elif bit:
            yield from split(bit - 1, high)
            yield from split(bit - 1, high | 1 << bit - 1)

    return list(split(_BITS, 0))


def _exactly(values: tuple[int, ...]) -> list[_Masked]:
    return [(_WHOLE, value) for value in values]


def _only(call: str, values: tuple[int, ...], errno: int) -> list[dict[str, Any]]:
    """A call with one of these first arguments."""
    allowed = _each((call,), 0, _exactly(values), _ALLOW)
    return allowed + _each((call,), 0, others(values), _ERRNO, errno)


def _each(
    calls: tuple[str, ...], argument: int, compared: list[_Masked], action: str, errno: int = 0
) -> list[dict[str, Any]]:
    """A rule for each comparison of an argument."""
    rules = []
    for mask, value in compared:
        by = {"index": argument, "value": mask, "valueTwo": value, "op": _MASKED}
        rules.append(_rule(calls, action, errno) | {"args": [by]})
    return rules


def _rule(calls: tuple[str, ...], action: str, errno: int = 0) -> dict[str, Any]:
    refused = {"errnoRet": errno} if errno else {}
    return {"names": list(calls), "action": action, **refused}
