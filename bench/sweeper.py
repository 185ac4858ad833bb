"""Ends all that a candidate started, in one step: a process beside it in its PID namespace, which kill(-1) spares.

Who forks anew faster than /proc can be read survives being looked for. The kernel lets no fork slip past kill(-1): it
reaches everyone in the caller's namespace but the caller and the first process, which is the candidate itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket

import sandbox

ANSWER_S = 1.0


class Sweeper:
    def __init__(self) -> None:
        """Forked after the candidate, by the parent of both, which is outside their namespace."""
        self.socket, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _serve(theirs.fileno())
            finally:
                os._exit(1)
        theirs.close()

    def sweep(self) -> bool:
        """Whether it was done; False where somebody in there has stopped or ended the sweeper."""
        with contextlib.suppress(OSError):
            self.socket.send(b"?")
            ready, _, _ = select.select([self.socket], [], [], ANSWER_S)
            return bool(ready and self.socket.recv(1))
        return False


def _serve(fd: int) -> None:
    sandbox.die_with_parent()
    fd = os.dup2(fd, 3)
    os.closerange(4, 4096)  # the judge must see its connections close with the candidate
    while os.read(fd, 1):
        if os.getppid() != 0:  # our parent is in sight: this is no namespace of the candidate's own
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody else is there
            os.kill(-1, signal.SIGKILL)
        os.write(fd, b".")
