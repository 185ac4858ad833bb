"""Forks candidates from a process that has torch imported and no device open: 20 ms instead of 2 s for each.

Started by the judge as `python bench/zygote.py FD`, never by hand. Each request becomes a keeper (trusted, holds the
namespaces, relays signals, keeps the tail of the output, reaps) and below it the candidate itself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
from typing import Any

import candidate
import descendants
import sandbox
import wire
from bounds import LOOK_EVERY_S, Bounds
from sweeper import Sweeper

TAIL_BYTES = 8192
REQUEST_FDS = 3  # control socket, status socket, arena (or /dev/null)


def main() -> None:
    listening = socket.socket(fileno=int(sys.argv[1]))
    sandbox.die_with_parent()
    if "--triton" in sys.argv:
        _prepare_triton()
    gc.collect()
    gc.freeze()  # so that a child's collector does not copy every page it inherited
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers answer through their sockets; nobody waits for them here
    wire.send(listening, {"ready": True})
    while True:
        listening.setblocking(True)
        try:
            request, fds = wire.recv_with_fds(listening, REQUEST_FDS)
        except wire.Closed:
            return
        if os.fork() == 0:
            listening.close()
            try:
                keep(request, *fds)
            finally:
                os._exit(70)
        for fd in fds:
            os.close(fd)


def _prepare_triton() -> None:
    """What Triton does once in each process, whatever the kernel: it reads its own 400 MB library for the keys of its
    compile cache, and imports at the first launch what few kernels need. Children inherit it.
    """
    for module, name in (
        ("triton.runtime.cache", "triton_key"),
        ("triton.compiler.compiler", "triton_key"),  # its place before Triton 3.5
        ("triton.experimental.gluon", None),
    ):
        with contextlib.suppress(Exception):  # then each child does it for itself
            found = importlib.import_module(module)
            if name:
                getattr(found, name)()


def keep(request: dict[str, Any], control_fd: int, status_fd: int, arena_fd: int) -> None:
    os.setsid()
    sandbox.die_with_parent()
    sandbox.adopt_orphans()
    output, output_end = os.pipe()
    level = request["sandbox"]
    namespaces = [] if level == "none" else sandbox.unshare_namespaces(only_net=level == "light")
    sandbox.die_with_parent()  # changing the user namespace forgets it
    wake, wake_end = os.pipe()
    os.set_blocking(wake_end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_end)
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _become_candidate(request, namespaces, control_fd, arena_fd, output_end)
    for fd in (control_fd, arena_fd, output_end):
        os.close(fd)
    bounds = Bounds(request["writable"], lambda: len(descendants.below(os.getpid())))
    Keeper(child, socket.socket(fileno=status_fd), output, wake, bounds, "pid" in namespaces).run()
    os._exit(0)


def _become_candidate(
    request: dict[str, Any], namespaces: list[str], control_fd: int, arena_fd: int, output: int
) -> None:
    status = 1
    try:
        sandbox.first_to_go()
        os.setsid()
        sandbox.die_with_parent()
        null = os.open(os.devnull, os.O_RDWR)
        high = [os.dup2(fd, 200 + at) for at, fd in enumerate((control_fd, arena_fd))]  # above everything we close
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.closerange(3, 200)
        os.closerange(202, 4096)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["scratch"])
        sys.argv = ["candidate"]
        confined = _confine(request, namespaces)
        candidate.serve(socket.socket(fileno=high[0]), high[1], request, confined)
        status = 0
    except BaseException as error:
        os.write(2, f"candidate process: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


def _confine(request: dict[str, Any], namespaces: list[str]) -> str:
    mounts = sandbox.private_mounts() if "pid" in namespaces else []
    sandbox.limit_resources(request["address_space"], request["cpu_seconds"])
    if request["sandbox"] == "none":
        return "none: own process group, resource limits, clean environment"
    if request["sandbox"] == "full":
        sandbox.drop_capabilities()
    sandbox.prctl(
        sandbox.PR_SET_DUMPABLE, 1
    )  # else /proc/self belongs to root, and a program's own maps are closed to it
    sandbox.prctl(sandbox.PR_SET_NO_NEW_PRIVS, 1)
    abi = sandbox.landlock(request["writable"], request["readable"])
    return sandbox.describe(namespaces, mounts, abi, sandbox.seccomp())


class Keeper:
    """Parent of one candidate: as its parent it can signal and reap it without ever hitting a recycled pid."""

    def __init__(self, child: int, status: socket.socket, output: int, wake: int, bounds: Bounds, apart: bool) -> None:
        self.child, self.status, self.output, self.wake, self.bounds = child, status, output, wake, bounds
        self.apart = apart  # the child is the first process of a PID namespace
        self.excess = ""
        self.tail = b""

    def run(self) -> None:
        wire.send(self.status, {"pid": self.child})
        self.sweeper = Sweeper() if self.apart else None
        sources: list[Any] = [self.status, self.output, self.wake]
        while True:
            ready, _, _ = select.select(sources, [], [], LOOK_EVERY_S)
            if not ready and not self.excess:
                self.excess = self.bounds.broken()
                if self.excess:
                    self._signal(signal.SIGKILL)
            if self.output in ready and not self._drain():
                sources.remove(self.output)
            if self.wake in ready:
                os.read(self.wake, 4096)
                ended = self._reap()
                if ended is not None:
                    return self._finish(ended)
            if self.status in ready and not self._obey():
                self._signal(signal.SIGKILL)
                descendants.end(reap=self._reap)
                return None

    def _obey(self) -> bool:
        try:
            order = wire.recv(self.status, 5)["order"]
            numbers = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "continue": signal.SIGCONT}
            self._signal(numbers[order])
            if order == "stop" and not self._alone():  # helpers would run on beside whoever is timed next
                self.excess = "it left processes behind that cannot be ended, or ended the judge's own"
                self._signal(signal.SIGKILL)
            elif order != "kill":
                wire.send(self.status, {"done": order})
            return True
        except (wire.Closed, wire.TimedOut, wire.BadMessage):
            return False

    def _alone(self) -> bool:
        """Ends whatever the stopped child has started."""
        if self.sweeper and not self.sweeper.sweep():
            return False
        return descendants.end(spare={self.child, self.sweeper.pid if self.sweeper else 0})

    def _signal(self, number: int) -> None:
        for target in (-self.child, self.child):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(target, number)

    def _drain(self) -> bool:
        data = os.read(self.output, 65536)
        self.tail = (self.tail + data)[-TAIL_BYTES:]
        return bool(data)

    def _reap(self) -> dict[str, Any] | None:
        ended = None
        while True:
            try:
                pid, status, _usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            if pid == self.child:
                ended = {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {"code": os.WEXITSTATUS(status)}

    def _finish(self, ended: dict[str, Any]) -> None:
        descendants.end(reap=self._reap)
        os.set_blocking(self.output, False)
        with contextlib.suppress(OSError):
            while self._drain():
                pass
        with contextlib.suppress(wire.Closed, wire.TimedOut):
            words = self.excess or self.tail.decode("utf-8", "replace")
            wire.send(self.status, {"ended": ended, "tail": words}, timeout=2)


if __name__ == "__main__":
    main()
