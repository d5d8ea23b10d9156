"""What the filter of system calls says of each call, as an interpreter of BPF runs it."""

from __future__ import annotations

import re
import struct
from errno import EACCES, EAFNOSUPPORT, ENOSYS, EPERM
from pathlib import Path

import pytest

from manta.node.isolation import seccomp
from manta.node.isolation.syscalls import AARCH64, DENIED, LAST, SHARED_IPC, X86_64

ALLOWED = 0x7FFF0000
MACHINES = {"x86_64": (0xC000003E, X86_64), "aarch64": (0xC00000B7, AARCH64)}
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def outcome(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """What the program returns: the errno, or 0 where the call is allowed."""
    six = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, audit, 0, *six)
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = at = 0
    while True:
        operation, true, false, k = code[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif operation == 0x06:
            assert k == ALLOWED or k >> 16 == 5, hex(k)
            return 0 if k == ALLOWED else k & 0xFFFF
        else:
            holds = {
                0x15: accumulator == k,
                0x25: accumulator > k,
                0x45: bool(accumulator & k),
            }[operation]
            at += true if holds else false


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_each_call_of_the_list_is_refused_and_no_other(machine: str) -> None:
    audit, numbers = MACHINES[machine]
    program = seccomp.program(machine)
    refused = {
        numbers[call]: group.errno
        for group in (*DENIED, SHARED_IPC)
        for call in group.calls
        if call in numbers
    }
    by_argument = {"clone", "ioctl", "personality", "socket", "socketpair"}
    by_argument |= {"chmod", "fchmod", "fchmodat", "fchmodat2"}
    looked_at = {numbers[call] for call in by_argument if call in numbers}
    for number in range(LAST + 1):
        if number not in looked_at:
            assert outcome(program, audit, number) == refused.get(number, 0), number


def test_a_call_that_the_list_does_not_know_is_one_that_the_kernel_does_not_have(
    machine: str,
) -> None:
    audit, _ = MACHINES[machine]
    for number in (LAST + 1, 0xFFFFFFFF):
        assert outcome(seccomp.program(machine), audit, number) == ENOSYS


def test_x32_and_32_bit_calls_are_refused() -> None:
    program = seccomp.program("x86_64")
    assert outcome(program, 0xC000003E, 0x40000000 | 39) == ENOSYS  # getpid of x32
    assert outcome(program, 0x40000003, 20) == ENOSYS  # getpid of i386


@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("clone", (0x1200011,), 0),  # fork, as glibc does it
        ("clone", (0x3D0F00,), 0),  # a thread
        ("clone", (0x10000000,), EPERM),  # with a user namespace
        ("clone", (0x40000011,), EPERM),  # with a network namespace
        ("ioctl", (0, 0x5401), 0),  # TCGETS: is it a terminal?
        ("ioctl", (0, 0x5412), EPERM),  # TIOCSTI
        ("ioctl", (0, 0x7_0000_5412), EPERM),  # of which the kernel takes the low half
        ("ioctl", (0, 0x541C), EPERM),  # TIOCLINUX
        ("personality", (0xFFFFFFFF,), 0),  # which is it?
        ("personality", (0x0040000,), EPERM),  # addresses that are not random
        ("socket", (1, 1), 0),  # AF_UNIX
        ("socket", (2, 1), EACCES),  # AF_INET
        ("socket", (10, 2), EACCES),  # AF_INET6
        ("socket", (16, 3), EAFNOSUPPORT),  # AF_NETLINK
        ("socket", (40, 1), EAFNOSUPPORT),  # AF_VSOCK
        ("socket", (0x1_0000_0002, 1), EACCES),
        ("socketpair", (1, 1), 0),
        ("socketpair", (2, 1), EAFNOSUPPORT),
        ("fchmod", (3, 0o2755), 0),
        ("fchmod", (3, 0o4755), EPERM),
        ("fchmodat", (-100 % 2**64, 0, 0o4755), EPERM),
        ("fchmodat2", (-100 % 2**64, 0, 0o644), 0),
    ],
)
def test_calls_that_are_told_by_their_arguments(
    machine: str, call: str, arguments: tuple[int, ...], expected: int
) -> None:
    audit, numbers = MACHINES[machine]
    assert outcome(seccomp.program(machine), audit, numbers[call], *arguments) == expected


def test_sockets_for_the_internet_where_something_else_says_where_they_lead(machine: str) -> None:
    audit, numbers = MACHINES[machine]
    program = seccomp.program(machine, internet=True)
    said = [outcome(program, audit, numbers["socket"], family) for family in (1, 2, 10, 16)]
    assert said == [0, 0, 0, EAFNOSUPPORT]


def test_with_an_ipc_namespace_of_its_own_a_task_has_its_calls(machine: str) -> None:
    audit, numbers = MACHINES[machine]
    program = seccomp.program(machine, shares_ipc=False)
    assert outcome(program, audit, numbers["shmget"]) == 0
    assert outcome(program, audit, numbers["keyctl"]) == EPERM


def test_of_another_architecture_nothing_is_known() -> None:
    with pytest.raises(LookupError, match=r"System calls of riscv64 are not known .* x86_64 and"):
        seccomp.program("riscv64")


def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not there: apt-get install linux-libc-dev")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    theirs = {name: int(number) for name, number in found}
    _, ours = MACHINES[machine]
    compared = {name: number for name, number in ours.items() if name in theirs}
    assert len(compared) > len(ours) - 5  # the headers may be older
    assert compared == {name: theirs[name] for name in compared}
    every = {call for group in (*DENIED, SHARED_IPC) for call in group.calls}
    missing = {name for name in every & set(theirs) if name not in ours}
    assert missing == set()
