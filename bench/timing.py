"""How fast are these sides? Rounds of fresh processes visited in random palindromic order, on the judge's own clock."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import proof
from arena import Arena
from audits import Audit, Audits
from calibration import Calibrations
from clock import LEAD_IN_S, Batch, Clock, TimingFailed
from correctness import Limits
from counted import Visit, VisitsOf
from disturbance import CpuWatch
from proof import Claim
from windows import TimedCase
from worker import Worker, WorkerFailed

from op import Op

VISITS = 2  # of a process in a round, there and back
BATCHES = 3  # in a visit; their median counts
LONG_S = 0.100  # batches longer than this are not repeated within a visit
AUDITS = 5  # of which the fastest counts
# A clock this far ahead of the judge's, on a quiet machine, is no accident; what only the judge's sees may double.
LYING_SHARE, LYING_S = 0.25, 1e-3
CHECK_SHARE = 1 / 3  # of the audits' claims that are compared with the reference after the first round


class Stopwatch:
    """One timing request: its cases in the arena, its sides, its rounds."""

    def __init__(
        self,
        op: Op,
        dtype: str,
        block: Arena,
        cases: list[TimedCase],
        limits: Limits,
        allow_tf32: bool,
        calibrations: Calibrations,
    ) -> None:
        self.op, self.dtype, self.arena, self.cases, self.limits = op, dtype, block, cases, limits
        self.allow_tf32, self.gpu, self.calibrations = allow_tf32, block.device.type == "cuda", calibrations
        self.clock = Clock(block, cases, limits)
        self.rng = random.SystemRandom()
        self.audits = Audits(self.gpu)
        self.visits: list[VisitsOf] = []  # of every round that came to its end

    def warm_up(self) -> list[dict[str, Any]]:
        """Orders after which nothing is left to do but to run: compiled, allocated, threads started."""
        return [order for timed in self.cases for order in (timed.order, *(self.clock.order(timed, n) for n in (1, 2)))]

    def calibrate(self, workers: dict[str, Worker], start_empty: Callable[[], Worker]) -> None:
        """As many calls a batch as the fastest side needs to fill it. What is known of such a batch is taken over."""
        empty = None
        try:
            for timed in self.cases:
                key = json.dumps(timed.order)
                timed.calibration = self.calibrations.get(key, timed.calibration)
                paces = []
                for side, worker in workers.items():
                    self._wake(side, worker)
                    paces.append(self.clock.pace(side, worker, timed))
                    self._rest(side, worker)
                if self.clock.fits(timed, min(paces)):
                    continue
                empty = empty or start_empty()
                self._wake("empty", empty)
                self.clock.calibrate(empty, timed, min(paces))
                self._rest("empty", empty)
                self.calibrations[key] = timed.calibration
        finally:
            if empty:
                empty.kill()

    def round(self, workers: dict[str, Worker], first: bool) -> dict[str, Any]:
        """One visit after the other; what was measured lies in `visits`."""
        order = list(workers)
        self.rng.shuffle(order)
        order += order[::-1]  # as many visits as VISITS says
        watch = CpuWatch()
        visits: VisitsOf = {side: [[] for _ in self.cases] for side in workers}
        claims: list[Claim] = []
        for side in order:
            worker = workers[side]
            self._wake(side, worker)
            watch.begin(worker.pid)
            for at, timed in enumerate(self.cases):
                visit = self._visit(side, worker, timed, claims, watch, share=1.0 if at == 0 else 0.25)
                visits[side][at].append(visit)
                if len(visits[side][at]) == VISITS:  # nothing follows that a process could keep back until then
                    visits[side][at] = self._audited(side, worker, timed, visits[side][at], claims, watch)
            watch.end()
            self._rest(side, worker)
            if damage := self.arena.damage(self.clock.slots):
                raise TimingFailed(side, "wrong", f"while being timed it {damage}")
        self._examine(claims, first, {side for side, worker in workers.items() if worker.trusted})
        self._hear(watch)
        disturbed = None if self.gpu else watch.verdict()
        self.visits.append(visits)
        return {"order": order, "disturbed": disturbed}

    def _visit(
        self, side: str, worker: Worker, timed: TimedCase, claims: list[Claim], watch: CpuWatch, share: float
    ) -> Visit:
        """A few batches, of which one, nobody knows which, is checked."""
        since = watch.now()
        checked, batches = self.rng.randrange(BATCHES), list[Batch]()
        for at in range(BATCHES):
            lead_in_s = 0.0 if at else share * LEAD_IN_S[self.gpu]
            batches.append(self.clock.fresh(side, worker, timed, timed.count, lead_in_s=lead_in_s))
            last = batches[-1].wall > LONG_S or at == BATCHES - 1
            if at == checked or (last and len(batches) <= checked):
                self._collect(side, worker, timed, batches[-1], claims)
            if last:
                break
        wall, own = (statistics.median(getattr(b, which) for b in batches) for which in ("wall", "own"))
        # on a busy machine a late wake-up is no lie, and the judge's clock counts anyway
        unseen_s = max(0.0, timed.calibration.batch.wall - timed.calibration.batch.own)  # making the windows, messages
        if own < (1 - LYING_SHARE) * wall - LYING_S - unseen_s and (self.gpu or not watch.busy(since)):
            raise TimingFailed(
                side,
                "suspect",
                f"{self.op.name} {list(timed.case.shape)}: its own clock says {1e3 * own:.3f} ms for "
                f"{timed.count} calls, the judge's {1e3 * wall:.3f} ms",
            )
        shortest, way = min(b.wall for b in batches), min(b.wall - b.own for b in batches)
        return Visit(timed.count, own if self.gpu else wall, shortest, way)

    def _collect(self, side: str, worker: Worker, timed: TimedCase, batch: Batch, claims: list[Claim]) -> None:
        """What was not there when the clock stopped comes too late: nobody writes while it is read."""
        self._guard(side, worker.freeze)
        claims.append(proof.collect(side, timed, self.arena, batch.order, self.rng))
        self._guard(side, worker.resume)

    def _audited(
        self, side: str, worker: Worker, timed: TimedCase, visits: list[Visit], claims: list[Claim], watch: CpuWatch
    ) -> list[Visit]:
        """Every call leaves elements behind, of which some are checked, and costs little more than the usual one."""
        count, since, excess_s = timed.audited, watch.now(), math.inf
        usual_s, again_s = min(max(v.usual_s, v.shortest_s) / v.calls for v in visits), 0.0
        for _ in range(AUDITS):
            batch = self.clock.fresh(side, worker, timed, count, audit=True)
            self._collect(side, worker, timed, batch, claims)  # before the next batch delivers to the same place
            excess_s = min(excess_s, batch.wall / count - usual_s)
            if excess_s <= self.audits.allowed_s(timed, usual_s):
                quiet = True
                break
            # the machine may have become slower meanwhile: what is usual is asked again, right after
            again = self.clock.fresh(side, worker, timed, timed.count)
            usual_s = max(usual_s, again.wall / timed.count)
            again_s = max(again_s, again.own if self.gpu else again.wall)
        else:
            quiet = self.gpu or not watch.busy(since)
        self.audits.add(side, timed, Audit(usual_s, excess_s, quiet))
        return [replace(visit, usual_s=max(visit.usual_s, again_s)) for visit in visits]  # who was slow then, is slow

    def _hear(self, watch: CpuWatch) -> None:
        """Whether the round's audits accuse somebody; on a machine that others use they only spoil the round."""
        for timed in self.cases:
            accused = self.audits.accused(timed)
            if accused:
                side, quiet, what = accused
                detail = f"{self.op.name} {list(timed.case.shape)}: {what}"
                if quiet:
                    raise TimingFailed(side, "suspect", detail)
                watch.spoil(f"{detail}, or others keep the machine busy")

    def _examine(self, claims: list[Claim], first: bool, believed: set[str]) -> None:
        """Every batch's claim and a share of the audits' against the reference; our own sides' in the first round."""
        for claim in claims:
            if not first and (claim.side in believed or (claim.audit and self.rng.random() > CHECK_SHARE)):
                continue
            detail = proof.examine(claim, self.op, self.dtype, self.allow_tf32)
            if detail:
                raise TimingFailed(claim.side, "wrong", f"an output computed while being timed is wrong: {detail}")

    def _guard(self, side: str, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except WorkerFailed as error:
            raise TimingFailed(side, error.kind, error.detail) from error

    def _wake(self, side: str, worker: Worker) -> None:
        self._guard(side, worker.resume)

    def _rest(self, side: str, worker: Worker) -> None:
        self._guard(side, worker.stop)
