"""The judge's hold on one child process: orders and answers with deadlines, and an end that takes its tree along."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import wire

UNPRINTABLE = re.compile(r"[^\n\t\x20-\x7e\xa0-\u1fff\u2010-\u2027\u2030-\u205e\u2190-\uffef]")


class WorkerFailed(Exception):
    """A child crashed, hung or talked nonsense: data for the verdict, not an error of the judge."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail  # kind: 'crash' or 'timeout'


class JudgeError(Exception):
    """The judge itself cannot work."""


class Worker:
    """One child. `ask` sends an order and waits for the answer; whatever goes wrong ends in WorkerFailed."""

    def __init__(self, control: socket.socket, status: socket.socket, scratch: Path, trusted: bool = False) -> None:
        self.control, self.status, self.scratch = control, status, scratch
        self.trusted = trusted  # a baseline of ours: nobody else's code is in it
        self.pid, self.nonce = 0, ""
        self.sandbox = ""

    def await_keeper(self, timeout: float = 30.0) -> None:
        """Raises the errors of wire.py when the zygote died instead of forking."""
        self.pid = int(wire.recv(self.status, timeout)["pid"])

    def await_ready(self, timeout: float = 60.0) -> None:
        self.sandbox = str(self._receive(timeout).get("sandbox", ""))

    def ask(self, order: dict[str, Any], timeout: float) -> dict[str, Any]:
        self.tell(order, timeout)
        return self.answer(timeout)

    def tell(self, order: dict[str, Any], timeout: float) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # the judge's own inputs and poison must lie there before the candidate begins
        self.nonce = os.urandom(8).hex()  # an answer written before the order is none
        try:
            wire.send(self.control, {**order, "nonce": self.nonce}, timeout=timeout)
        except (wire.Closed, wire.TimedOut) as error:
            raise self._failure(error, timeout) from error

    def answer(self, timeout: float, spin_s: float = 0.0) -> dict[str, Any]:
        answer = self._receive(timeout, spin_s)
        if answer.get("nonce") != self.nonce:
            raise WorkerFailed("crash", "the candidate's process answered what it was not asked")
        if "error" in answer:
            text = str(answer["error"])
            raise WorkerFailed("crash", f"out of memory: {text}" if answer.get("oom") else text)
        return answer

    def freeze(self) -> None:
        """At once, and no longer than until `resume`: its keeper would need another 0.1 ms."""
        try:
            os.kill(self.pid, signal.SIGSTOP)
        except ProcessLookupError:
            raise WorkerFailed("crash", "the candidate's process is gone") from None

    def stop(self) -> None:
        """SIGSTOP: an idle contender shares neither processor nor GPU with the one being timed, its helpers end."""
        self._order("stop")

    def resume(self) -> None:
        self._order("continue")

    def doom(self) -> None:
        """Has it killed without waiting for its end."""
        with contextlib.suppress(wire.Closed, wire.TimedOut, wire.BadMessage):
            wire.send(self.status, {"order": "kill"}, timeout=2)

    def kill(self) -> None:
        self.doom()
        with contextlib.suppress(wire.Closed, wire.TimedOut, wire.BadMessage):
            while "ended" not in wire.recv(self.status, 5):
                pass
        self.control.close()
        self.status.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _order(self, name: str) -> dict[str, Any]:
        try:
            wire.send(self.status, {"order": name}, timeout=5)
            answer = wire.recv(self.status, 10)
        except (wire.Closed, wire.TimedOut, wire.BadMessage) as error:
            raise WorkerFailed("crash", f"the candidate's process is gone ({error})") from error
        if "ended" in answer:
            raise WorkerFailed("crash", _obituary(answer))
        return answer

    def _receive(self, timeout: float, spin_s: float = 0.0) -> dict[str, Any]:
        try:
            return {key: _plain(value) for key, value in wire.recv(self.control, timeout, spin_s).items()}
        except (wire.Closed, wire.TimedOut, wire.BadMessage) as error:
            raise self._failure(error, timeout) from error

    def _failure(self, error: Exception, timeout: float) -> WorkerFailed:
        if isinstance(error, wire.TimedOut):
            return WorkerFailed("timeout", f"no answer within {timeout:g} s; killed")
        if isinstance(error, wire.BadMessage):
            return WorkerFailed("crash", f"the candidate's process sent something that is not an answer: {error}")
        with contextlib.suppress(wire.Closed, wire.TimedOut, wire.BadMessage):
            while True:
                news = wire.recv(self.status, 2)
                if "ended" in news:
                    return WorkerFailed("crash", _obituary(news))
        return WorkerFailed("crash", "the candidate's process closed its connection")


def end(workers: Iterable[Worker]) -> None:
    """All at once: each takes a while to let go of its device."""
    some = list(workers)
    for worker in some:
        worker.doom()
    for worker in some:
        worker.kill()


def load_order(worker: Worker, data: bytes, allow_tf32: bool) -> dict[str, Any]:
    """Tells a process to import these bytes as kernel.py."""
    path = worker.scratch / "kernel.py"
    path.write_bytes(data)  # the very bytes that were hashed, where only this candidate sees them
    return {"do": "load", "allow_tf32": allow_tf32, "path": str(path)}


def _plain(value: Any) -> Any:
    """A candidate's words reach terminals and prompts: nothing that moves a cursor or hides a line."""
    return UNPRINTABLE.sub("?", value) if isinstance(value, str) else value


def _obituary(news: dict[str, Any]) -> str:
    ended, tail = news["ended"], _plain(str(news.get("tail", ""))).strip()[-1500:]
    if "signal" in ended:
        try:
            name = signal.Signals(ended["signal"]).name
        except ValueError:
            name = f"signal {ended['signal']}"
        words = f"the candidate's process was ended by {name}"
    else:
        words = f"the candidate's process exited with code {ended['code']} instead of answering"
    return f"{words}\n{tail}" if tail else words
