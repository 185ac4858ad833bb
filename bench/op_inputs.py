"""Input recipes: data in which a wrong mean, a wrong eps, a lost tail or an ignored weight moves the output visibly.

Everything is drawn on the generator's device, in fp32, and rounded to the operation's dtype at the end.
"""

from __future__ import annotations

import torch

from op import Shape


def uniform(g: torch.Generator, low: float, high: float, *size: int) -> torch.Tensor:
    return torch.rand(size, generator=g, device=g.device) * (high - low) + low


def normal(g: torch.Generator, *size: int) -> torch.Tensor:
    return torch.randn(size, generator=g, device=g.device)


def signs(g: torch.Generator, *size: int) -> torch.Tensor:
    return torch.randint(0, 2, size, generator=g, device=g.device).float() * 2 - 1


def log_uniform(g: torch.Generator, low: float, high: float, *size: int) -> torch.Tensor:
    """Magnitudes spread evenly over the decades between low and high."""
    span = torch.tensor([low, high]).log()
    return uniform(g, float(span[0]), float(span[1]), *size).exp()


def weights(g: torch.Generator, n: int) -> torch.Tensor:
    """Per-column factors away from 0 and 1, of both signs: no column may be skipped and no factor assumed."""
    return signs(g, n) * uniform(g, 0.5, 2.0, n)


def uneven_rows(g: torch.Generator, rows: int, cols: int) -> torch.Tensor:
    """Unit-size noise around a row's own offset, a tenth of each row three times as strong, and one spike.

    In plain noise a tenth or even half of a row predicts its mean and variance to within bf16's precision, so a
    kernel may skip the rest unseen. Here each row's strong tenth and its spike sit at a place of their own.
    """
    x = normal(g, rows, cols)
    if rows * cols == 0:
        return x
    width = max(1, cols // 10)
    start = torch.randint(0, cols, (rows, 1), generator=g, device=g.device)
    start[::4] = cols - width  # every fourth row has it at the end, where a lost tail is
    at = torch.arange(cols, device=g.device)
    inside = (at >= start) & (at < start + width) | (at < start + width - cols)  # past the end it goes on in front
    x = torch.where(inside, x * 3, x) + normal(g, rows, 1)
    spike = torch.randint(0, cols, (rows, 1), generator=g, device=g.device)
    return x.scatter(1, spike, signs(g, rows, 1) * (4 + 0.25 * cols**0.5))


def matrix(g: torch.Generator, rows: int, cols: int, scale: float) -> torch.Tensor:
    """Noise with a small mean: sums over it neither cancel wholly nor hide what is missing."""
    return (normal(g, rows, cols) + 0.25) * scale


def cast(dtype: torch.dtype, *tensors: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    """Rounds to the dtype, keeping within its finite range."""
    top = torch.finfo(dtype).max
    return tuple(None if t is None else t.clamp(-top, top).to(dtype) for t in tensors)


def unknown_kind(op: str, kind: str) -> ValueError:
    return ValueError(f"{op}: no inputs of kind '{kind}'")


def rows_cols(shape: Shape) -> tuple[int, int]:
    rows, cols = shape
    return rows, cols
