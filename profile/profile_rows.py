"""From owners' times to a profile's rows: shares, what the device's peaks allow, what a speed-up would give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from attribute import Owner, Tally
from classify import OPERATIONS
from op_costs import bytes_moved, flops

ITEMSIZE = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2}
SPEEDUPS = (1.5, 2, 3, 5)


@dataclass(frozen=True)
class Peaks:
    """What the device was measured to reach."""

    gbps: float
    tflops: Mapping[str, float]


@dataclass
class _Group:
    ns: int
    calls: int
    sites: list[str]


def make_rows(tallies: Mapping[Owner, Tally], iterations: int, peaks: Peaks) -> list[dict[str, Any]]:
    """One row per operation x shape x options x dtype, per forward pass, the longest first. Shares sum to 1."""
    groups: dict[Owner, _Group] = {}
    for owner, tally in tallies.items():
        group = groups.setdefault(replace(owner, site=""), _Group(0, 0, []))
        group.ns += tally.ns
        group.calls += len(tally.calls)
        if owner.site and owner.site not in group.sites:
            group.sites.append(owner.site)
    total = sum(group.ns for group in groups.values())
    rows = [_row(owner, group, total, iterations, peaks) for owner, group in groups.items()]
    return sorted(rows, key=lambda row: (-row["time_us"], row["name"], row["shape"]))


def _row(owner: Owner, group: _Group, total: int, iterations: int, peaks: Peaks) -> dict[str, Any]:
    calls, share = group.calls / iterations, group.ns / total if total else 0.0
    bound, limit = _roofline(owner, peaks)
    return {
        "op": owner.op,
        "name": owner.name,
        "shape": list(owner.shape),
        "options": dict(owner.options),
        "dtype": owner.dtype,
        "calls": calls,
        "time_us": group.ns / iterations / 1000,
        "share": share,
        "bound": bound,
        "limit_us": None if limit is None else limit * calls,
        "amdahl": {f"{s:g}": amdahl(share, s) for s in SPEEDUPS},
        "sites": group.sites,
    }


def amdahl(share: float, speedup: float) -> float:
    """How much faster the whole becomes when `share` of it becomes `speedup` times faster."""
    return 1 / (1 - share * (1 - 1 / speedup))


def _roofline(owner: Owner, peaks: Peaks) -> tuple[str | None, float | None]:
    """What bounds one call, and the microseconds the peaks allow it."""
    item, tflops = ITEMSIZE.get(owner.dtype), peaks.tflops.get(owner.dtype)
    if owner.op not in OPERATIONS or not owner.shape or not item or not tflops:
        return None, None
    options = dict(owner.options)
    memory = bytes_moved(owner.op, owner.shape, item, options) / (peaks.gbps * 1e3)
    compute = flops(owner.op, owner.shape, options) / (tflops * 1e6)
    return ("memory" if memory >= compute else "compute"), max(memory, compute) * owner.batch
