"""How a module or function is tried out: called on random numbers, with random copies for its parameters.

Parameters are never touched, and the copies matter: a weight of 1 and a bias of 0 would hide how they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

Run = Callable[[Tensor], object]


@dataclass(frozen=True)
class Weight:
    """A parameter by its path below the module, or the first or second half of its rows."""

    path: str
    half: int | None = None

    def of(self, tensor: Tensor) -> Tensor:
        return tensor if self.half is None else tensor.chunk(2)[self.half]


@dataclass(frozen=True)
class Found:
    """What something was found to compute; for a module with its parameters in the operation's order."""

    op: str
    weights: tuple[Weight | None, ...] = ()
    options: dict[str, object] = field(default_factory=dict)
    ranks: frozenset[int] | None = None  # of the inputs for which it was confirmed; None is any
    arguments: bool = False  # its weights are not its own but come with every call,
    eps_argument: bool = False  # and so does eps


class Source:
    """Random numbers from a generator of their own, so that nobody's seed is disturbed."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(20)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def weight(self, like: Tensor) -> Tensor:
        """Matrices that keep the scale of what goes through them; vectors around one."""
        if like.dim() < 2:
            return 1 + 0.5 * self.normal(*like.shape)
        drawn = torch.rand(like.shape, generator=self.generator, device=self.device)
        return drawn.sub_(0.5).mul_(3.5 / like.shape[-1] ** 0.5)


def stand_ins(module: nn.Module, source: Source, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Tensors in place of everything the module holds: parameters drawn, buffers copied."""
    drawn = {name: source.weight(p).to(dtype) for name, p in module.named_parameters()}
    copied = {name: b.to(dtype) if b.is_floating_point() else b.clone() for name, b in module.named_buffers()}
    return drawn | {name: b.clone() for name, b in copied.items()}


def with_tensors(module: nn.Module, tensors: dict[str, Tensor]) -> Run:
    return lambda x: functional_call(module, tensors, (x,))


def attempt(run: Run, x: Tensor) -> Tensor | None:
    """The output, or None when there is none or the input was changed on the way."""
    given = x.clone()
    try:
        out = run(given)
    except Exception:
        return None  # whatever went wrong, it is not the operation that was tried
    return out if isinstance(out, Tensor) and torch.equal(given, x) else None


def ranks_where(
    run: Run, rows: Tensor, expected: Tensor, leading: Sequence[tuple[int, ...]], allowed: float
) -> frozenset[int]:
    """The ranks of input for which the rows come out as expected; leading dimensions only arrange the rows."""
    ranks = set()
    for lead in leading:
        out = attempt(run, rows.reshape(*lead, rows.shape[-1]))
        if (
            out is not None
            and out.shape == (*lead, expected.shape[-1])
            and close(out.reshape(expected.shape), expected, allowed)
        ):
            ranks.add(len(lead) + 1)
    return frozenset(ranks)


def close(out: Tensor, expected: Tensor, allowed: float) -> bool:
    """Within a fraction of the largest number in each row; NaN only where it is expected."""
    if out.shape != expected.shape or not out.is_floating_point():
        return False
    out, expected = out.double(), expected.double()
    bound = allowed * expected.abs().nan_to_num().amax(-1, keepdim=True)
    same = (out - expected).abs() <= bound
    return bool((same | (out.isnan() & expected.isnan())).all())
