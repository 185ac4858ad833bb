"""How fast a device can be: datasheet numbers by name, an estimate for unknown names, and a short measurement."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Peaks:
    """Dense fp16/bf16 TFLOP/s, memory GB/s and L2 (AMD: last-level) cache of one device."""

    name: str
    tflops: float
    gbps: float
    cache_mb: float
    estimated: bool = False


_TABLE = {
    "H100": Peaks("H100 SXM", 989.5, 3352, 50),
    "H100 PCIE": Peaks("H100 PCIe", 756, 2039, 50),
    "H100 NVL": Peaks("H100 NVL", 835, 3938, 60),
    "H200": Peaks("H200", 989.5, 4800, 60),
    "H200 NVL": Peaks("H200 NVL", 835, 4800, 60),
    "GH200": Peaks("GH200", 989.5, 4000, 60),
    "B200": Peaks("B200", 2250, 8000, 126),
    "A100": Peaks("A100 SXM", 312, 2039, 40),
    "A100 SXM4 40GB": Peaks("A100 SXM 40GB", 312, 1555, 40),
    "A100 PCIE": Peaks("A100 PCIe", 312, 1935, 40),
    "A100 PCIE 40GB": Peaks("A100 PCIe 40GB", 312, 1555, 40),
    "V100": Peaks("V100", 125, 900, 6),
    "T4": Peaks("T4", 65, 320, 4),
    "L40S": Peaks("L40S", 362, 864, 48),
    "L40": Peaks("L40", 181, 864, 48),
    "L4": Peaks("L4", 121, 300, 48),
    "A10": Peaks("A10", 125, 600, 6),
    "A10G": Peaks("A10G", 70, 600, 6),
    "RTX 4090": Peaks("RTX 4090", 330, 1008, 72),
    "RTX 4080": Peaks("RTX 4080", 305, 717, 64),
    "RTX 3090": Peaks("RTX 3090", 142, 936, 6),
    "RTX 3080": Peaks("RTX 3080", 119.5, 760, 5),
    "MI300X": Peaks("MI300X", 1307, 5300, 256),
    "MI325X": Peaks("MI325X", 1307, 6000, 256),
    "MI350X": Peaks("MI350X", 2300, 8000, 256),
    "MI355X": Peaks("MI355X", 2300, 8000, 256),
}
_ARCHES = {"gfx942": "MI300X", "gfx950": "MI350X"}  # AMD's name can be empty; the smallest device of the family
_MAKERS = {"NVIDIA", "AMD", "GEFORCE", "INSTINCT", "TESLA", "GRAPHICS"}
_VARIANTS = re.compile(r"\d+GB|HBM\d?E?|SXM\d?|PCIE|OAM|NVL|VF")  # words that do not name another chip

# Per compute capability: dense fp16 FMAs per SM and clock, GB/s per SM, L2 MB per SM, as that generation's boards have.
_PER_SM = {
    (7, 0): (512, 11.2, 0.075),
    (7, 5): (512, 8.0, 0.1),
    (8, 0): (1024, 18.9, 0.37),
    (8, 6): (512, 11.4, 0.073),
    (8, 9): (512, 7.9, 0.56),
    (9, 0): (2048, 25.4, 0.38),
    (10, 0): (4096, 54.0, 0.85),
    (12, 0): (512, 10.5, 0.56),
}


def lookup(name: str, arch: str | None = None) -> Peaks | None:
    """The datasheet's numbers, matched by whole words ('L4' is not 'L40', a laptop or MIG part is not its namesake)."""
    words = {word for word in re.split(r"[\s\-_/,]+", name.upper()) if word and word not in _MAKERS}
    if words:
        fits = [key for key in _TABLE if _fits(set(key.split()), words)]
        return _TABLE[max(fits, key=lambda key: len(key.split()))] if fits else None
    family = _ARCHES.get((arch or "").split(":")[0].lower())
    return _TABLE[family] if family else None


def estimate(name: str, sm_count: int, clock_mhz: float, capability: tuple[int, int]) -> Peaks:
    """For an NVIDIA device that the table does not have: by the nearest generation not newer than it."""
    known = [c for c in sorted(_PER_SM) if c <= tuple(capability)] or [min(_PER_SM)]
    fmas, gbps, cache = _PER_SM[known[-1]]
    tflops = 2 * fmas * sm_count * clock_mhz * 1e6 / 1e12
    return Peaks(name, round(tflops, 1), round(gbps * sm_count), round(cache * sm_count, 1), estimated=True)


def measure(device: str) -> dict:
    """Rates that a large copy (bytes read plus written) and large products reach now; the CPU takes under a second."""
    gpu = device != "cpu"
    target = "cuda" if gpu else "cpu"  # ROCm's torch says cuda too
    tflops = {}
    for dtype, size in _products(gpu):
        a, b = (torch.randn(size, size, device=target).to(dtype) for _ in range(2))
        out = torch.empty(size, size, device=target, dtype=dtype)
        with _full_precision():
            seconds = _best(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), gpu)
        tflops[_NAMES[dtype]] = 2 * size**3 / seconds / 1e12
        del a, b, out
    count = (1 << 28) if gpu else (1 << 26)  # floats: 1 GiB, or 256 MiB, each way: past any cache
    source, copy = torch.zeros(count, device=target), torch.ones(count, device=target)
    gbps = 8 * count / _best(lambda: copy.copy_(source), gpu) / 1e9
    return {"gbps": gbps, "tflops": tflops}


_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def _products(gpu: bool) -> tuple[tuple[torch.dtype, int], ...]:
    if gpu:
        return (torch.float32, 4096), (torch.bfloat16, 8192), (torch.float16, 8192)
    return (torch.float32, 1024), (torch.bfloat16, 1024), (torch.float16, 512)  # fp16 products crawl on many CPUs


def _fits(key: set[str], words: set[str]) -> bool:
    return key <= words and all(_VARIANTS.fullmatch(word) for word in words - key)


class _full_precision:
    """fp32 products as fp32, whatever the process has chosen."""

    def __enter__(self) -> None:
        self.before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")

    def __exit__(self, *_: object) -> None:
        torch.set_float32_matmul_precision(self.before)


def _best(run: Callable[[], object], gpu: bool) -> float:
    """Seconds of the fastest of several runs; interference only ever adds."""
    run()
    times = []
    deadline = time.perf_counter() + 0.1
    while len(times) < (10 if gpu else 3) or (time.perf_counter() < deadline and len(times) < 50):
        if gpu:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        else:
            before = time.perf_counter()
            run()
            times.append(time.perf_counter() - before)
    return min(times)
