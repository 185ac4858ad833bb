"""Runs a program and ends whatever it leaves behind, also when told to stop (SIGTERM) or when its parent is gone.

python bench/leave_nothing.py PROGRAM ARGUMENT...
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import descendants
import sandbox


def main() -> None:
    sandbox.adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sandbox.prctl(sandbox.PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        sys.exit(subprocess.call(sys.argv[1:]))
    finally:
        descendants.end(reap=_reap)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    main()
