"""What timed calls run on: pools of data larger than the cache, of which each call sees a window only a secret tells.

A window is the pool seen from another start, so every call has inputs of its own without a byte being written. Nothing
can be remembered by address or content, nothing computed before the clock starts, and the cache is cold as in a model.

Before each batch every element of the pools is multiplied by a random number of its own: sums, products and orders that
were worked out of them until then hold no longer.

Windows overlap. So that nothing can be remembered of a pool either (sums of its blocks, say), the largest input of a
call holds spikes at secret places while it runs: who skips a part is wrong.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import arena
import torch
from arena import Arena, Buffer
from calibration import Calibration
from trials import Trial, draw

from op import DTYPES, Case, Op

KEEP = 4  # outputs of a batch that are kept, at places the candidate cannot know
CPU_CAP, GPU_CAP = 256 << 20, 2 << 30
CPU_USUAL = 48 << 20  # where the last-level cache is too large to be exceeded: past every core's own cache at least
ALIGN_BYTES = 512
# Calls of an audit, whose outputs must all find room, on a GPU or not; on a GPU in a part of its memory.
AUDIT_CALLS, AUDIT_BYTES, AUDIT_PART = 2000, {True: 2 << 30, False: 64 << 20}, 16


@dataclass
class TimedCase:
    """One shape of a timing request, as it lies in the arena."""

    name: str
    case: Case
    weight: float
    order: dict[str, Any]  # what the candidate is told: pools, outputs, options
    pools: list[Buffer | None]
    starts: list[int]
    bases: list[torch.Tensor | None]  # of floating-point pools: what is multiplied anew before each batch
    signed: bool  # whether the numbers may be negative
    spiked: int | None  # which input holds spikes
    bytes_a_call: int  # inputs and output
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def count(self) -> int:
        """Calls a batch."""
        return self.calibration.count

    @property
    def audited(self) -> int:
        """Calls of an audit: all of their outputs must find room."""
        return min(self.count, self.order["outputs"]["shape"][0])


def wanted_bytes(cache_bytes: int, gpu: bool) -> int:
    """Pool bytes for all shapes together: twice the cache, within reason."""
    if gpu:
        return min(GPU_CAP, max(4 * cache_bytes, 256 << 20))
    return 2 * cache_bytes if 2 * cache_bytes <= CPU_CAP else CPU_USUAL


def repeats(inputs: Any, wanted: int, gpu: bool) -> int:
    """How many copies of the inputs make a pool: at least three, unless memory forbids."""
    size = sum(t.numel() * t.itemsize for t in inputs if t is not None) or 1
    return max(2, min(max(3, -(-wanted // size)), (GPU_CAP if gpu else CPU_CAP) // size))


def slots(out: torch.Tensor, gpu: bool) -> int:
    """Outputs that the arena has room for: an audit delivers that many."""
    room = min(AUDIT_BYTES[gpu], torch.cuda.mem_get_info()[1] // AUDIT_PART if gpu else AUDIT_BYTES[gpu])
    return max(KEEP, min(AUDIT_CALLS, room // max(1, out.numel() * out.itemsize)))


def bytes_needed(inputs: Any, copies: int, out: torch.Tensor, gpu: bool) -> int:
    size = sum(_pool_numel(t, copies) * t.itemsize + 2 * arena.GUARD + 2 * arena.ALIGN for t in inputs if t is not None)
    return size + slots(out, gpu) * out.numel() * out.itemsize + 2 * arena.GUARD + 2 * arena.ALIGN


def lay_out(
    name: str, op: Op, case: Case, weight: float, inputs: Any, copies: int, out: torch.Tensor, block: Arena
) -> TimedCase:
    pools: list[Buffer | None] = []
    told: list[dict[str, Any] | None] = []
    starts = []
    for argument, tensor in zip(op.arguments, inputs, strict=False):
        if tensor is None:
            pools.append(None)
            told.append(None)
            continue
        n, step = tensor.numel(), ALIGN_BYTES // tensor.itemsize
        total = _pool_numel(tensor, copies)
        pool = block.reserve(f"{argument} (timed)", [total], tensor.dtype)
        _fill(arena.view(block.flat, pool), tensor.contiguous().reshape(-1))
        pools.append(pool)
        starts.append((total - n) // step + 1)
        told.append(
            {
                "pool": pool,
                "shape": list(tensor.shape),
                "strides": list(tensor.contiguous().stride()),
                "step": step,
                "starts": starts[-1],
            }
        )
    outputs = block.slot("the outputs (timed)", [slots(out, block.device.type == "cuda"), *out.shape], out.dtype)
    spiked = _largest(inputs)
    order = {"do": "plan", "name": name, "inputs": told, "outputs": outputs, "options": dict(case.options)}
    order |= {"keep": KEEP, "spiked": spiked}
    used = sum(t.numel() * t.itemsize for t in (*inputs, out) if t is not None)
    views = [None if pool is None else arena.view(block.flat, pool) for pool in pools]
    bases = [lying.clone() if lying is not None and lying.is_floating_point() else None for lying in views]
    return TimedCase(name, case, weight, order, pools, starts, bases, _takes_every_sign(op, case, inputs), spiked, used)


def _takes_every_sign(op: Op, case: Case, inputs: Any) -> bool:
    """Whether plain PyTorch stays finite with other signs; a logarithm does not. Where nobody knows, they stay."""
    if op.guessed:
        return False
    drawn = [t if t is None or not t.is_floating_point() else t * (1 - 2 * torch.randint_like(t, 2)) for t in inputs]
    return bool(op.eager(*drawn, **case.options).isfinite().all())


def _largest(inputs: Any) -> int | None:
    """The input that takes most reading."""
    sizes = {at: t.numel() for at, t in enumerate(inputs) if t is not None and t.is_floating_point() and t.numel()}
    return max(sizes, key=lambda at: sizes[at]) if sizes else None


def _fill(pool: torch.Tensor, data: torch.Tensor) -> None:
    """Copies that all differ, or content would come again: numbers scaled, indices rolled, each by its own amount.

    Drawing everything anew would take longer than the measurement. Scales stay under 1: fp16 must not overflow.
    """
    n = max(1, data.numel())
    copies = -(-pool.numel() // n)
    if data.is_floating_point():
        scales = torch.rand(copies, 1, device=data.device) * 0.3 + 0.7
        made = (data.float() * scales).to(data.dtype)  # a scale rounded to fp16 first would come again
    else:
        shifts = torch.randint(n, (copies, 1), device=data.device)
        made = data[(torch.arange(n, device=data.device) + shifts) % n]
    pool.copy_(made.reshape(-1)[: pool.numel()])


def refresh(timed: TimedCase, block: Arena, rng: random.Random) -> None:
    """Other data at the same addresses, in the judge's copy and in the arena: whoever looked, or recorded calls, before
    knows nothing of what they will read. Numbers are multiplied, each by its own, indices rolled."""
    assert block.pristine is not None
    gpu, factors = block.device.type == "cuda", dict[torch.dtype, torch.Tensor]()
    chunk = 1 << 24 if gpu else 1 << 17  # on a CPU, what a core's cache holds
    for pool, base in zip(timed.pools, timed.bases, strict=True):
        if pool is None:
            continue
        ours, theirs = arena.view(block.pristine, pool), arena.view(block.flat, pool)
        if base is None:
            ours.copy_(torch.roll(ours, rng.randrange(ours.numel())))
            theirs.copy_(ours)
            continue
        if base.dtype not in factors:  # drawing one for each element would take several times as long
            factors[base.dtype] = _factors(base, 4 * chunk, timed.signed, rng)
        for start in range(0, ours.numel(), chunk):
            part = slice(start, min(start + chunk, ours.numel()))
            drawn = rng.randrange(3 * chunk)
            torch.mul(base[part], factors[base.dtype][drawn : drawn + part.stop - start], out=ours[part])
            theirs[part].copy_(ours[part])


def _factors(like: torch.Tensor, count: int, signed: bool, rng: random.Random) -> torch.Tensor:
    """From 1/2 to 1, exact in every dtype; with a sign where the operation may take every sign."""
    generator = torch.Generator(like.device).manual_seed(rng.getrandbits(62))
    words = torch.empty(-(-count // 8), dtype=torch.int64, device=like.device)
    drawn = words.random_(-(2**63), None, generator=generator).view(torch.int8)[:count]
    sizes = drawn.to(like.dtype).abs_().add_(128).div_(256)
    return torch.where(drawn < 0, -sizes, sizes) if signed else sizes


def window(
    timed: TimedCase, pristine: torch.Tensor, offsets: tuple[int, ...], spikes: torch.Tensor | None = None
) -> list[torch.Tensor | None]:
    """The inputs of one call, copied from the judge's own pools as they lie now."""
    at = iter(offsets)
    found: list[torch.Tensor | None] = []
    for pool, told in zip(timed.pools, timed.order["inputs"], strict=True):
        if pool is None:
            found.append(None)
        else:
            lying = arena.view(pristine, pool)
            base = lying.storage_offset() + next(at) * told["step"]
            found.append(torch.as_strided(lying, told["shape"], told["strides"], base).clone())
    if timed.spiked is not None and spikes is not None:
        spiked = found[timed.spiked]
        assert spiked is not None
        places = spikes.to(spiked.device)
        spiked.view(-1)[places] = arena.raised(spiked.view(-1)[places])
    return found


def _pool_numel(tensor: torch.Tensor, copies: int) -> int:
    return tensor.numel() * copies + 64 * ALIGN_BYTES // tensor.itemsize  # small weights get 64 more places to start


def prepare(
    op: Op, cases: Sequence[tuple[Case, float]], dtype: str, device: torch.device, cache_bytes: int, rng: random.Random
) -> tuple[Arena, list[TimedCase]]:
    """Pools for every case in one block, sealed, so that writing into an input is seen."""
    gpu = device.type == "cuda"
    generator = torch.Generator(device).manual_seed(rng.getrandbits(62))
    wanted = wanted_bytes(cache_bytes, gpu) // max(1, len(cases))
    made = []
    for case, weight in cases:
        inputs = draw(op, Trial(case, DTYPES[dtype]), generator)
        made.append((case, weight, inputs, repeats(inputs, wanted, gpu), op.eager(*inputs, **case.options)))
    need = sum(bytes_needed(inputs, copies, out, gpu) for _, _, inputs, copies, out in made)
    block = Arena(device, max(need, arena.CPU_BYTES) if not gpu else need)
    timed = [
        lay_out(f"case {at}", op, case, weight, inputs, copies, out, block)
        for at, (case, weight, inputs, copies, out) in enumerate(made)
    ]
    block.seal()
    return block, timed
