"""The filter of system calls in the kernel: each call of the list is made, in a child process."""

from __future__ import annotations

import json
import os

import pytest

from manta.node.isolation import seccomp
from manta.node.isolation.syscalls import DENIED, LAST, SHARED_IPC
from tests.support.confined import SECCOMP, run

NUMBERS = seccomp.ARCHITECTURES[os.uname().machine].numbers


def errnos(calls: dict[str, list[int]], how: str = "") -> dict[str, int]:
    """By name: the errno of each call, made in one process."""
    return json.loads(
        run(
            SECCOMP.format(how=how),
            f"""
            import ctypes, json
            libc = ctypes.CDLL(None, use_errno=True)
            libc.syscall.restype = ctypes.c_long
            found = {{}}
            for name, arguments in {calls!r}.items():
                ctypes.set_errno(0)
                result = libc.syscall(*map(ctypes.c_long, arguments))
                found[name] = ctypes.get_errno() if result == -1 else 0
            print(json.dumps(found))
            """,
        )
    )


def test_each_call_of_the_list_is_refused_as_it_says() -> None:
    """With arguments that no kernel takes: where a call got through, it would say EFAULT or so."""
    expected = {
        call: group.errno
        for group in (*DENIED, SHARED_IPC)
        for call in group.calls
        if call in NUMBERS
    }
    assert errnos({call: [NUMBERS[call], *[-1] * 6] for call in expected}) == expected


def test_what_is_told_by_arguments_is_refused() -> None:
    user_namespace, chmod = 0x10000000, 0o4755
    found = errnos(
        {
            "clone": [NUMBERS["clone"], user_namespace | 17, 0, 0, 0, 0],
            "ioctl": [NUMBERS["ioctl"], 0, 0x5412, 0],
            "personality": [NUMBERS["personality"], 0x40000],
            "internet": [NUMBERS["socket"], 2, 1, 0],
            "netlink": [NUMBERS["socket"], 16, 3, 0],
            "vsock": [NUMBERS["socket"], 40, 1, 0],
            "fchmod": [NUMBERS["fchmod"], 0, chmod],
            "newer": [LAST + 1, 0],
        }
    )
    assert found == {
        "clone": 1,
        "ioctl": 1,
        "personality": 1,
        "internet": 13,
        "netlink": 97,
        "vsock": 97,
        "fchmod": 1,
        "newer": 38,
    }


def test_options_open_what_they_say() -> None:
    shm = [NUMBERS["shmget"], 0, -1, 0]  # too large for anybody
    found = errnos({"internet": [NUMBERS["socket"], 2, 1, 0], "shmget": shm}, "internet=True")
    assert found == {"internet": 0, "shmget": 1}
    assert errnos({"shmget": shm}, "shares_ipc=False")["shmget"] not in (0, 1)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86_64 alone has other tables of calls")
def test_calls_by_another_table_are_refused() -> None:
    said = run(
        SECCOMP.format(how=""),
        """
        import ctypes, mmap
        libc = ctypes.CDLL(None, use_errno=True)
        x32 = libc.syscall(ctypes.c_long(0x40000000 | 39))
        # mov eax, 20; int 0x80; ret: getpid of i386
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(bytes.fromhex("b814000000cd80c3"))
        at = ctypes.addressof(ctypes.c_char.from_buffer(code))
        print(x32, ctypes.get_errno(), ctypes.CFUNCTYPE(ctypes.c_int)(at)())
        """,
    )
    assert said.split() == ["-1", "38", "-38"]


def test_what_a_process_starts_is_filtered_too() -> None:
    said = run(
        SECCOMP.format(how=""),
        """
        import subprocess, sys
        code = "import socket\\ntry: socket.socket()\\nexcept OSError as error: print(error.errno)"
        print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
        """,
    )
    assert said.split() == ["13"]


def test_capabilities_are_gone_and_stay_so_across_exec() -> None:
    said = run(
        "from manta.node.isolation import privileges\nprivileges.drop()\n",
        """
        import os, sys
        code = "for l in open('/proc/self/status'): l[:3] in ('Cap', 'NoN') and print(l.split()[1])"
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-c", code])
        """,
    )
    *sets, no_new_privileges = said.split()
    bounding = "0" * 16 if os.getuid() == 0 else sets[3]
    assert sets == ["0" * 16] * 3 + [bounding, "0" * 16]
    assert no_new_privileges == "1"
