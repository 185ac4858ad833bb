"""Compiles in parallel what a check will call: processes that make its calls on zeros, for the compile cache's sake.

A Triton kernel is compiled anew for each dtype, block size and alignment, one after the other where one process meets
them; a check of attention needs twenty. Warmers meet them side by side and leave them in the candidate's own compile
cache, where the process that is judged finds them. Nothing they say is listened to, and they are not told the shapes
that a candidate is not told.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import arena
import torch
from arena import Arena, Buffer
from trials import Plan, Trial, strides_for
from worker import Worker, WorkerFailed
from workers import Pool

from op import Op

MOST = 8
MEMORY_SHARE = 0.25  # of the free memory, for all together
CONTEXT_BYTES = 1 << 30  # what a process takes before its first tensor
Like = tuple[tuple[int, ...], torch.dtype | None]  # an input's shape, and its dtype where it is not the call's
LIKE: dict[tuple[str, int, tuple[int, ...]], list[Like | None]] = {}


def wanted(source: bytes, gpu: bool, request: dict[str, Any]) -> bool:
    """CUDA C++ is compiled once for all shapes, and on a CPU the processors are the judge's own."""
    return gpu and b"triton" in source and not request.get("quick")


def count(op: Op, plan: Plan) -> int:
    """As many as the machine has room for."""
    free, _ = torch.cuda.mem_get_info()
    largest = max(op.bytes_moved(t.case.shape, t.dtype, t.case.options) for t in known(plan))
    room = int(MEMORY_SHARE * free // (CONTEXT_BYTES + 2 * largest))
    return max(0, min(MOST, (os.cpu_count() or 1) - 2, room))


def start(pool: Pool, block: Arena, key: str, load: Callable[[Worker], dict[str, Any]], number: int) -> list[Worker]:
    """Processes that open the device and load kernel.py while the candidate's own does, and call nothing yet."""
    workers = list[Worker]()
    for _ in range(number):
        workers.append(pool.spawn(block, key))
        with contextlib.suppress(WorkerFailed):
            workers[-1].tell(load(workers[-1]), 5)
    return workers


def tell(workers: list[Worker], op: Op, plan: Plan, device: torch.device) -> None:
    """Shares the calls out. What goes wrong in one process only costs its part of the cache."""
    calls = [_call(op, trial, device) for trial in known(plan)] if workers else []
    for at, worker in enumerate(workers):
        with contextlib.suppress(WorkerFailed):
            worker.tell({"do": "warm", "calls": calls[at :: len(workers)]}, 5)


def known(plan: Plan) -> list[Trial]:
    """Each kind of call once, of those whose shapes are no secret."""
    told, stand_ins = {*plan.own, *plan.known_edges, *(case.shape for case, _ in plan.model)}, plan.stand_ins()
    found: dict[str, Trial] = {}
    for trial in (*plan.smoke(), *plan.quick(), *plan.shapes(), *plan.stability(), *plan.edges(), *stand_ins):
        if trial.case.shape in told or trial in stand_ins:
            key = f"{trial.case.shape} {sorted(trial.case.options.items())} {trial.dtype} {trial.layout}"
            found.setdefault(key, trial)
    return list(found.values())


def _call(op: Op, trial: Trial, device: torch.device) -> dict[str, Any]:
    """Shapes, strides and dtypes of the inputs: what stands in them compiles to nothing else."""
    buffers: list[Buffer | None] = []
    for like in _inputs(op, trial, device):
        if like is None:
            buffers.append(None)
            continue
        shape, dtype = like
        tensor = torch.empty(shape, dtype=dtype or trial.dtype, device="meta")
        strides = strides_for(op, trial.layout, tensor) or arena.contiguous(shape)
        buffers.append(
            {"offset": 0, "shape": list(shape), "strides": strides, "dtype": arena.NAMES[dtype or trial.dtype]}
        )
    return {"inputs": buffers, "options": dict(trial.case.options)}


def _inputs(op: Op, trial: Trial, device: torch.device) -> list[Like | None]:
    """Drawn once for each shape in the judge's life."""
    key = (op.name, id(op.make_inputs), trial.case.shape)
    if key not in LIKE:
        generator = torch.Generator(device).manual_seed(0)
        made = op.make_inputs(trial.case.shape, trial.dtype, generator, "normal")
        LIKE[key] = [None if t is None else (tuple(t.shape), None if t.is_floating_point() else t.dtype) for t in made]
    return LIKE[key]
