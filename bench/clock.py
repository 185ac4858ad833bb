"""The judge's clock: one batch of calls, from sending its secret to the answer, less what the messages cost."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import Any

from correctness import Limits
from windows import TimedCase
from worker import Worker, WorkerFailed

BATCH_S = {True: 0.006, False: 0.025}  # seconds a batch should last, on a GPU and on a CPU
# After a pause the first tens of milliseconds are slower, by up to 2x on a virtual CPU: they are run and not counted.
LEAD_IN_S = {True: 0.015, False: 0.040}
MOST_CALLS = 20000
AUDIT_CALLS = 2000


class TimingFailed(Exception):
    def __init__(self, side: str, kind: str, detail: str) -> None:
        super().__init__(f"{side}: {kind}: {detail}")
        self.side, self.kind, self.detail = side, kind, detail


@dataclass(frozen=True)
class Batch:
    wall: float  # the judge's seconds, the overhead subtracted
    own: float  # what the candidate's process says
    order: dict[str, Any]
    receipt: str  # the elements that came with the answer


class Clock:
    def __init__(self, gpu: bool, limits: Limits) -> None:
        self.gpu, self.limits = gpu, limits

    def order(self, timed: TimedCase, count: int) -> dict[str, Any]:
        return {"do": "batch", "name": timed.name, "count": count, "secret": os.urandom(12).hex()}

    def once(self, side: str, worker: Worker, timed: TimedCase, count: int, audit: bool = False) -> Batch:
        """The clock stops when the proof is here."""
        order, timeout = {**self.order(timed, count), "audit": audit}, self.limits.call + 60 * BATCH_S[self.gpu]
        overhead = timed.audit_overhead_s if audit else timed.overhead_s
        try:
            began = time.monotonic_ns()
            worker.tell(order, timeout)
            answer = worker.answer(timeout)
            wall = (time.monotonic_ns() - began) / 1e9 - overhead
        except WorkerFailed as error:
            raise TimingFailed(side, error.kind, f"while being timed: {error.detail}") from error
        if answer.get("problem"):
            raise TimingFailed(side, "wrong", f"while being timed: {answer['problem']}")
        own = answer.get("seconds")
        if not isinstance(own, float) or not math.isfinite(own) or own < 0:
            raise TimingFailed(side, "suspect", f"its own clock says {own!r} seconds")
        return Batch(wall, own, order, str(answer.get("receipt", "")))

    def lead_in(self, side: str, worker: Worker, timed: TimedCase, share: float = 1.0) -> None:
        until = time.monotonic() + share * LEAD_IN_S[self.gpu]
        while time.monotonic() < until:
            self.once(side, worker, timed, timed.count)

    def pace(self, side: str, worker: Worker, timed: TimedCase) -> float:
        """Seconds per call once warm, from batches that grow until they are long enough to tell."""
        count = 1
        while True:
            batch = self.once(side, worker, timed, count)
            if batch.wall >= BATCH_S[self.gpu] or count >= MOST_CALLS:
                break
            count = min(MOST_CALLS, max(2 * count, math.ceil(count * BATCH_S[self.gpu] / max(batch.wall, 1e-5))))
        return min([batch.wall, *(self.once(side, worker, timed, count).wall for _ in range(2))]) / count

    def set_count(self, timed: TimedCase, seconds_per_call: float) -> None:
        timed.count = max(1, min(MOST_CALLS, math.ceil(BATCH_S[self.gpu] / max(seconds_per_call, 1e-7))))

    def calibrate(self, empty: Worker, timed: TimedCase) -> None:
        """What a batch costs when its calls cost nothing: the least that was seen, since a busy machine only adds."""
        timed.overhead_s = timed.audit_overhead_s = 0.0
        audits = min(timed.count, AUDIT_CALLS)
        plain = [self.once("empty", empty, timed, timed.count) for _ in range(7)]
        audit = [self.once("empty", empty, timed, audits, audit=True) for _ in range(7)]
        timed.overhead_s = max(0.0, min(batch.wall - batch.own for batch in plain))
        timed.audit_overhead_s = min(batch.wall for batch in audit)  # elements are taken inside the loop
