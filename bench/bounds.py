"""What a candidate may not have too much of, where limits of the system do not hold: root has no limit on processes.

Looked at a few times a second by the candidate's keeper. Two numbers that cost microseconds say whether to look closer.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence

LOOK_EVERY_S = 0.25
PROCESSES = 512
DISK_BYTES = 2 << 30


class Bounds:
    def __init__(self, folders: Sequence[str], processes: Callable[[], int]) -> None:
        """`processes` counts those of the candidate; `folders` are where it may write."""
        self.folders, self.processes = folders, processes
        self.tasks, self.free = _tasks(), _free(folders)

    def broken(self) -> str:
        """'' or what there is too much of."""
        if _tasks() - self.tasks > PROCESSES // 2 and self.processes() > PROCESSES:
            return f"it had more than {PROCESSES} processes at once"
        if self.free - _free(self.folders) > DISK_BYTES // 2 and _size(self.folders) > DISK_BYTES:
            return f"it wrote more than {DISK_BYTES >> 30} GiB to its scratch folder"
        return ""


def _tasks() -> int:
    """Threads of the whole machine."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/loadavg", encoding="ascii") as file:
        return int(file.read().split()[3].partition("/")[2])
    return 0


def _free(folders: Sequence[str]) -> int:
    """Somebody else may write as well: then the folders are measured, for nothing."""
    total = 0
    for folder in folders:
        with contextlib.suppress(OSError):
            found = os.statvfs(folder)
            total += found.f_bavail * found.f_frsize
    return total


def _size(folders: Sequence[str]) -> int:
    total = 0
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(root, name)).st_blocks * 512
    return total
