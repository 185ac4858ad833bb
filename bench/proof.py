"""Were the timed calls really made? Outputs that lay in the judge's memory when the clock stopped are looked at.

In a normal batch a few calls' outputs are delivered, in an audit every call's, and one of them, which nobody knew
before, is compared whole with the reference. Who only computes what is delivered needs longer for an audit.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import arena
import torch
import windows
from arena import Arena
from correctness import limits_for
from windows import TimedCase

from op import DTYPES, Op


@dataclass
class Claim:
    """The output of one timed call, copied away to be judged once the clock no longer runs."""

    side: str
    timed: TimedCase
    audit: bool
    offsets: tuple[int, ...]
    shifts: tuple[int | None, ...]  # how its pools lay then
    spikes: torch.Tensor
    out: torch.Tensor


def collect(side: str, timed: TimedCase, block: Arena, order: dict[str, Any], rng: random.Random) -> Claim:
    """One of the outputs that the batch delivered. Called while the candidate stands still."""
    audit, count, secret = bool(order["audit"]), order["count"], order["secret"]
    offsets, kept = arena.schedule(secret, count, timed.starts, windows.KEEP)
    row = rng.randrange(count if audit else len(kept))
    at = row if audit else kept[row]
    numel = 0 if timed.spiked is None else int(torch.Size(timed.order["inputs"][timed.spiked]["shape"]).numel())
    out = block.read(timed.order["outputs"], row)
    return Claim(side, timed, audit, offsets[at], tuple(timed.shifts), arena.spikes(secret, count, numel)[at], out)


def examine(claim: Claim, op: Op, dtype: str, block: Arena, allow_tf32: bool) -> str:
    """'' or what is wrong with it, against the reference on the judge's own copy of the inputs."""
    assert block.pristine is not None
    inputs = windows.window(claim.timed, block.pristine, claim.offsets, claim.shifts, claim.spikes)
    eager = op.eager(*inputs, **claim.timed.case.options)
    return limits_for(op, claim.timed.case, inputs, eager, DTYPES[dtype], allow_tf32).judge(claim.out).detail
