"""Is a kernel.py right? Five stages against the float64 reference, each call in a process the judge does not trust."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tolerance
import torch
from arena import Arena, Buffer
from trials import Plan, Trial, draw, strides_for
from verdict import STAGES, Progress, Verdict, Wrong
from worker import JudgeError, Worker, WorkerFailed

from op import SCALED, Case, Op

# Calls between a result and a second look at it, and seconds for them: buffers that come round again are seen.
MANY, MANY_S = 64, 0.03


@dataclass(frozen=True)
class Limits:
    """Seconds a candidate has. A call may have to compile first, so it is not bounded by what it should take."""

    build: float = 180.0
    call: float = 30.0


@dataclass
class Exam:
    """One set of inputs, and what may come of it."""

    inputs: Any
    eager: torch.Tensor  # the yardstick for error, and the shape and dtype that are asked for
    limit: tolerance.Tolerance | None = None


class Examiner:
    """One evaluation: draws inputs, has them computed, compares."""

    def __init__(
        self,
        op: Op,
        worker: Worker,
        arena: Arena,
        limits: Limits,
        seed: int,
        allow_tf32: bool,
        progress: Progress | None = None,
    ) -> None:
        self.op, self.worker, self.arena, self.limits = op, worker, arena, limits
        self.generator = torch.Generator(arena.device).manual_seed(seed)
        self.allow_tf32, self.progress = allow_tf32, progress or (lambda _stage: None)
        self.verdict = Verdict()
        self.noted: Case | None = None  # whose launches are worth noting

    def run(self, plan: Plan, load: dict[str, Any], quick: bool) -> Verdict:
        self.noted, self.dtype = plan.primary, plan.dtype

        def build() -> int:
            began = time.monotonic()
            problem = self.worker.ask(load, self.limits.build).get("problem")
            self.verdict.build_s, self.done = time.monotonic() - began, 1
            if problem:
                raise Wrong(str(problem))
            return 1

        steps: dict[str, Callable[[], int]] = {"build": build, "smoke": lambda: self._all(plan.smoke())}
        if quick:
            steps["shapes"] = lambda: self._all(plan.quick())
        else:
            steps["shapes"] = lambda: self._all(plan.shapes())
            steps["stability"] = lambda: self._all(plan.stability())
            steps["determinism"] = lambda: self._determinism(plan)
            steps["edges"] = lambda: self._all(plan.edges())
        for name in STAGES[:-1]:
            step = steps.get(name)
            if step is None or self.verdict.kind != "pass":
                why = "not asked for (quick)" if step is None and self.verdict.kind == "pass" else ""
                self.verdict.note(name, "skipped", detail=why)
            else:
                self._stage(name, step)
        return self.verdict

    def _stage(self, name: str, step: Callable[[], int]) -> None:
        began, self.done = time.monotonic(), 0
        detail, status = "", "pass"
        try:
            step()
        except (Wrong, WorkerFailed) as error:
            status, detail = "fail", self.verdict.fail(name, error)
        if status == "pass" and not self.done:
            status, detail = "skipped", "no inputs for it: none are named, or plain PyTorch itself is not exact on them"
        self.progress(self.verdict.note(name, status, self.done, time.monotonic() - began, detail))

    def _all(self, trials: list[Trial]) -> int:
        for trial in trials:
            self.examine(trial)
        return len(trials)

    def examine(self, trial: Trial, keep: str | None = None, exam: Exam | None = None) -> torch.Tensor | None:
        """One call, judged. Returns the output, or None when the operation has no meaning at this size."""
        exam = exam or self._draw(trial)
        if exam is None or (trial.kind in SCALED and not self._exact(trial, exam)):
            return None
        label = self._label(trial)
        out = self._answer(trial, exam, label, keep)
        if exam.limit is None:
            return out
        outcome = exam.limit.judge(out)
        usual = trial.kind == "normal" and trial.dtype == self.dtype
        self.verdict.measure(outcome, usual)
        if not outcome.ok:
            raise Wrong(f"{outcome.detail}{_manner(trial)}")
        return out

    def _exact(self, trial: Trial, exam: Exam) -> bool:
        """Whether plain PyTorch is far within what is allowed: nobody chose these inputs for this operation."""
        exam.limit = limits_for(self.op, trial.case, exam.inputs, exam.eager, trial.dtype, self.allow_tf32)
        finite = exam.limit.eager_error is not None and bool(exam.limit.reference.isfinite().all())
        return finite and exam.limit.widened == 1

    def _answer(self, trial: Trial, exam: Exam, label: str, keep: str | None = None) -> torch.Tensor:
        """What the candidate makes of it, in a block that holds nothing else."""
        buffers, slot = self._lay_out(trial, exam)
        order = {"do": "call", "inputs": buffers, "output": slot, "options": dict(trial.case.options), "keep": keep}
        order |= {"any_strides": trial.layout != "plain", "note": trial.case is self.noted}
        try:
            self.worker.tell(order, self.limits.call)
            # computed while the candidate works; without rows there is nothing to be right or wrong but the shape
            if exam.limit is None and exam.eager.numel():
                exam.limit = limits_for(self.op, trial.case, exam.inputs, exam.eager, trial.dtype, self.allow_tf32)
            answer = self.worker.answer(self.limits.call)
        except WorkerFailed as error:
            raise WorkerFailed(error.kind, f"{label}: {error.detail}") from error
        if answer.get("problem"):
            raise Wrong(f"{label}: {answer['problem']}")
        damage = self.arena.damage([slot])
        if damage:
            raise Wrong(f"{label}: {damage}")
        self.done += 1
        return self.arena.read(slot)

    def _determinism(self, plan: Plan) -> int:
        trial = Trial(plan.primary, plan.dtype)
        exam = self._draw(trial)
        first = self.examine(trial, "first", exam)
        if first is None or exam is None:
            return 0
        label = self._label(trial)
        for again in (2, 3):
            out = self._answer(trial, exam, label)
            if not _same_bits(out, first):
                where = int((_bits(out) != _bits(first)).nonzero()[0, 0])
                raise Wrong(f"{label}: run {again} on the same inputs gave other bits, first at flat index {where}")
        other = self._draw(trial)
        assert other is not None
        self.examine(trial, exam=other)
        buffers, slot = self._lay_out(trial, other)
        order = {"do": "recall", "keep": "first", "inputs": buffers, "options": dict(trial.case.options)}
        self.worker.ask({**order, "output": slot, "calls": MANY, "seconds": MANY_S}, self.limits.call)
        if damage := self.arena.damage([slot]):
            raise Wrong(f"{label}, called many times: {damage}")
        if not _same_bits(self.arena.read(slot), first):
            raise Wrong(f"{label}: the first call's result changed during later calls; return a new tensor each time")
        return 4

    def _draw(self, trial: Trial) -> Exam | None:
        """Fresh inputs and what eager makes of them. None: the operation has no meaning at this size."""
        try:
            inputs = draw(self.op, trial, self.generator)
            eager = self.op.eager(*inputs, **trial.case.options)
        except (RuntimeError, MemoryError, IndexError, ValueError, ZeroDivisionError) as error:
            if trial.unpromised and not isinstance(error, (MemoryError, torch.OutOfMemoryError)):
                return None
            raise JudgeError(f"{self.op.name} at {trial.case.shape} cannot be computed here: {error}") from error
        return None if trial.empty and eager.numel() else Exam(inputs, eager)

    def _lay_out(self, trial: Trial, exam: Exam) -> tuple[list[Buffer | None], Buffer]:
        self.arena.reset()
        buffers: list[Buffer | None] = []
        for name, tensor in zip(self.op.arguments, exam.inputs, strict=False):
            strides = None if tensor is None else strides_for(self.op, trial.layout, tensor)
            buffers.append(None if tensor is None else self.arena.place(name, tensor, strides))
        slot = self.arena.slot("the output", exam.eager.shape, exam.eager.dtype)
        self.arena.seal()
        return buffers, slot

    def _label(self, trial: Trial) -> str:
        options = "".join(f" {k}={v}" for k, v in trial.case.options.items())
        dtype = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}[trial.dtype]
        return f"{self.op.name} {'x'.join(map(str, trial.case.shape))}{options} {dtype}{_manner(trial)}"


def limits_for(
    op: Op, case: Case, inputs: Any, eager: torch.Tensor | None, dtype: torch.dtype, allow_tf32: bool
) -> tolerance.Tolerance:
    """Reference, eager's error and what they allow. Trouble here is the judge's, never the candidate's."""
    try:
        inputs64 = [t.double() if t is not None and t.is_floating_point() else t for t in inputs]
        reference = op.reference(*inputs64, **case.options)
        return tolerance.allowed(op, case, inputs64, reference, eager, dtype, allow_tf32)
    except (RuntimeError, MemoryError) as error:
        raise JudgeError(f"the reference of {op.name} at {case.shape} cannot be computed here: {error}") from error


def _manner(trial: Trial) -> str:
    words = [f"{trial.kind} inputs"] if trial.kind != "normal" else []
    words += [f"{trial.layout} (non-contiguous) inputs"] if trial.layout != "plain" else []
    return f" ({', '.join(words)})" if words else ""


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8).view(-1, tensor.itemsize)


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(_bits(a), _bits(b))


def fresh_seed(rng: random.Random) -> int:
    return rng.getrandbits(62)
