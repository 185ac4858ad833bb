"""The warm judge: answers hello, check, time and verify, one request after the other."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import baselines
import compiled
import correctness
import device_facts
import disturbance
import large
import nvidia_tools
import op_table
import roofline
import source_scan
import torch
import trials
import verify_model
import warmers
import windows
import workers
from arena import CPU_BYTES, Arena
from calibration import Calibrations
from clock import TimingFailed
from correctness import Examiner, Limits, Wrong
from rounds import EMPTY, Rounds, load_order
from timing import Stopwatch
from worker import JudgeError, Worker, WorkerFailed, end
from workers import Pool


class Judge:
    def __init__(self, device: str, sandbox_mode: str, limits: Limits) -> None:
        self.work = workers.work_folder()
        self.kind, self.gpu, self.limits = device, device != "cpu", limits
        self.pool = Pool(self.gpu, sandbox_mode, self.work)  # before this process opens the device
        if self.gpu and not torch.cuda.is_available():
            self.pool.close()
            raise JudgeError(f"--device {device}: torch {torch.__version__} finds no such device here")
        self.device = torch.device("cuda", 0) if self.gpu else torch.device("cpu")
        self.hash = workers.judge_hash()
        self.calibrations: Calibrations = {}
        self.leaving: list[Worker] = []  # told to end, and not waited for until it matters
        self.large_elements = large.ELEMENTS
        self.met: set[str] = set()  # exams that were passed: all that they compile lies in the cache
        self._facts: dict[str, Any] | None = None
        self._sandbox: str | None = None

    def close(self) -> None:
        self._settle()
        self.pool.close()

    @property
    def facts(self) -> dict[str, Any]:
        if self._facts is None:
            self._facts = device_facts.facts(self.kind, self.work)
        return self._facts

    @property
    def sandbox(self) -> str:
        if self._sandbox is None:
            block = Arena(self.device, 1 << 20)
            try:
                self._sandbox = workers.probe_sandbox(self.pool, block)
            finally:
                block.close()
        return self._sandbox

    def hello(self, _request: dict[str, Any]) -> dict[str, Any]:
        ops = sorted(op_table.load_ops())
        return {"protocol": 1, "judge_hash": self.hash, "sandbox": self.sandbox, "device": self.facts, "ops": ops}

    def _settle(self) -> None:
        """Waits until the processes that were told to end are gone, and with them their hold on the device."""
        end(self.leaving)
        self.leaving.clear()

    def check(
        self, request: dict[str, Any], progress: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        began, confined = time.monotonic(), self.sandbox
        self._settle()
        data = Path(request["path"]).read_bytes()
        source = workers.sha256(data)
        found = source_scan.scan(data)
        verdict = correctness.Verdict()
        facts: dict[str, Any] = {"memory": None, "compiler": None}
        if found.refused:
            verdict.note("build", "fail", detail=verdict.fail("build", Wrong(found.refused)))
            for name in correctness.STAGES[1:]:
                verdict.note(name, "skipped")
        else:
            verdict, facts = self._examine(request, data, source, progress)
        if workers.sha256(Path(request["path"]).read_bytes()) != source:
            raise JudgeError(f"{request['path']} changed while it was being judged")
        return {
            "verdict": verdict.kind,
            "op": request["op"],
            "backend": found.constants.get("BACKEND"),
            "dtype": request["dtype"],
            "stages": verdict.stages,
            "detail": verdict.detail,
            "quick": bool(request.get("quick")),
            "flags": found.flags,
            "held": found.held,
            "worst_of_tolerance": verdict.worst,
            "max_abs_err": verdict.max_abs_err,
            "peak_mem_mb": facts["memory"],
            "compiler": facts["compiler"],
            "build_s": round(verdict.build_s, 4),
            "wall_s": round(time.monotonic() - began, 4),
            "source_sha256": source,
            "judge_hash": self.hash,
            "sandbox": confined,
        }

    def _examine(
        self, request: dict[str, Any], data: bytes, source: str, progress: Any
    ) -> tuple[correctness.Verdict, dict[str, Any]]:
        op = baselines.find_op(request["op"], request.get("op_file"))
        seed = request.get("seed")
        rng = random.Random(int.from_bytes(os.urandom(16), "big") if seed is None else seed)
        torch.manual_seed(rng.getrandbits(62))  # a user's make_inputs may draw from the global generator
        plan = trials.Plan(op, request["dtype"], request.get("shapes") or [], self.gpu, rng)
        block = Arena(self.device, plan.bytes_needed() if self.gpu else CPU_BYTES)
        tf32, helpers = bool(request.get("allow_tf32")), list[Worker]()
        exam = json.dumps([source, op.name, request["dtype"], request.get("shapes")])
        try:
            with self.pool.spawn(block, source) as worker:
                worker.await_ready()
                self._set_tf32(tf32)

                if exam not in self.met and warmers.wanted(data, self.gpu, request):
                    load = lambda helper: load_order(helper, data, tf32)  # noqa: E731
                    helpers += warmers.start(self.pool, block, source, load, warmers.count(op, plan))

                def staged(stage: dict[str, Any]) -> None:
                    if progress:
                        progress(stage)
                    # not before it is worth while: a kernel that hangs the device shall not do so many times
                    if (stage["name"], stage["status"]) == ("smoke", "pass"):
                        warmers.tell(helpers, op, plan, block.device)

                examiner = Examiner(op, worker, block, self.limits, correctness.fresh_seed(rng), tf32, staged)
                quick = bool(request.get("quick"))
                verdict = examiner.run(plan, load_order(worker, data, tf32), quick)
                if verdict.kind == "pass" and not quick:
                    self.met.add(exam)
                facts = _told(worker, passed=verdict.kind == "pass")
        finally:
            for helper in helpers:
                helper.doom()
            self.leaving += helpers
            self._release(block)
        if request.get("large"):
            self._settle()  # what they hold of the device's memory is asked for now
        fresh = large.in_a_fresh_process(self.pool, self.limits, self.gpu, data, source, tf32)
        exam = large.LargeExam(op, plan.primary, plan.dtype, self.device, rng, tf32, fresh, self.large_elements)
        exam.stage(verdict, request, progress)
        return verdict, facts

    def time(self, request: dict[str, Any]) -> dict[str, Any]:
        began, _ = time.monotonic(), self.sandbox
        op = baselines.find_op(request["op"], request.get("op_file"))
        torch.seed()  # a user's make_inputs may draw from the global generator, which starts at a known seed
        dtype, tf32 = request["dtype"], bool(request.get("allow_tf32"))
        cases = trials.model_cases(op, request.get("shapes") or []) or [(trials.primary_case(op, [], self.gpu), 1.0)]
        limits = [roofline.limit(op, case, dtype, self.facts["measured"]) for case, _ in cases]
        self._set_tf32(tf32)
        block, timed = windows.prepare(op, cases, dtype, self.device, self.facts["cache_bytes"], random.SystemRandom())
        rounds = Rounds(
            request,
            self.pool,
            Stopwatch(op, dtype, block, timed, self.limits, tf32, self.calibrations),
            self.limits,
            self.gpu,
            self._settle,
        )
        failure, state = None, disturbance.gpu_state() if self.gpu else {}
        try:
            rounds.run()
        except TimingFailed as error:
            if error.side == EMPTY["name"]:
                raise JudgeError(f"the clock cannot be calibrated: {error}") from error
            failure = {"side": error.side, "kind": error.kind, "detail": error.detail}
        finally:
            self._release(block)
        return {
            "rounds": rounds.results(),
            "roofline": roofline.weighted(limits, [weight for _, weight in cases]),
            "limit_us": [item[3] for item in limits],
            "clocks": disturbance.clocks(state),
            "failure": failure,
            "wall_s": round(time.monotonic() - began, 4),
        }

    def counters(self, request: dict[str, Any]) -> dict[str, Any]:
        """What ncu counts at the primary shape."""
        if self.kind != "cuda":
            return {"kernels": [], "detail": "hardware counters are read with ncu, on NVIDIA GPUs only"}
        return nvidia_tools.measure(request, self._primary(request), self.pool)

    def sanitize(self, request: dict[str, Any]) -> dict[str, Any]:
        """Whether compute-sanitizer finds a wrong access at the primary shape."""
        if self.kind != "cuda":
            return {"errors": None, "detail": "compute-sanitizer looks at NVIDIA GPUs only"}
        return nvidia_tools.sanitize(request, self._primary(request), self.pool)

    def _primary(self, request: dict[str, Any]) -> dict[str, Any]:
        op = baselines.find_op(request["op"], request.get("op_file"))
        case = trials.primary_case(op, request.get("shapes") or [], self.gpu)
        return {"shape": list(case.shape), "options": dict(case.options)}

    def verify(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            assert self.sandbox
            return verify_model.verify(self.pool, self.device, request)
        except WorkerFailed as error:
            raise JudgeError(f"verify: {error.kind}: {error.detail}") from error
        finally:
            if self.gpu:
                torch.cuda.empty_cache()

    def _release(self, block: Arena) -> None:
        block.close()
        if self.gpu:
            torch.cuda.empty_cache()  # the next candidate may need what the reference held

    def _set_tf32(self, allowed: bool) -> None:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def _told(worker: Worker, passed: bool) -> dict[str, Any]:
    """What a candidate that passed says of itself: for the report, and for no decision."""
    answers: dict[str, Any] = {"memory": {}, "compiler": {}}
    for order in answers if passed else ():
        with contextlib.suppress(WorkerFailed):
            answers[order] = worker.ask({"do": order}, 15)
    peak = answers["memory"].get("peak_mb")
    return {"memory": peak if isinstance(peak, float) else None, "compiler": compiled.accept(answers["compiler"])}
