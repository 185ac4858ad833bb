"""A model's inputs, other in every pass: what was remembered of an earlier one answers no later one.

Floating-point inputs are scaled as a whole, of integers (tokens) some are replaced by others of the same input, so that
both stay what the model expects. Masks stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

SCALE = 0.1  # up or down
REPLACED = 0.5  # of the integers


def varied(inputs: Sequence[Any], secret: int) -> list[Any]:
    """New tensors of the same shapes, dtypes and device; whatever is no tensor, as it is."""
    draw = torch.Generator().manual_seed(secret)
    return [_varied(x, draw) if isinstance(x, torch.Tensor) else x for x in inputs]


def _varied(x: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    if x.is_floating_point() or x.is_complex():
        return x * (1 + SCALE * (2 * float(torch.rand((), generator=draw)) - 1))
    if x.dtype == torch.bool or x.numel() < 2:
        return x
    n = x.numel()
    replaced = torch.rand(n, generator=draw) < REPLACED
    source = torch.where(replaced, torch.randint(n, (n,), generator=draw), torch.arange(n))
    return x.reshape(-1)[source.to(x.device)].view(x.shape)
