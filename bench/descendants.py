"""What a process leaves behind: found through /proc, and ended. Whoever asks has adopted the orphans below it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Container

LOOKS, LOOK_S = 100, 0.002


def below(root: int) -> list[int]:
    """Living processes that descend from `root`."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents[int(entry)] = int(fields[1])
    found, frontier = [], {root}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
        found += sorted(frontier)
    return found


def end(spare: Container[int] = (), reap: Callable[[], object] = lambda: None) -> bool:
    """Kills what is below us but `spare`, repeatedly: a fork may slip past the listing. Whether nothing is left."""
    for _ in range(LOOKS):
        found = [pid for pid in below(os.getpid()) if pid not in spare]
        if not found:
            return True
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        reap()
        time.sleep(LOOK_S)
    return False
