"""Runs a model under the profiler and makes its profile: load, warm up, clock, record, attribute."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import device_peaks
import torch
from attribute import Owner, attribute, ranges_of_sites
from model_loader import LoadedModel, load
from profile_extras import compile_log, memory_snapshot
from profile_rows import Peaks, make_rows
from site_ranges import SiteRanges
from torch.profiler import ProfilerActivity, profile, schedule
from trace_events import Node, nest, read_kineto, spent_on_cpu, spent_on_gpu

from autokernel_sites import find_sites

CLOCK_SECONDS = 5.0  # enough for a median; a slow model's forwards are not all needed twice


class DeviceError(Exception):
    """The machine cannot do what was asked."""


@dataclass(frozen=True)
class Request:
    file: str
    class_name: str | None
    input_shape: tuple[int, ...] | None
    dtype: str
    device: str  # cpu, cuda or rocm
    seed: int
    warmup: int
    iterations: int
    trace: Path | None = None
    memory_snapshot: Path | None = None
    compile_log: Path | None = None


def profile_model(request: Request, warn: Callable[[str], None]) -> dict[str, Any]:
    """The profile, in the form of `Profile` in src/schema.ts. Raises ModelError or DeviceError."""
    check_device(request.device)
    measured = device_peaks.measure(request.device)  # first: it needs memory too
    loaded = load(request.file, request.class_name, request.input_shape, request.dtype, request.device, request.seed)
    with torch.no_grad():
        wall_us = _clock(loaded, request)
        rows = _rows(request, loaded, Peaks(measured["gbps"], measured["tflops"]))
        if request.memory_snapshot:
            memory_snapshot(loaded.model, loaded.inputs, loaded.device, request.memory_snapshot)
        if request.compile_log:
            failure = compile_log(loaded.model, loaded.inputs, request.compile_log)
            if failure:
                warn(f"torch.compile failed, see {request.compile_log}: {failure}")
    return {
        "format": 1,
        "model": {
            "file": request.file,
            "class_name": request.class_name,
            "input_shape": list(request.input_shape) if request.input_shape else None,
            "dtype": request.dtype,
            "device": request.device,
            "seed": request.seed,
        },
        "model_class": loaded.class_name,
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "device_name": device_name(loaded.device),
        "torch": torch.__version__,
        "total_us": sum(row["time_us"] for row in rows),
        "wall_us": wall_us,
        "rows": rows,
    }


def check_device(device: str) -> None:
    """Raises DeviceError unless torch can compute there."""
    if device == "cpu":
        return
    built = "rocm" if torch.version.hip else "cuda" if torch.version.cuda else "cpu"
    if built != device:
        raise DeviceError(
            f"--device {device}: expected a torch built for it, found {torch.__version__}, built for {built}"
        )
    if not torch.cuda.is_available():
        raise DeviceError(
            f"--device {device}: torch {torch.__version__} finds no GPU; check its driver or use --device cpu"
        )


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return properties.name or getattr(properties, "gcnArchName", "GPU")  # AMD's name may be empty
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _clock(loaded: LoadedModel, request: Request) -> float:
    """The median forward of the model as it is, nothing wrapped and nobody watching, in microseconds."""
    for _ in range(request.warmup):
        _forward(loaded)
    took: list[float] = []
    while len(took) < request.iterations and sum(took) < CLOCK_SECONDS:
        start = time.perf_counter()
        _forward(loaded)
        took.append(time.perf_counter() - start)
    return statistics.median(took) * 1e6


def _rows(request: Request, loaded: LoadedModel, peaks: Peaks) -> list[dict[str, Any]]:
    recorded, noted = _record(request, loaded)
    if request.trace:
        recorded.export_chrome_trace(str(request.trace))
    assert recorded.profiler is not None and recorded.profiler.kineto_results is not None
    events = read_kineto(recorded.profiler.kineto_results.events())
    nodes = nest(events)
    spent = spent_on_cpu(nodes) if loaded.device.type == "cpu" else spent_on_gpu(events, nodes)
    tallies = attribute(nodes, spent, match_calls(ranges_of_sites(nodes), noted))
    return make_rows(tallies, request.iterations, peaks)


def _record(request: Request, loaded: LoadedModel) -> tuple[profile, dict[str, list[Owner]]]:
    activities = [ProfilerActivity.CPU]
    if loaded.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    ranges = SiteRanges(loaded.model, find_sites(loaded.model))
    steps = schedule(
        wait=0, warmup=1, active=request.iterations, repeat=1
    )  # the profiler's own start-up is not counted
    options = {"activities": activities, "record_shapes": True, "acc_events": True, "schedule": steps}
    with ranges.installed(), profile(**options) as recorded:
        for step in range(1 + request.iterations):
            if step == 1:
                ranges.start()
            _forward(loaded)  # to its end: a kernel left over from the warm-up would have no launch in the record
            recorded.step()
    return recorded, ranges.calls()


def match_calls(ranges: dict[str, list[Node]], noted: dict[str, list[Owner]]) -> dict[int, Owner]:
    """What each range computed: a site's ranges and its noted calls come in the same order."""
    owners: dict[int, Owner] = {}
    for name, nodes in ranges.items():
        calls = noted.get(name, [])
        if len(calls) != len(nodes):
            raise RuntimeError(f"{name}: the profiler recorded {len(nodes)} ranges of {len(calls)} calls")
        owners.update((id(node), call) for node, call in zip(nodes, calls, strict=True))
    return owners


def _forward(loaded: LoadedModel) -> None:
    loaded.model(*loaded.inputs)
    if loaded.device.type == "cuda":
        torch.cuda.synchronize(loaded.device)
