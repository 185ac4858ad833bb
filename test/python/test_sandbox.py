"""What a confined process cannot ask the kernel for."""

from __future__ import annotations

import errno
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", [101, 425, (1 << 30) + 39])
def test_system_calls_that_no_kernel_needs_are_refused_under_each_of_their_numbers(number: int) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the numbers are those of x86-64")
    script = (
        "import ctypes, sandbox\n"
        "sandbox.prctl(sandbox.PR_SET_NO_NEW_PRIVS, 1)\n"
        "if sandbox.seccomp():\n"
        f"    print(sandbox.libc.syscall(ctypes.c_long({number}), 0, 0), ctypes.get_errno())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT / "bench", capture_output=True, text=True)
    assert done.stdout.strip() == f"-1 {errno.EPERM}", done.stderr


def test_no_namespace_is_made_but_threads_and_processes_are() -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the numbers are those of x86-64")
    script = (
        "import ctypes, os, sandbox, subprocess, threading\n"
        "def clone(flags):\n"
        "    made = sandbox.libc.syscall(56, flags | 17, 0, 0, 0, 0)\n"
        "    os._exit(0) if made == 0 else None\n"
        "    return ctypes.get_errno() if made < 0 else 0\n"
        "sandbox.prctl(sandbox.PR_SET_NO_NEW_PRIVS, 1)\n"
        "if sandbox.seccomp():\n"
        "    threads = [threading.Thread(target=print, args=('thread',))]\n"
        "    [t.start() or t.join() for t in threads]\n"
        "    print(subprocess.run(['echo', 'process'], capture_output=True, text=True).stdout.strip())\n"
        "    print(clone(0x10000000 | 0x40000000), clone(0x20000000), clone(0), flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT / "bench", capture_output=True, text=True)
    assert done.stdout.split() == ["thread", "process", str(errno.EPERM), str(errno.EPERM), "0"], done.stderr
