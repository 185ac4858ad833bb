"""A model's inputs, other in every pass: what was remembered of an earlier one answers no later one.

Floating-point inputs are scaled, each element by its own factor; of integers (tokens) some are replaced by words, which
are others that the model's own inputs hold, so that both stay what the model expects. Masks stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

SCALE = 0.1  # up or down
REPLACED = 0.5  # of the integers; of very few all
FEW = 4
MOST_WORDS = 1 << 18
Words = Sequence[torch.Tensor | None]  # of each input: integers to choose from


def is_words(x: object) -> bool:
    return isinstance(x, torch.Tensor) and x.dtype in (torch.int64, torch.int32) and x.numel() > 0


def words_of(draws: Sequence[Sequence[Any]]) -> list[torch.Tensor | None]:
    """Of several draws of a model's inputs, position by position."""
    found: list[torch.Tensor | None] = []
    for position in zip(*draws, strict=True):
        words = all(map(is_words, position))
        found.append(torch.cat([x.reshape(-1) for x in position])[:MOST_WORDS] if words else None)
    return found


def varied(inputs: Sequence[Any], words: Words, secret: int) -> list[Any]:
    """New tensors of the same shapes, dtypes and device; whatever is no tensor, as it is."""
    return [
        _varied(x, of_it, secret + at) if isinstance(x, torch.Tensor) else x
        for at, (x, of_it) in enumerate(zip(inputs, words, strict=True))
    ]


def _varied(x: torch.Tensor, words: torch.Tensor | None, secret: int) -> torch.Tensor:
    draw = torch.Generator(x.device).manual_seed(secret)
    if x.is_floating_point():
        by = torch.rand(x.shape, generator=draw, device=x.device, dtype=torch.float32)
        return (x * (1 + SCALE * (2 * by - 1))).to(x.dtype)
    if words is None:
        return x
    other = words[torch.randint(len(words), x.shape, generator=draw, device=x.device)]
    if x.numel() < FEW:
        return other
    return torch.where(torch.rand(x.shape, generator=draw, device=x.device) < REPLACED, other, x)
