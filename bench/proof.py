"""Were the timed calls really made? Outputs of timed batches, compared byte by byte and with the reference.

In a normal batch a few outputs are kept, and elements of them must come with the answer that stops the clock. In an
audit elements of every output must: whoever only computes what is kept needs longer for an audit.
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

UNFINISHED = (
    "the output was not finished when the clock stopped "
    "(elements asked for then differ from the output delivered afterwards)"
)


class Unproven(Exception):
    """An answer that does not hold what an honest batch would have put there."""


@dataclass
class Claim:
    """Elements or a whole output of one timed call, copied away to be judged once the clock no longer runs."""

    side: str
    timed: TimedCase
    offsets: tuple[int, ...]
    shifts: tuple[int | None, ...]  # how its pools lay then
    out: torch.Tensor  # the whole output, or with `places` only the elements there
    places: list[int] | None = None


def collect(
    side: str, timed: TimedCase, block: Arena, order: dict[str, Any], receipt: str, rng: random.Random
) -> Claim:
    """One of the kept outputs, after all of them were found to hold the very bytes that were named in time."""
    offsets, kept, probes = _schedule(timed, order)
    outs = [block.read(slot) for slot in timed.order["outputs"][: len(kept)]]
    index = torch.tensor(probes, dtype=torch.int64, device=block.device)
    if _hex(torch.cat([out.reshape(-1)[index] for out in outs])) != receipt:
        raise Unproven(UNFINISHED)
    pick = rng.randrange(len(kept))
    return Claim(side, timed, offsets[kept[pick]], tuple(timed.shifts), outs[pick])


def spot(side: str, timed: TimedCase, order: dict[str, Any], receipt: str, dtype: str, rng: random.Random) -> Claim:
    """The elements that one call of an audit left behind; which call, nobody knew."""
    offsets, _, probes = _schedule(timed, order)
    try:
        found = torch.frombuffer(bytearray.fromhex(receipt), dtype=DTYPES[dtype]).reshape(len(offsets), len(probes))
    except (ValueError, RuntimeError) as error:
        raise Unproven(f"an audit's answer holds no element of every output: {error}") from error
    pick = rng.randrange(len(offsets))
    return Claim(side, timed, offsets[pick], tuple(timed.shifts), found[pick].clone(), probes)


def examine(claim: Claim, op: Op, dtype: str, block: Arena, allow_tf32: bool) -> str:
    """'' or what is wrong with it, against the reference on the judge's own copy of the inputs."""
    assert block.pristine is not None
    inputs = windows.window(claim.timed, block.pristine, claim.offsets, claim.shifts)
    eager = op.eager(*inputs, **claim.timed.case.options)
    limit = limits_for(op, claim.timed.case, inputs, eager, DTYPES[dtype], allow_tf32)
    if claim.places is None:
        return limit.judge(claim.out).detail
    index = torch.tensor(claim.places, device=limit.reference.device)
    want, room = limit.reference.reshape(-1)[index], limit.limit.reshape(-1)[index]
    got = claim.out.to(want.device, torch.float64)
    wrong = ~((got - want).abs() <= room) & want.isfinite()
    if not bool(wrong.any()):
        return ""
    at = int(wrong.nonzero()[0, 0])
    return f"flat index {claim.places[at]}: expected {want[at]:.7g}, got {got[at]:.7g}, allowed +-{room[at]:.3g}"


def _schedule(timed: TimedCase, order: dict[str, Any]) -> tuple[list[tuple[int, ...]], list[int], list[int]]:
    return arena.schedule(order["secret"], order["count"], timed.starts, windows.KEEP, windows.PROBES, timed.numel)


def _hex(values: torch.Tensor) -> str:
    return values.cpu().view(torch.uint8).numpy().tobytes().hex()
