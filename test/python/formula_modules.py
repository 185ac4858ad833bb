"""Small modules around a formula, for trying out what is recognised."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[2] / "kernels"))

from autokernel_sites import find_sites


class Norm(nn.Module):
    """A module with one weight around a formula."""

    def __init__(self, formula: Callable[[Tensor, Tensor], Tensor], width: int = 64) -> None:
        super().__init__()
        self.formula = formula
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x, self.weight)


class Affine(nn.Module):
    def __init__(self, formula: Callable[[Tensor, Tensor, Tensor], Tensor], width: int = 64) -> None:
        super().__init__()
        self.formula = formula
        self.shift, self.gain = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x, self.gain, self.shift)


class Gated(nn.Module):
    def __init__(self, formula: Callable[[Tensor, Tensor], Tensor], bias: bool = False, width: int = 32) -> None:
        super().__init__()
        self.formula = formula
        self.x1, self.x2, self.x3 = (nn.Linear(width, width, bias=bias) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.x1(self.formula(self.x2(x), self.x3(x)))


class Bare(nn.Module):
    def __init__(self, formula: Callable[..., Tensor]) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x)


def rms(x: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def found(model: nn.Module) -> list[tuple[str, str]]:
    return [(site.op, site.path) for site in find_sites(model)]
