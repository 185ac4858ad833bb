"""The judge's hold on one child process: orders and answers with deadlines, and an end that takes its tree along."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import torch
import wire


class WorkerFailed(Exception):
    """A child crashed, hung or talked nonsense: data for the verdict, not an error of the judge."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail  # kind: 'crash' or 'timeout'


class JudgeError(Exception):
    """The judge itself cannot work."""


class Worker:
    """One child. `ask` sends an order and waits for the answer; whatever goes wrong ends in WorkerFailed."""

    def __init__(self, control: socket.socket, status: socket.socket, scratch: Path) -> None:
        self.control, self.status, self.scratch = control, status, scratch
        self.pid = 0
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
        try:
            wire.send(self.control, order, timeout=timeout)
        except (wire.Closed, wire.TimedOut) as error:
            raise self._failure(error, timeout) from error

    def answer(self, timeout: float) -> dict[str, Any]:
        answer = self._receive(timeout)
        if "error" in answer:
            text = str(answer["error"])
            raise WorkerFailed("crash", f"out of memory: {text}" if answer.get("oom") else text)
        return answer

    def stop(self) -> None:
        """SIGSTOP: an idle contender must not share the processor with the one being timed."""
        self._order("stop")

    def resume(self) -> None:
        self._order("continue")

    def sweep(self) -> int:
        """Ends helper processes that the candidate started; none is needed once it is warm."""
        return int(self._order("sweep").get("swept", 0))

    def kill(self) -> None:
        with contextlib.suppress(wire.Closed, wire.TimedOut, wire.BadMessage):
            wire.send(self.status, {"order": "kill"}, timeout=2)
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

    def _receive(self, timeout: float) -> dict[str, Any]:
        try:
            return wire.recv(self.control, timeout)
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


def _obituary(news: dict[str, Any]) -> str:
    ended, tail = news["ended"], str(news.get("tail", "")).strip()[-1500:]
    if "signal" in ended:
        try:
            name = signal.Signals(ended["signal"]).name
        except ValueError:
            name = f"signal {ended['signal']}"
        words = f"the candidate's process was ended by {name}"
    else:
        words = f"the candidate's process exited with code {ended['code']} instead of answering"
    return f"{words}\n{tail}" if tail else words
