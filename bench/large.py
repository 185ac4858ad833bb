"""The stage `large`: one call at more than 2^31 elements, where offsets of 32 bits no longer reach every element.

Inputs are drawn some rows at a time into a block of their own, and the candidate meets them in a fresh process that is
gone before anything is looked at: nobody can write on. Nothing is there twice, and nothing whole in float64.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from arena import Arena, Buffer, bytes_for, view
from correctness import Limits
from seal import Seal
from slices import AT_ONCE, Grown, grow, judge_bytes, limit_of, limit_of_mean, pieces, places, weighed
from tolerance import Tolerance, index_of
from verdict import LARGE, Progress, Verdict, Wrong
from worker import JudgeError, WorkerFailed, load_order
from workers import Pool, sha256

from op import Case, Inputs, Op

ELEMENTS = 1 << 31
PROCESS_BYTES = {True: 1 << 30, False: 1 << 28}  # a candidate's process before its first tensor
ZEROS = 4096  # so many in a row look like fresh memory that was never written to
OUTSIDE = re.compile(
    r"illegal memory access|misaligned address|memory access fault|unspecified launch failure|SIGSEGV|SIGBUS",
    re.IGNORECASE,
)
CPU_PATIENCE = 10  # times as long as another call may take
NO_ROOM = re.compile(r"out of memory|allocate memory|Malloc failed with error 2\b", re.IGNORECASE)
HINT = "beyond 2^31 elements or bytes, offsets need 64 bits"

# Has the candidate answer an order about a block, in a process that is gone when this returns.
Call = Callable[[Arena, dict[str, Any]], dict[str, Any]]


class NotHere(Exception):
    """Why the stage is left out."""


def left_out(op: Op, case: Case, request: Mapping[str, Any], gpu: bool) -> str:
    """'' or why it is not even tried."""
    if request.get("quick") or not request.get("large"):
        return "not asked for (quick)" if request.get("quick") else "not asked for"
    if op.rows is None:
        return f"the operation {op.name} does not say what its rows are: expected Op.rows, found None"
    if not op.rows.alone(case.options):
        return f"with {', '.join(f'{k}={v}' for k, v in case.options.items())} an output needs all rows at once"
    if not gpu and op.matmul_like and request["dtype"] == "fp16":
        return "fp16 products take minutes on a CPU"
    return ""


def in_a_fresh_process(pool: Pool, limits: Limits, gpu: bool, data: bytes, tf32: bool) -> Call:
    seconds = limits.call * (1 if gpu else CPU_PATIENCE)

    def call(block: Arena, order: dict[str, Any]) -> dict[str, Any]:
        with pool.spawn(block, sha256(data)) as worker:
            try:
                worker.await_ready()
            except WorkerFailed as error:  # nothing of the candidate's has run yet
                raise JudgeError(f"no process for the stage {LARGE} can be started: {error.detail}") from error
            loaded = worker.ask(load_order(worker, data, tf32), limits.build)
            return loaded if loaded.get("problem") else worker.ask(order, seconds)

    return call


class LargeExam:
    def __init__(
        self,
        op: Op,
        case: Case,
        dtype: torch.dtype,
        device: torch.device,
        rng: random.Random,
        allow_tf32: bool,
        call: Call,
        elements: int = ELEMENTS,
    ) -> None:
        self.op, self.case, self.dtype, self.device = op, case, dtype, device
        self.rng, self.allow_tf32, self.call, self.elements = rng, allow_tf32, call, elements
        self.gpu = device.type == "cuda"

    def stage(self, verdict: Verdict, request: Mapping[str, Any], progress: Progress | None) -> None:
        """Adds the stage to a verdict on the usual ones."""
        passed = verdict.kind == "pass"
        why = left_out(self.op, self.case, request, self.gpu) if passed else ""
        line = verdict.note(LARGE, "skipped", detail=why) if why or not passed else self.run(verdict)
        if progress and passed and not request.get("quick"):
            progress(line)

    def run(self, verdict: Verdict, free: int | None = None) -> dict[str, Any]:
        """The stage's line in the report; what it decides is in the verdict. `free` bytes: what the device says."""
        began = time.monotonic()
        status, cases = "pass", 1
        try:
            detail = self._examine(verdict, free)
        except Wrong as error:
            status, detail = "fail", verdict.fail(LARGE, error)
        except NotHere as error:
            status, cases, detail = "skipped", 0, str(error)
        except (JudgeError, RuntimeError, MemoryError) as error:
            if not (isinstance(error, MemoryError) or NO_ROOM.search(str(error))):
                raise
            status, cases, detail = "skipped", 0, f"the judge itself ran out of memory: {str(error).splitlines()[0]}"
        return verdict.note(LARGE, status, cases, time.monotonic() - began, detail)

    def _examine(self, verdict: Verdict, free: int | None) -> str:
        assert self.op.rows is not None
        grown = grow(self.op, self.op.rows, self.case, self.dtype, self.device, self.elements)
        room = bytes_for([None if like is None else like.meta() for like in (*grown.inputs, grown.output)])
        needed, free = self._needed(grown, room), free_bytes(self.device) if free is None else free
        if needed > free:
            raise NotHere(f"needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB free")
        block = Arena(self.device, room)
        try:
            buffers, slot = self._lay_out(grown, block)
            seal = Seal(block, slot, self.rng)
            self._called(grown, block, {"inputs": buffers, "output": slot, "options": dict(self.case.options)})
            damage = seal.damage()
            if damage:
                raise Wrong(f"{grown.label}: {damage}")
            inputs = tuple(None if b is None else view(block.flat, b) for b in buffers)
            return self._compare(verdict, grown, inputs, view(block.flat, slot))
        finally:
            block.close()

    def _needed(self, grown: Grown, room: int) -> int:
        """Inputs and output, and beside them what the candidate or, once it has gone, the judge takes."""
        scratch = grown.rows.scratch(grown.case.shape) * grown.dtype.itemsize
        candidate = PROCESS_BYTES[self.gpu] + grown.output.bytes + scratch
        return room + max(candidate, judge_bytes(grown))

    def _lay_out(self, grown: Grown, block: Arena) -> tuple[list[Buffer | None], Buffer]:
        named = zip(self.op.arguments, grown.inputs, strict=False)
        buffers = [None if like is None else block.reserve(name, like.shape, like.dtype) for name, like in named]
        whole = tuple(None if b is None else view(block.flat, b) for b in buffers)
        generator = torch.Generator(self.device).manual_seed(self.rng.getrandbits(62))
        for first, last in pieces(0, grown.count, grown.at_once):
            drawn = self.op.make_inputs(grown.case_of(last - first).shape, self.dtype, generator, "normal")
            for at, (mine, new) in enumerate(zip(grown.part(whole, first, last), drawn, strict=True)):
                if mine is not None and new is not None and (first == 0 or at in grown.rows.arguments):
                    mine.copy_(new)
        if grown.rows.weigh is not None:
            for first, last in weighed(grown):
                part = grown.part(whole, first, last)
                grown.rows.weigh(*(part[at] for at in grown.rows.arguments), loss=grown.count / (last - first))
        return buffers, block.slot("the output", grown.output.shape, grown.output.dtype)

    def _called(self, grown: Grown, block: Arena, order: dict[str, Any]) -> None:
        self._forget()
        try:
            problem = self.call(block, {"do": "call", **order}).get("problem")
        except WorkerFailed as error:
            if OUTSIDE.search(error.detail):
                raise Wrong(f"{grown.label}: reads or writes outside its tensors; {HINT}: {error.detail}") from error
            # a grid that is too high, no memory left: who says so has given nobody a wrong result
            raise NotHere(f"{grown.label}: the kernel does not get there: {error.detail}") from error
        if problem:
            raise Wrong(f"{grown.label}: {problem}")

    def _compare(self, verdict: Verdict, grown: Grown, inputs: Inputs, out: torch.Tensor) -> str:
        """Chosen rows with the reference, and in all of them whether they were written at all."""
        if grown.rows.mean:
            self._judged(verdict, limit_of_mean(grown, inputs, self.allow_tf32), out)
            return f"the mean of {grown.count} rows"
        missing = unwritten(out, AT_ONCE[self.gpu])
        if missing is not None:
            row = index_of(missing, out.shape)[0]
            limit = limit_of(grown, inputs, row, row + 1, self.allow_tf32)
            self._judged(verdict, limit, out[row : row + 1], f"it looks as if it was never written; {HINT}")
        spans = places(grown, self.rng)
        for first, last in spans:
            limit = limit_of(grown, inputs, first, last, self.allow_tf32)
            self._judged(verdict, limit, out[first:last])
        rows = sum(last - first for first, last in spans)
        return f"{rows} of {grown.count} rows at {len(spans)} places, and whether all were written"

    def _judged(self, verdict: Verdict, limit: Tolerance, out: torch.Tensor, hint: str = HINT) -> None:
        outcome = limit.judge(out)
        verdict.measure(outcome)
        if not outcome.ok:
            raise Wrong(f"{outcome.detail}; {hint}")

    def _forget(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()  # what the judge keeps for itself is missing to the candidate


def unwritten(out: torch.Tensor, at_once: int) -> int | None:
    """The first element that looks like poison or like the beginning of fresh memory; a result seldom does."""
    flat = out.reshape(-1)
    for start, end in pieces(0, flat.numel(), at_once):
        part = flat[start:end]
        bad = part.isnan()
        if bool(bad.any()):
            return start + int(bad.nonzero()[0])
        whole = len(part) // ZEROS * ZEROS
        empty = (part[:whole] == 0).view(-1, ZEROS).all(1)
        if bool(empty.any()):
            return start + ZEROS * int(empty.nonzero()[0])
    return None


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
