"""The least time the device can need for a call: its bytes at the measured bandwidth, or its operations at theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from op import DTYPES, Case, Op


def limit(op: Op, case: Case, dtype: str, measured: Mapping[str, Any]) -> tuple[str, float, float, float]:
    """(bound, bytes, flops, microseconds) of one call."""
    moved = op.bytes_moved(case.shape, DTYPES[dtype], case.options)
    work = op.flops(case.shape, case.options)
    rates = measured["tflops"]
    rate = rates.get(dtype) or max(rates.values())
    memory_us, compute_us = moved / (measured["gbps"] * 1e3), work / (rate * 1e6)
    return ("memory" if memory_us >= compute_us else "compute"), moved, work, max(memory_us, compute_us)


def weighted(limits: Sequence[tuple[str, float, float, float]], weights: Sequence[float]) -> dict[str, Any]:
    """One Roofline over shapes; the bound is that of the heaviest."""
    total = sum(weights) or 1.0
    share = [w / total for w in weights]
    heaviest = max(range(len(limits)), key=lambda at: share[at])
    return {
        "bound": limits[heaviest][0],
        "bytes": sum(s * item[1] for s, item in zip(share, limits, strict=True)),
        "flops": sum(s * item[2] for s, item in zip(share, limits, strict=True)),
        "limit_us": sum(s * item[3] for s, item in zip(share, limits, strict=True)),
    }
