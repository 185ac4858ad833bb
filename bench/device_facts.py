"""What the device is and what it reaches: names, memory, cache, and rates measured per device and torch version."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import op_table  # noqa: F401 - puts models/ on the path
import torch

RUNS = 3  # starts that measure; the best counts, since a busy machine measures too little and never too much


def facts(kind: str, work: Path) -> dict[str, Any]:
    """A DeviceFacts document."""
    gpu = kind != "cpu"
    name = gpu_name() if gpu else cpu_name()
    arch = getattr(torch.cuda.get_device_properties(0), "gcnArchName", None) if gpu else None
    return {
        "kind": kind,
        "name": name,
        "torch": torch.__version__,
        "triton": triton_version(),
        "runtime": runtime() if gpu else None,
        "memory_gb": round(memory_bytes(gpu) / 1e9, 1),
        "cache_bytes": cache_bytes(gpu),
        "measured": measured(kind, name, work),
        "datasheet": datasheet(name, arch) if gpu else None,
    }


def measured(kind: str, name: str, work: Path) -> dict[str, Any]:
    import device_peaks

    threads = "" if kind != "cpu" else f"-{torch.get_num_threads()}threads"
    label = "".join(c if c.isalnum() or c in "-." else "_" for c in f"{name}-{torch.__version__}{threads}")
    path = work / f"peaks-{label}.json"
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(path.read_text())
        if known["runs"] >= RUNS:
            return known["best"]
    best = _better(device_peaks.measure("cpu" if kind == "cpu" else "cuda"), known.get("best"))
    with contextlib.suppress(OSError):
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({"runs": known.get("runs", 0) + 1, "best": best}))
        part.replace(path)
    return best


def _better(now: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    if before is None:
        return now
    tflops = {name: max(rate, before["tflops"].get(name, 0.0)) for name, rate in now["tflops"].items()}
    return {"gbps": max(now["gbps"], before["gbps"]), "tflops": tflops}


def datasheet(name: str, arch: str | None) -> dict[str, float] | None:
    import device_peaks

    peaks = device_peaks.lookup(name, arch)
    return None if peaks is None else {"gbps": peaks.gbps, "tflops": peaks.tflops}


def gpu_name() -> str:
    properties = torch.cuda.get_device_properties(0)
    return properties.name or getattr(properties, "gcnArchName", "") or "unknown GPU"


def cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()} ({os.cpu_count()} threads)"
    return platform.processor() or platform.machine()


def triton_version() -> str | None:
    from importlib import metadata

    try:
        return metadata.version("triton")
    except metadata.PackageNotFoundError:
        return None


def runtime() -> str:
    return f"hip {torch.version.hip}" if torch.version.hip else f"cuda {torch.version.cuda}"


def memory_bytes(gpu: bool) -> int:
    if gpu:
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cache_bytes(gpu: bool) -> int:
    """L2 of a GPU; the last level a CPU core sees, 32 MB where the machine does not say."""
    if gpu:
        return int(getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 0))
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with contextlib.suppress(OSError, ValueError):
            text = path.read_text().strip()
            sizes.append(int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[text[-1]])
    return max(sizes) or 32 << 20
