"""A template: copy it and put your model in. Needed are a class named `Model` and the two functions below it.

Run: ./autokernel optimize --model custom.py

The model here scores images by attention pooling over their patches. Nothing in it needs to have a certain name:
operations are found by what they compute.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AttentionPool(nn.Module):
    """Learned queries look at all patches; their weights are a plain softmax."""

    def __init__(self, dim: int, queries: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, dim))
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.queries @ self.key(x).transpose(1, 2) / x.shape[-1] ** 0.5
        return F.softmax(scores, dim=-1) @ self.value(x)


class Model(nn.Module):
    def __init__(self, dim: int, queries: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(3 * 16 * 16, dim)
        self.norm = nn.LayerNorm(dim)
        self.pool = AttentionPool(dim, queries)
        self.head = nn.Linear(dim, classes)

    def forward(self, patches: Tensor) -> Tensor:
        x = self.norm(F.gelu(self.embed(patches)))
        return self.head(self.pool(x).mean(dim=1))


def get_inputs(device: str = "cpu") -> list[Tensor]:
    """What one call of forward receives. Drawn on the CPU and moved; `device` ("cpu" or "cuda") may choose the size."""
    return [torch.randn(64 if device == "cuda" else 4, 1024, 3 * 16 * 16)]


def get_init_inputs() -> list[object]:
    """What the class is built with."""
    return [1024, 256, 1000]
