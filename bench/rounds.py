"""A timing request from start to end: fresh processes for every side and round, made ready, visited, and ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import disturbance
import torch
import workers
from clock import TimingFailed
from correctness import Limits
from counted import counted_us
from timing import Stopwatch
from worker import Worker, WorkerFailed, end, load_order

EMPTY = {"name": "empty", "kind": "builtin", "which": "empty"}
READY_AT_ONCE = 4  # rounds whose processes are made ready side by side on a GPU
CONTEXT_BYTES = 1 << 30  # device memory that a process takes before its first tensor
OUTPUTS = 8  # of a side's largest call that it may hold at once: kept ones, intermediates of plain PyTorch, a graph's
JUDGE_SHARE = 0.5  # of the free memory, left for the double-precision reference

Lot = dict[str, Worker]  # one process per side: what a round needs
Side = tuple[dict[str, Any], bytes]  # as it was asked for, and the bytes of its file


@dataclass
class Rounds:
    request: dict[str, Any]
    pool: workers.Pool
    watch: Stopwatch
    limits: Limits
    gpu: bool
    settle: Callable[[], None]  # returns when nobody is left from before

    def __post_init__(self) -> None:
        # read once: every process of this request runs the same bytes
        self.sides = {side["name"]: (side, _source(side)) for side in self.request["sides"]}
        self.done: list[dict[str, Any]] = []

    def run(self) -> None:
        left = int(self.request["rounds"])
        while left > 0:
            together = min(left, self._at_once()) if self.gpu else 1
            self._some(together, first=not self.done)
            left -= together

    def results(self) -> list[dict[str, Any]]:
        """The rounds that came to their end, with the microseconds of each visit."""
        counted = counted_us(self.watch.visits, self.gpu)
        return [{**one, "us": us} for one, us in zip(self.done, counted, strict=True)]

    def _at_once(self) -> int:
        """Rounds whose processes fit into the device's memory together: at least one, which may then run out of it."""
        free, _ = torch.cuda.mem_get_info()
        a_process = CONTEXT_BYTES + OUTPUTS * max(timed.bytes_a_call for timed in self.watch.cases)
        return max(1, min(READY_AT_ONCE, int((1 - JUDGE_SHARE) * free) // (len(self.sides) * a_process)))

    def _some(self, count: int, first: bool) -> None:
        lots: list[Lot] = [{} for _ in range(count)]
        try:
            self._make_ready(lots, self.sides)
            self.settle()
            if first:
                self.watch.calibrate(lots[0], self._start_empty)
            for lot in lots:
                result = self.watch.round(lot, first=not self.done)
                if self.gpu:
                    result["disturbed"] = disturbance.gpu_verdict(disturbance.gpu_state(), 1 + sum(map(len, lots)))
                self.done.append(result)
                end(lot.values())
                lot.clear()
        finally:
            end(worker for lot in lots for worker in lot.values())

    def _start_empty(self) -> Worker:
        lot: Lot = {}
        try:
            self._make_ready([lot], {EMPTY["name"]: (EMPTY, b"")})
        except BaseException:
            end(lot.values())
            raise
        return lot[EMPTY["name"]]

    def _make_ready(self, lots: list[Lot], sides: dict[str, Side]) -> None:
        """On a GPU all side by side: a compile in one runs beside the compiles in others. On a CPU one by one."""
        everyone: list[tuple[str, Worker, list[dict[str, Any]]]] = []
        for lot in lots:
            for name, (side, data) in sides.items():
                trusted = side["kind"] == "builtin"
                key = f"builtin-{self.request['op']}-{side['which']}" if trusted else workers.sha256(data)
                worker = lot[name] = self.pool.spawn(self.watch.arena, key, trusted=trusted)
                everyone.append((name, worker, [self._load_order(worker, side, data), *self.watch.warm_up()]))
        for group in [everyone] if self.gpu else [[one] for one in everyone]:
            self._obey(group)

    def _obey(self, group: list[tuple[str, Worker, list[dict[str, Any]]]]) -> None:
        for name, worker, _ in group:
            _guard(name, worker.await_ready)
        for step in range(len(group[0][2])):
            for name, worker, orders in group:
                _guard(name, lambda w=worker, o=orders[step]: w.tell(o, self.limits.build))
            for name, worker, _ in group:
                problem = _guard(name, lambda w=worker: w.answer(self.limits.build)).get("problem")
                if problem:
                    raise TimingFailed(name, "crash" if step == 0 else "wrong", str(problem))
        for name, worker, _ in group:
            _guard(name, worker.stop)

    def _load_order(self, worker: Worker, side: dict[str, Any], data: bytes) -> dict[str, Any]:
        tf32 = self.watch.allow_tf32
        if side["kind"] == "file":
            return load_order(worker, data, tf32)
        which = {"builtin": side["which"], "op": self.request["op"], "op_file": self.request.get("op_file")}
        return {"do": "load", "allow_tf32": tf32, **which}


def _source(side: dict[str, Any]) -> bytes:
    return Path(side["path"]).read_bytes() if side["kind"] == "file" else b""


def _guard(side: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except WorkerFailed as error:
        raise TimingFailed(side, error.kind, error.detail) from error
