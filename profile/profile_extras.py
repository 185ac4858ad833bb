"""What a profile writes beside itself on request: the story of the memory, and what torch.compile says of the model."""

from __future__ import annotations

import json
import logging
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._logging._internal import set_logs
from torch.profiler import ProfilerActivity, profile

MAX_ALLOCATIONS = 200_000


def memory_snapshot(model: nn.Module, inputs: tuple[Any, ...], device: torch.device, file: Path) -> None:
    """One forward's allocations: on a GPU the pickle that pytorch.org/memory_viz draws, on a CPU a JSON of its own."""
    if device.type == "cuda":
        torch.cuda.memory._record_memory_history(max_entries=MAX_ALLOCATIONS)
        try:
            model(*inputs)
            torch.cuda.synchronize(device)
            torch.cuda.memory._dump_snapshot(str(file))
        finally:
            torch.cuda.memory._record_memory_history(enabled=None)
        return
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        model(*inputs)
    file.write_text(json.dumps(_cpu_memory(recorded)))


def _cpu_memory(recorded: profile) -> dict[str, Any]:
    """What each operator allocates and frees itself, and how much was alive at most above the start."""
    assert recorded.profiler is not None and recorded.profiler.kineto_results is not None
    raw: list[Any] = recorded.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in raw if e.name() == "[memory]")
    alive = peak = 0
    history = []
    for at, size in changes:
        alive += size
        peak = max(peak, alive)
        history.append({"time_us": (at - changes[0][0]) / 1000, "bytes": size, "alive_bytes": alive})
    by_op = [
        {"op": row.key, "calls": row.count, "self_bytes": row.self_cpu_memory_usage}
        for row in recorded.key_averages()
        if row.self_cpu_memory_usage
    ]
    by_op.sort(key=lambda row: -row["self_bytes"])
    return {"format": 1, "device": "cpu", "peak_bytes": peak, "operators": by_op, "history": history}


def compile_log(model: nn.Module, inputs: tuple[Any, ...], file: Path) -> str | None:
    """Writes what torch.compile says while it compiles the model: graph breaks, recompilations, fusion, code.

    Returns why it failed, in a line, or None. The failure is in the log too.
    """
    with file.open("w") as log, redirect_stderr(log):  # torch's handlers take the stderr of the moment they are made
        set_logs(
            dynamo=logging.INFO,
            inductor=logging.INFO,
            graph_breaks=True,
            recompiles=True,
            perf_hints=True,
            fusion=True,
            output_code=True,
        )
        failure = None
        try:
            torch.compile(model)(*inputs)
        except Exception as error:
            failure = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            log.write(f"\ntorch.compile failed: {error}\n")
    set_logs()
    torch.compiler.reset()
    return failure
