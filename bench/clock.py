"""The judge's clock: one batch of calls, from the order to the answer that proves it, less what the messages cost.

On a CPU the order holds the secret that says which inputs each call gets. On a GPU, where a launch from Python may take
longer than the kernel, the calls are recorded in a graph first and replayed once, since the first replay also brings
the graph to the device; then all data is replaced, and the next replay is timed.
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
from calibration import Calibration, Overhead
from correctness import Limits
from windows import TimedCase
from worker import Worker, WorkerFailed

BATCH_S = {True: 0.006, False: 0.025}  # seconds a batch should last, on a GPU and on a CPU
# After a pause the first tens of milliseconds are slower, by up to 2x on a virtual CPU: they are run and not counted.
LEAD_IN_S = {True: 0.015, False: 0.040}
WAY_S = {True: 300e-6, False: 0.0}  # of a batch: by so much the messages of one process are slower than another's
MOST_CALLS = {True: 500, False: 20000}  # recording costs a launch from Python each
LEAST_SHARE = 0.01  # of what the clock saw, where a batch costs hardly more than an empty one
# For so long judge and candidate ask for each other's message instead of sleeping, where there are processors to spare.
SPIN_S = 0.05 if (os.cpu_count() or 1) >= 8 else 0.0
LASTING = (0.6, 2.5)  # a batch that was set for other kernels is kept while it lasts so many times what it should
RENEWED_AFTER_S = 600.0  # the machine changes in a night


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
        self.spin_s = SPIN_S if self.gpu else 0.0
        self.slots = [timed.order["outputs"] for timed in cases]
        self.timeout = limits.call + 60 * BATCH_S[self.gpu]
        self.rng = random.SystemRandom()

    def order(self, timed: TimedCase, count: int, audit: bool = False, reads: bool = False) -> dict[str, Any]:
        told = {"name": timed.name, "count": count, "audit": audit, "reads": reads}
        return {"do": "batch", **told, "secret": os.urandom(12).hex(), "spin_s": self.spin_s}

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

    def refresh(self, worker: Worker, timed: TimedCase) -> None:
        """Replaces the data that the next batch will read: 1 ms on an H200, 12 ms for 48 MiB on two cores. On a CPU the
        process stands still meanwhile; what was recorded can do nothing but replay."""
        if not self.gpu:
            worker.freeze()
        windows.refresh(timed, self.arena, self.rng)
        if not self.gpu:
            worker.resume()

    def fresh(
        self,
        side: str,
        worker: Worker,
        timed: TimedCase,
        count: int,
        audit: bool = False,
        reads: bool = False,
        lead_in_s: float = 0.0,
    ) -> Batch:
        """One batch, from recording to proof, after `lead_in_s` of batches that do not count."""
        recorded = self.record(side, worker, timed, count, audit, reads)
        until = time.monotonic() + lead_in_s
        if recorded:
            self.once(side, worker, timed, recorded, renew=False)
        while time.monotonic() < until:
            self.once(side, worker, timed, recorded or self.order(timed, count, audit, reads), renew=False)
        return self.once(side, worker, timed, recorded or self.order(timed, count, audit, reads))

    def once(self, side: str, worker: Worker, timed: TimedCase, order: dict[str, Any], renew: bool = True) -> Batch:
        """The clock stops when the proof is here. `renew`: with data that nobody has seen."""
        recorded, audit = order["do"] == "record", order["audit"]
        overhead = timed.calibration.audit if audit else timed.calibration.batch
        try:
            if renew and (side != "empty" or order["reads"]):  # one that reads nothing sees nothing
                self.refresh(worker, timed)
            if self.gpu:
                torch.cuda.synchronize()  # the new data lies there before the clock starts
            began = time.monotonic_ns()
            replay = {"do": "replay", "name": timed.name, "spin_s": self.spin_s}
            worker.tell(replay if recorded else order, self.timeout)
            answer = worker.answer(self.timeout, self.spin_s)
            wall = (time.monotonic_ns() - began) / 1e9
        except WorkerFailed as error:
            raise TimingFailed(side, error.kind, f"while being timed: {error.detail}") from error
        if answer.get("problem"):
            raise TimingFailed(side, "wrong", f"while being timed: {answer['problem']}")
        own = answer.get("seconds")
        if not isinstance(own, float) or not math.isfinite(own) or own < 0:
            raise TimingFailed(side, "suspect", f"its own clock says {own!r} seconds")
        return Batch(max(wall - overhead.wall, LEAST_SHARE * wall), max(own - overhead.own, LEAST_SHARE * own), order)

    def pace(self, side: str, worker: Worker, timed: TimedCase) -> float:
        """Seconds per call once warm, from batches that grow until they are long enough to tell."""
        count, most, wanted = timed.count, MOST_CALLS[self.gpu], LASTING[0] * BATCH_S[self.gpu]
        while True:
            batch = self.fresh(side, worker, timed, count)
            if batch.wall >= wanted or count >= most:
                return min(batch.wall, self.fresh(side, worker, timed, count).wall) / count
            count = min(most, max(2 * count, math.ceil(count * BATCH_S[self.gpu] / max(batch.wall, 1e-5))))

    def fits(self, timed: TimedCase, seconds_per_call: float) -> bool:
        """Whether what was calibrated before serves here too."""
        least, most = (share * BATCH_S[self.gpu] for share in LASTING)
        lasts = timed.count * seconds_per_call
        young = time.monotonic() - timed.calibration.at < RENEWED_AFTER_S
        return young and (least <= lasts or timed.count == MOST_CALLS[self.gpu]) and (lasts <= most or timed.count == 1)

    def calibrate(self, empty: Worker, timed: TimedCase, seconds_per_call: float) -> None:
        """The count that fills a batch, and its overhead: the least that was seen, since a busy machine only adds."""
        count = max(1, min(MOST_CALLS[self.gpu], math.ceil(BATCH_S[self.gpu] / max(seconds_per_call, 1e-7))))
        timed.calibration = Calibration(count)
        plain = [self.fresh("empty", empty, timed, count) for _ in range(7)]
        audit = [self.fresh("empty", empty, timed, timed.audited, audit=True) for _ in range(7)]
        least, of_audit = (Overhead(min(b.wall for b in some), min(b.own for b in some)) for some in (plain, audit))
        timed.calibration = Calibration(count, least, of_audit)
        usual = [self.fresh("empty", empty, timed, count, reads=True).wall / count for _ in range(7)]
        audited = [self.fresh("empty", empty, timed, timed.audited, audit=True, reads=True).wall for _ in range(7)]
        excess_s = max(0.0, statistics.median(audited) / timed.audited - statistics.median(usual))
        timed.calibration = Calibration(count, least, of_audit, excess_s, time.monotonic())
