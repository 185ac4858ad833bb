"""How fast are these sides? Rounds of fresh processes visited in random palindromic order, on the judge's own clock."""

from __future__ import annotations

import math
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import proof as evidence
from arena import Arena
from correctness import Limits
from disturbance import CpuWatch
from proof import Claim, Proof, Unproven
from windows import TimedCase
from worker import Worker, WorkerFailed

from op import Op

BATCH_S = {True: 0.006, False: 0.020}  # seconds a batch should last, on a GPU and on a CPU
BATCHES = 3  # in a visit; their median counts
LONG_S = 0.100  # batches longer than this are not repeated within a visit
AUDIT_CALLS = 2000
AUDIT_MULTIPLE, AUDIT_S = 1.5, 3e-6  # an audit disturbs the cache a little; skipping a third of the calls shows
AGREE_SHARE, AGREE_S = 0.02, 50e-6  # the candidate's own clock counts while it is this close to the judge's
LYING_SHARE = 0.25  # a clock this far ahead of the judge's, on a quiet machine, is no accident
CHECK_SHARE = 1 / 3  # of the claims after the first round that are compared with the reference


class TimingFailed(Exception):
    def __init__(self, side: str, kind: str, detail: str) -> None:
        super().__init__(f"{side}: {kind}: {detail}")
        self.side, self.kind, self.detail = side, kind, detail


class Stopwatch:
    """One timing request: its cases in the arena, its sides, its rounds."""

    def __init__(
        self, op: Op, dtype: str, block: Arena, cases: list[TimedCase], limits: Limits, allow_tf32: bool
    ) -> None:
        self.op, self.dtype, self.arena, self.cases, self.limits = op, dtype, block, cases, limits
        self.allow_tf32, self.gpu = allow_tf32, block.device.type == "cuda"
        self.rng = random.SystemRandom()

    def warm_up(self) -> list[dict[str, Any]]:
        """Orders after which nothing is left to do but to run: compiled, allocated, threads started."""
        return [order for timed in self.cases for order in (timed.order, *(self._order(timed, n) for n in (1, 2)))]

    def calibrate(self, workers: dict[str, Worker], empty: Worker) -> None:
        """Calls per batch from the fastest side, and what a batch costs when the calls cost nothing."""
        for timed in self.cases:
            fastest = math.inf
            for side, worker in workers.items():
                self._wake(side, worker)
                fastest = min(fastest, min(self._once(side, worker, timed, 3)[1] for _ in range(2)) / 3)
                self._rest(side, worker)
            timed.count = max(1, math.ceil(BATCH_S[self.gpu] / max(fastest, 1e-7)))
            timed.count = min(timed.count, 20000)
            self._wake("empty", empty)
            timed.overhead_s = self._overhead(empty, timed, timed.count, None)
            timed.audit_overhead_s = self._overhead(empty, timed, min(timed.count, AUDIT_CALLS), 0.0)
            self._rest("empty", empty)

    def _overhead(self, empty: Worker, timed: TimedCase, count: int, audit: float | None) -> float:
        """The least that was seen, since a busy machine only adds. An audit's own work is inside the loop."""
        spent = [self._once("empty", empty, timed, count, audit) for _ in range(7)]
        return max(0.0, min(wall - (own if audit is None else 0.0) for wall, own, _ in spent))

    def round(self, workers: dict[str, Worker], first: bool) -> dict[str, Any]:
        order = list(workers)
        self.rng.shuffle(order)
        order += order[::-1]
        watch = CpuWatch()
        us: dict[str, list[list[float]]] = {side: [[] for _ in self.cases] for side in workers}
        claims: list[Claim] = []
        for side in order:
            worker = workers[side]
            self._wake(side, worker)
            watch.begin(worker.pid)
            for at, timed in enumerate(self.cases):
                usual_s = self._visit(side, worker, timed, claims, watch)
                if not us[side][at]:
                    self._audit(side, worker, timed, usual_s, claims, watch)
                us[side][at].append(1e6 * usual_s)
            watch.end()
            self._rest(side, worker)
        self._look_for_damage(workers)
        self._examine(claims, first)
        disturbed = None if self.gpu else watch.verdict()
        return {"order": order, "us": us, "disturbed": disturbed}

    def _visit(self, side: str, worker: Worker, timed: TimedCase, claims: list[Claim], watch: CpuWatch) -> float:
        """Seconds per call: the median of a few batches, of which one, nobody knows which, is checked.

        Its own clock leaves out the message's way, so it counts where the judge's agrees. Otherwise the judge's does:
        that is never too short, since what it includes beyond the calls was subtracted at its least.
        """
        checked, own_clock, judges, batches = self.rng.randrange(BATCHES), [], [], BATCHES
        for attempt in range(3 * BATCHES):
            wall, own, proof = self._once(side, worker, timed, timed.count)
            if wall > LONG_S:
                checked, batches = min(checked, attempt), 1
            if attempt == checked:
                self._collect(side, worker, timed, proof, claims)
            judges.append((wall, own))
            if abs(wall - own) <= AGREE_SHARE * wall + AGREE_S:
                own_clock.append(own)
            if len(own_clock) >= batches:
                return statistics.median(own_clock) / timed.count
        wall, own = sorted(judges)[len(judges) // 2]
        # on a busy machine a late wake-up is no lie, and the judge's clock counts anyway
        if own < (1 - LYING_SHARE) * wall - AGREE_S and not watch.busy():
            raise TimingFailed(
                side,
                "suspect",
                f"{self.op.name} {list(timed.case.shape)}: its own clock says {1e3 * own:.3f} ms for "
                f"{timed.count} calls, the judge's {1e3 * wall:.3f} ms",
            )
        return wall / timed.count

    def _once(
        self, side: str, worker: Worker, timed: TimedCase, count: int, audit_overhead_s: float | None = None
    ) -> tuple[float, float, Proof]:
        """(judge's seconds, candidate's seconds, proof) of one batch. The clock stops when the proof is here."""
        order, timeout = self._order(timed, count), self.limits.call + 60 * BATCH_S[self.gpu]
        if audit_overhead_s is not None:
            order["audit"] = True
        overhead = timed.overhead_s if audit_overhead_s is None else audit_overhead_s
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
        return wall, own, (order, str(answer.get("receipt", "")))

    def _order(self, timed: TimedCase, count: int) -> dict[str, Any]:
        return {"do": "batch", "name": timed.name, "count": count, "secret": os.urandom(12).hex()}

    def _collect(self, side: str, worker: Worker, timed: TimedCase, proof: Proof, claims: list[Claim]) -> None:
        for slot in timed.order["outputs"]:
            self.arena.poison(slot)
        self._ask(side, worker, {"do": "deliver", "name": timed.name})
        try:
            claims.append(evidence.collect(side, timed, self.arena, proof, self.rng))
        except Unproven as error:
            raise TimingFailed(side, "wrong", f"{self.op.name} {list(timed.case.shape)}: {error}") from error

    def _audit(
        self, side: str, worker: Worker, timed: TimedCase, usual_s: float, claims: list[Claim], watch: CpuWatch
    ) -> None:
        """Every call leaves elements behind; it may cost little more than the usual call, and one of them is checked."""
        count = min(timed.count, AUDIT_CALLS)
        for _ in range(3):
            wall, _, proof = self._once(side, worker, timed, count, timed.audit_overhead_s)
            if wall / count <= AUDIT_MULTIPLE * usual_s + AUDIT_S:
                break
        else:
            detail = (
                f"{self.op.name} {list(timed.case.shape)}: {1e6 * usual_s:.1f} us a call where a few outputs are kept, "
                f"{1e6 * wall / count:.1f} us where every output counts: not every call is made"
            )
            if not watch.busy():
                raise TimingFailed(side, "suspect", detail)
            watch.spoil(f"{detail}, or others keep the machine busy")
        try:
            claims.append(evidence.spot(side, timed, proof, self.dtype, self.rng))
        except Unproven as error:
            raise TimingFailed(side, "suspect", f"{self.op.name} {list(timed.case.shape)}: {error}") from error

    def _examine(self, claims: Sequence[Claim], first: bool) -> None:
        seen: set[tuple[str, str, bool]] = set()
        for claim in claims:
            key = (claim.side, claim.timed.name, claim.places is None)
            if (not first or key in seen) and self.rng.random() > CHECK_SHARE:
                continue
            seen.add(key)
            detail = evidence.examine(claim, self.op, self.dtype, self.arena, self.allow_tf32)
            if detail:
                raise TimingFailed(claim.side, "wrong", f"an output computed while being timed is wrong: {detail}")

    def _look_for_damage(self, workers: dict[str, Worker]) -> None:
        """Whoever wrote into its inputs spoilt them for all; each side runs once more on restored ones to tell who."""
        slots = [slot for timed in self.cases for slot in timed.order["outputs"]]
        damage, pristine = self.arena.damage(slots), self.arena.pristine
        if not damage or pristine is None:
            return
        for side, worker in workers.items():
            self.arena.flat[: len(pristine)].copy_(pristine)
            self._wake(side, worker)
            for timed in self.cases:
                self._once(side, worker, timed, timed.count)
            self._rest(side, worker)
            found = self.arena.damage(slots)
            if found:
                raise TimingFailed(side, "wrong", f"while being timed it {found}")
        raise TimingFailed(" or ".join(workers), "wrong", f"while being timed one of them, once, {damage}")

    def _ask(self, side: str, worker: Worker, order: dict[str, Any]) -> None:
        answer = self._guard(side, lambda: worker.ask(order, self.limits.build))
        if answer and answer.get("problem"):
            raise TimingFailed(side, "wrong", f"while being timed: {answer['problem']}")

    def _guard(self, side: str, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except WorkerFailed as error:
            raise TimingFailed(side, error.kind, error.detail) from error

    def _wake(self, side: str, worker: Worker) -> None:
        if not self.gpu:
            self._guard(side, worker.resume)

    def _rest(self, side: str, worker: Worker) -> None:
        if not self.gpu:
            self._guard(side, worker.stop)
