"""The judge's clock: one batch of calls, from the order to the answer that proves it, less what the messages cost.

On a CPU the order holds the secret that says which inputs each call gets. On a GPU, where a launch from Python may take
longer than the kernel, the calls are recorded in a graph first; then all data is replaced, and a replay is timed.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
import windows
from arena import Arena
from correctness import Limits
from windows import TimedCase
from worker import Worker, WorkerFailed

BATCH_S = {True: 0.006, False: 0.025}  # seconds a batch should last, on a GPU and on a CPU
# After a pause the first tens of milliseconds are slower, by up to 2x on a virtual CPU: they are run and not counted.
LEAD_IN_S = {True: 0.015, False: 0.040}
MOST_CALLS = {True: 500, False: 20000}  # recording costs a launch from Python each
LEAST_SHARE = 0.01  # of what the clock saw, where a batch costs hardly more than an empty one


class TimingFailed(Exception):
    def __init__(self, side: str, kind: str, detail: str) -> None:
        super().__init__(f"{side}: {kind}: {detail}")
        self.side, self.kind, self.detail = side, kind, detail


Recorded = dict[str, Any]  # the order by which a batch was recorded


@dataclass(frozen=True)
class Batch:
    wall: float  # the judge's seconds, less what the same batch of empty calls takes
    own: float  # what the candidate's process says, less the same
    order: dict[str, Any]


class Clock:
    def __init__(self, block: Arena, cases: list[TimedCase], limits: Limits) -> None:
        self.arena, self.limits, self.gpu = block, limits, block.device.type == "cuda"
        self.slots = [timed.order["outputs"] for timed in cases]
        self.timeout = limits.call + 60 * BATCH_S[self.gpu]
        self.rng = random.SystemRandom()

    def order(self, timed: TimedCase, count: int, audit: bool = False, reads: bool = False) -> dict[str, Any]:
        told = {"name": timed.name, "count": count, "audit": audit, "reads": reads}
        return {"do": "batch", **told, "secret": os.urandom(12).hex()}

    def record(
        self, side: str, worker: Worker, timed: TimedCase, count: int, audit: bool = False, reads: bool = False
    ) -> Recorded | None:
        """None where calls are made one by one: on a CPU, and by a candidate that cannot be recorded."""
        if not self.gpu:
            return None
        order = {**self.order(timed, count, audit, reads), "do": "record"}
        try:
            answer = worker.ask(order, self.limits.build)
        except WorkerFailed as error:
            raise TimingFailed(side, error.kind, f"while being recorded: {error.detail}") from error
        return order if answer.get("recorded") is True else None

    def refresh(self, timed: TimedCase) -> None:
        """Replaces the data that recorded calls will read. Damage is left as it is, to be found."""
        if not self.arena.damage(self.slots):
            windows.refresh(timed, self.arena, self.rng)

    def fresh(
        self, side: str, worker: Worker, timed: TimedCase, count: int, audit: bool = False, reads: bool = False
    ) -> Batch:
        """One batch, from recording to proof."""
        recorded = self.record(side, worker, timed, count, audit, reads)
        return self.once(side, worker, timed, recorded or self.order(timed, count, audit, reads))

    def once(self, side: str, worker: Worker, timed: TimedCase, order: dict[str, Any], renew: bool = True) -> Batch:
        """The clock stops when the proof is here. `renew`: with data that is new to a recorded batch."""
        recorded, audit = order["do"] == "record", order["audit"]
        overhead, own_overhead = timed.audit_overhead_s if audit else timed.overhead_s
        if recorded and renew:
            self.refresh(timed)
        if self.gpu:
            torch.cuda.synchronize()  # the new data lies there before the clock starts
        try:
            began = time.monotonic_ns()
            worker.tell({"do": "replay", "name": timed.name} if recorded else order, self.timeout)
            answer = worker.answer(self.timeout)
            wall = (time.monotonic_ns() - began) / 1e9
        except WorkerFailed as error:
            raise TimingFailed(side, error.kind, f"while being timed: {error.detail}") from error
        if answer.get("problem"):
            raise TimingFailed(side, "wrong", f"while being timed: {answer['problem']}")
        own = answer.get("seconds")
        if not isinstance(own, float) or not math.isfinite(own) or own < 0:
            raise TimingFailed(side, "suspect", f"its own clock says {own!r} seconds")
        return Batch(max(wall - overhead, LEAST_SHARE * wall), max(own - own_overhead, LEAST_SHARE * own), order)

    def lead_in(self, side: str, worker: Worker, timed: TimedCase, share: float = 1.0) -> None:
        recorded = self.record(side, worker, timed, timed.count)
        until = time.monotonic() + share * LEAD_IN_S[self.gpu]
        while time.monotonic() < until:
            self.once(side, worker, timed, recorded or self.order(timed, timed.count), renew=False)

    def pace(self, side: str, worker: Worker, timed: TimedCase) -> float:
        """Seconds per call once warm, from batches that grow until they are long enough to tell."""
        count, most = 1, MOST_CALLS[self.gpu]
        while True:
            batch = self.fresh(side, worker, timed, count)
            if batch.wall >= BATCH_S[self.gpu] or count >= most:
                break
            count = min(most, max(2 * count, math.ceil(count * BATCH_S[self.gpu] / max(batch.wall, 1e-5))))
        return min([batch.wall, *(self.fresh(side, worker, timed, count).wall for _ in range(2))]) / count

    def set_count(self, timed: TimedCase, seconds_per_call: float) -> None:
        timed.count = max(1, min(MOST_CALLS[self.gpu], math.ceil(BATCH_S[self.gpu] / max(seconds_per_call, 1e-7))))

    def calibrate(self, empty: Worker, timed: TimedCase) -> None:
        """What a batch costs when its calls cost nothing: the least that was seen, since a busy machine only adds."""
        timed.overhead_s = timed.audit_overhead_s = (0.0, 0.0)
        plain = [self.fresh("empty", empty, timed, timed.count) for _ in range(7)]
        audit = [self.fresh("empty", empty, timed, self.audited(timed), audit=True) for _ in range(7)]
        least = [(min(batch.wall for batch in some), min(batch.own for batch in some)) for some in (plain, audit)]
        timed.overhead_s, timed.audit_overhead_s = least
        usual = [self.fresh("empty", empty, timed, timed.count, reads=True).wall / timed.count for _ in range(7)]
        count = self.audited(timed)
        audit = [self.fresh("empty", empty, timed, count, audit=True, reads=True).wall / count for _ in range(7)]
        timed.audit_excess_s = max(0.0, statistics.median(audit) - statistics.median(usual))

    def audited(self, timed: TimedCase) -> int:
        """Calls of an audit: all of their outputs must find room."""
        return min(timed.count, timed.order["outputs"]["shape"][0])
