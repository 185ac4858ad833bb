"""A check from start to end: a fresh process, helpers that compile ahead of it, the stages, what is told of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
from typing import Any

import baselines
import compiled
import large
import torch
import trials
import warmers
from arena import CPU_BYTES, Arena
from correctness import Examiner, Limits, fresh_seed
from verdict import Progress, Verdict
from worker import Worker, WorkerFailed, end, load_order
from workers import Pool, sha256

Facts = dict[str, Any]  # of a candidate that passed: peak memory, what the compilers made of it
NO_FACTS: Facts = {"memory": None, "compiler": None}


class Checks:
    """Checks of one judge, and what it keeps between them."""

    def __init__(self, pool: Pool, device: torch.device, limits: Limits) -> None:
        self.pool, self.device, self.limits, self.gpu = pool, device, limits, device.type == "cuda"
        self.leaving: list[Worker] = []  # told to end, and not waited for until it matters
        self.met: set[str] = set()  # exams that were passed: all that they compile lies in the cache
        self.large_elements = large.ELEMENTS

    def settle(self) -> None:
        """Waits until the processes that were told to end are gone, and with them their hold on the device."""
        end(self.leaving)
        self.leaving.clear()

    def examine(self, request: dict[str, Any], data: bytes, progress: Progress | None) -> tuple[Verdict, Facts]:
        op = baselines.find_op(request["op"], request.get("op_file"))
        seed = request.get("seed")
        rng = random.Random(int.from_bytes(os.urandom(16), "big") if seed is None else seed)
        torch.manual_seed(rng.getrandbits(62))  # a user's make_inputs may draw from the global generator
        torch.backends.cuda.matmul.allow_tf32 = tf32 = bool(request.get("allow_tf32"))
        plan = trials.Plan(op, request["dtype"], request.get("shapes") or [], self.gpu, rng)

        verdict, facts = self._stages(request, plan, data, tf32, progress)
        if request.get("large"):
            self.settle()  # what they hold of the device's memory is asked for now
        call = large.in_a_fresh_process(self.pool, self.limits, self.gpu, data, tf32)
        exam = large.LargeExam(op, plan.primary, plan.dtype, self.device, rng, tf32, call, self.large_elements)
        exam.stage(verdict, request, progress)
        return verdict, facts

    def _stages(
        self, request: dict[str, Any], plan: trials.Plan, data: bytes, tf32: bool, progress: Progress | None
    ) -> tuple[Verdict, Facts]:
        source, quick, helpers = sha256(data), bool(request.get("quick")), list[Worker]()
        exam = json.dumps([source, plan.op.name, request["dtype"], request.get("shapes")])
        block = Arena(self.device, plan.bytes_needed() if self.gpu else CPU_BYTES)

        def load(worker: Worker) -> dict[str, Any]:
            return load_order(worker, data, tf32)

        def staged(stage: dict[str, Any]) -> None:
            if progress:
                progress(stage)
            # not before it is worth while: a kernel that hangs the device shall not do so many times
            if (stage["name"], stage["status"]) == ("smoke", "pass"):
                warmers.tell(helpers, plan.op, plan, block.device)

        try:
            with self.pool.spawn(block, source) as worker:
                worker.await_ready()
                if exam not in self.met and warmers.wanted(data, self.gpu, request):
                    helpers += warmers.start(self.pool, block, source, load, warmers.count(plan.op, plan))
                inputs_seed = fresh_seed(plan.rng)
                examiner = Examiner(plan.op, worker, block, self.limits, inputs_seed, tf32, staged)
                verdict = examiner.run(plan, load(worker), quick)
                if verdict.kind == "pass" and not quick:
                    self.met.add(exam)
                return verdict, _told(worker) if verdict.kind == "pass" else NO_FACTS
        finally:
            for helper in helpers:
                helper.doom()
            self.leaving += helpers
            block.close()


def _told(worker: Worker) -> Facts:
    """What a candidate that passed says of itself: for the report, and for no decision."""
    answers: dict[str, Any] = {"memory": {}, "compiler": {}}
    for order in answers:
        with contextlib.suppress(WorkerFailed):
            answers[order] = worker.ask({"do": order}, 15)
    peak = answers["memory"].get("peak_mb")
    return {"memory": peak if isinstance(peak, float) else None, "compiler": compiled.accept(answers["compiler"])}
