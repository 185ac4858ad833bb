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
    inputs: list[torch.Tensor | None]  # as they lay then, from the judge's own copy
    out: torch.Tensor


def collect(side: str, timed: TimedCase, block: Arena, order: dict[str, Any], rng: random.Random) -> Claim:
    """One of the outputs that the batch delivered. Called while the candidate stands still."""
    audit, count, secret = bool(order["audit"]), order["count"], order["secret"]
    offsets, kept = arena.schedule(secret, count, timed.starts, windows.KEEP)
    row = rng.randrange(count if audit else len(kept))
    at = row if audit else kept[row]
    numel = 0 if timed.spiked is None else int(torch.Size(timed.order["inputs"][timed.spiked]["shape"]).numel())
    out = block.read(timed.order["outputs"], row)
    assert block.pristine is not None
    inputs = windows.window(timed, block.pristine, offsets[at], arena.spikes(secret, count, numel)[at])
    return Claim(side, timed, audit, inputs, out)


def examine(claim: Claim, op: Op, dtype: str, allow_tf32: bool) -> str:
    """'' or what is wrong with it, against the reference."""
    eager = op.eager(*claim.inputs, **claim.timed.case.options)
    return limits_for(op, claim.timed.case, claim.inputs, eager, DTYPES[dtype], allow_tf32).judge(claim.out).detail
