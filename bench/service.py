"""The warm judge: answers hello, check, time and verify, one request after the other."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import baselines
import device_facts
import disturbance
import nvidia_tools
import op_table
import roofline
import source_scan
import torch
import trials
import verify_model
import windows
import workers
from arena import Arena
from calibration import Calibrations
from checks import NO_FACTS, Checks
from clock import TimingFailed
from correctness import Limits
from rounds import EMPTY, Rounds
from timing import Stopwatch
from verdict import STAGES, Progress, Verdict, Wrong
from worker import JudgeError, WorkerFailed
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
        self.checks = Checks(self.pool, self.device, limits)
        self._facts: dict[str, Any] | None = None
        self._sandbox: str | None = None

    def close(self) -> None:
        self.checks.settle()
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

    def check(self, request: dict[str, Any], progress: Progress | None = None) -> dict[str, Any]:
        began, confined = time.monotonic(), self.sandbox
        self.checks.settle()
        data = Path(request["path"]).read_bytes()
        source = workers.sha256(data)
        found = source_scan.scan(data)
        verdict, facts = Verdict(), NO_FACTS
        if found.refused:
            verdict.note("build", "fail", detail=verdict.fail("build", Wrong(found.refused)))
            for name in STAGES[1:]:
                verdict.note(name, "skipped")
        else:
            verdict, facts = self.checks.examine(request, data, progress)
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

    def time(self, request: dict[str, Any]) -> dict[str, Any]:
        began, _ = time.monotonic(), self.sandbox
        op = baselines.find_op(request["op"], request.get("op_file"))
        torch.seed()  # a user's make_inputs may draw from the global generator, which starts at a known seed
        dtype, tf32 = request["dtype"], bool(request.get("allow_tf32"))
        cases = trials.model_cases(op, request.get("shapes") or []) or [(trials.primary_case(op, [], self.gpu), 1.0)]
        limits = [roofline.limit(op, case, dtype, self.facts["measured"]) for case, _ in cases]
        torch.backends.cuda.matmul.allow_tf32 = tf32
        block, timed = windows.prepare(op, cases, dtype, self.device, self.facts["cache_bytes"], random.SystemRandom())
        rounds = Rounds(
            request,
            self.pool,
            Stopwatch(op, dtype, block, timed, self.limits, tf32, self.calibrations),
            self.limits,
            self.gpu,
            self.checks.settle,
        )
        failure, state = None, disturbance.gpu_state() if self.gpu else {}
        try:
            rounds.run()
        except TimingFailed as error:
            if error.side == EMPTY["name"]:
                raise JudgeError(f"the clock cannot be calibrated: {error}") from error
            failure = {"side": error.side, "kind": error.kind, "detail": error.detail}
        finally:
            block.close()
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
