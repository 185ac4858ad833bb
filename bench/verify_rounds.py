"""Whole forward passes timed in rounds of fresh processes, on the judge's clock, with their outputs checked."""

from __future__ import annotations

import contextlib
import math
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import disturbance
import torch
from compared import FORWARD_S, Comparison, Failed
from model_child import fingerprint
from worker import JudgeError, Worker, WorkerFailed

VISIT_S = {True: 0.05, False: 0.1}  # that a visit should last, on a GPU and on a CPU
TURNS = 3  # there and back, where a visit holds several passes: one visit that was held up does not count then
LEAD_IN_SHARE = 0.2  # of a visit, run before it and not counted: after a pause the first passes are slower
MOST_PASSES = 2000  # a visit
HELD_BYTES = {True: 4 << 30, False: 1 << 30}  # of outputs that live until the end of a visit


def time_rounds(
    compared: Comparison, sides: list[str], rounds: int, rng: random.Random, result: dict[str, Any]
) -> None:
    passes = 0
    for _ in range(rounds):
        workers: dict[str, Worker] = {}
        try:
            for side in sides:
                workers[side] = _ready(compared, side)
            passes = passes or _passes(compared, workers["original"])
            result["rounds"].append(_round(compared, workers, passes, rng, result["error"]))
        finally:
            for worker in workers.values():
                worker.kill()


def _ready(compared: Comparison, side: str) -> Worker:
    try:
        worker, _ = compared.start(side)
        try:
            worker.ask({"do": "forward", "set": 0}, FORWARD_S)
            Visit(compared, [1], 0, 0).made_by(
                worker
            )  # the first receipt of a process takes as long as loading its code
            worker.stop()
            if compared.gpu:
                worker.resume()
            return worker
        except BaseException:
            worker.kill()
            raise
    except WorkerFailed as error:
        if side == "optimized":
            raise Failed(f"the optimized model ended in a {error.kind}: {error.detail}") from error
        raise JudgeError(f"the {side} model: {error.detail}") from error


@contextlib.contextmanager
def _running(compared: Comparison, worker: Worker) -> Iterator[None]:
    """On a CPU the others stand still meanwhile; on a GPU they wait, for a stopped process may hold up the device."""
    if compared.gpu:
        yield
        return
    worker.resume()
    yield
    worker.stop()


def _passes(compared: Comparison, original: Worker) -> int:
    """Forward passes that fill a visit: so many that what the receipt costs hardly counts."""
    passes, wanted = 1, VISIT_S[compared.gpu]
    with _running(compared, original):
        while True:
            seconds, _ = Visit(compared, [0] * passes, 0, 0).made_by(original)
            if seconds >= wanted / 2 or passes == MOST_PASSES:
                return passes
            passes = min(MOST_PASSES, math.ceil(passes * min(16.0, wanted / seconds)))


def _round(
    compared: Comparison, workers: dict[str, Worker], passes: int, rng: random.Random, error: dict[str, float]
) -> dict[str, Any]:
    order = list(workers)
    rng.shuffle(order)
    order = (order + order[::-1]) * (TURNS if passes > 1 else 1)
    if compared.gpu:
        _share_a_processor(workers, rng)
    watch = disturbance.CpuWatch()
    ms: dict[str, list[float]] = {side: [] for side in workers}
    sets = list(range(len(compared.sets)))
    # of each turn one pass, the same for all sides and new to each process: who computes nothing else cannot know it
    kept = [(rng.choice(sets), rng.getrandbits(62)) for _ in range(order.count(order[0]))]
    waiting: dict[int, list[torch.Tensor]] = {}
    for side in order:
        worker, turn = workers[side], len(ms[side])
        kept_set, kept_secret = kept[turn]
        try:
            with _running(compared, worker):
                if lead_in := int(passes * LEAD_IN_SHARE):
                    Visit(compared, rng.choices(sets, k=lead_in), 0, rng.getrandbits(62)).made_by(worker)
                visit = Visit(compared, rng.choices(sets, k=passes), rng.randrange(passes), kept_secret)
                visit.order[visit.keep] = kept_set
                watch.begin(worker.pid)
                seconds, receipt = visit.made_by(worker)
                watch.end()
                output = compared.fetch(worker)
        except WorkerFailed as failure:
            if side == "optimized":
                raise Failed(f"the optimized model ended in a {failure.kind}: {failure.detail}") from failure
            raise JudgeError(f"the {side} model: {failure.detail}") from failure
        if fingerprint(output, visit.secret) != receipt:
            raise Failed(f"{side}: the output was not finished when the clock stopped")
        ms[side].append(1e3 * seconds / passes)
        if side != "compile":
            other = waiting.pop(turn, None)
            if other is None:
                waiting[turn] = output
            else:
                _same(*((output, other) if side == "original" else (other, output)), error)
    compared.intact()
    disturbed = disturbance.gpu_verdict(disturbance.gpu_state(), 1 + len(workers)) if compared.gpu else watch.verdict()
    return {"order": order, "ms": ms, "disturbed": disturbed}


def _share_a_processor(workers: dict[str, Worker], rng: random.Random) -> None:
    """Launches of a small model take longer than its kernels, and one virtual processor launches at half the speed of
    another: the threads that launch take turns on the same one, another in each round. Their helpers stay free."""
    processor = rng.choice(sorted(os.sched_getaffinity(0)))
    for worker in workers.values():
        with contextlib.suppress(OSError):  # one that is gone says so when it is asked
            os.sched_setaffinity(worker.pid, {processor})


class Visit:
    """Forward passes over sets of inputs, of which one is kept, whose inputs follow from `kept_secret`."""

    def __init__(self, compared: Comparison, order: list[int], keep: int, kept_secret: int) -> None:
        self.order, self.keep, self.secret = order, keep, random.SystemRandom().getrandbits(62)
        hold = len(order) * compared.output_bytes <= HELD_BYTES[compared.gpu]
        told = {"keep": keep, "kept_secret": kept_secret, "secret": self.secret}
        self.told = {"do": "visit", **told, "vary": compared.varies, "hold": hold}

    def made_by(self, worker: Worker) -> tuple[float, str]:
        """The judge's seconds, and what only who has finished can tell. A message takes all as long, and not long."""
        began = time.monotonic_ns()
        answer = worker.ask({**self.told, "order": self.order}, FORWARD_S)
        return (time.monotonic_ns() - began) / 1e9, str(answer.get("receipt", ""))


def _same(original: list[torch.Tensor], optimized: list[torch.Tensor], error: dict[str, float]) -> None:
    """What was computed while being timed, against what the original computed while being timed."""
    allowed = 2 * error["allowed_normwise"]  # both may be off, to different sides
    for at, (base, have) in enumerate(zip(original, optimized, strict=True)):
        if not have.is_floating_point():
            if not torch.equal(base, have):
                raise Failed(f"output {at}, computed while being timed, differs from the original's")
            continue
        if not torch.equal(base.isfinite(), have.isfinite()):
            raise Failed(f"output {at}, computed while being timed, has NaN or Inf where the original has none")
        difference = torch.where(base.isfinite(), have.double() - base.double(), 0.0)
        size = float(torch.linalg.vector_norm(torch.where(base.isfinite(), base.double(), 0.0))) or 1.0
        share = float(torch.linalg.vector_norm(difference)) / size
        if not share <= allowed:
            raise Failed(
                f"output {at}, computed while being timed, is {share:.3g} from the original's, allowed {allowed:.3g}"
            )
