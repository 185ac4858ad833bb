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
