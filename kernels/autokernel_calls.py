"""The call of an operation for tensors as models hold them: inputs, options, shape, and how the output goes back.

Every function here answers None when the operation is not defined for the tensors, so that the caller falls back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

DTYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
PLAIN = (Tensor, nn.Parameter)  # a subclass may mean anything by its operations


class Call(NamedTuple):
    inputs: tuple[Tensor | None, ...]
    options: dict[str, object]
    shape: tuple[int, ...]
    finish: Callable[[Tensor], Tensor]  # the operation's output -> what the original returns

    @property
    def dtype(self) -> str:
        first = self.inputs[0]
        return "" if first is None else DTYPES.get(first.dtype, "")

    @property
    def device(self) -> str:
        first = self.inputs[0]
        return "" if first is None else first.device.type


Match = Callable[..., "Call | None"]


def sound(call: Call) -> bool:
    """Whether kernels are defined for these tensors: ordinary, not empty, one device, one dtype that kernels have."""
    first = call.inputs[0]
    if first is None or first.dtype not in DTYPES or first.numel() == 0:
        return False
    dtype, device = first.dtype, first.device
    for t in call.inputs:
        if t is not None and not (
            type(t) in PLAIN and t.dtype is dtype and t.device == device and t.layout is torch.strided
        ):
            return False
    return True


def wants_grad(call: Call) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in call.inputs)


def in_autocast(call: Call) -> bool:
    """Autocast casts what the original is given; a kernel would see it uncast."""
    return torch.is_autocast_enabled(call.device)


def softmax(x: Tensor) -> Call | None:
    return rows(x, (x,), {}) if x.dim() else None


def rmsnorm(x: Tensor, weight: Tensor | None = None, *, eps: float) -> Call | None:
    cols = x.shape[-1]
    weight = _constant(1.0, cols, x.dtype, x.device) if weight is None else _flat(weight)
    return rows(x, (x, weight), {"eps": eps})


def layernorm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float, cols: int | None = None
) -> Call | None:
    """`cols` when more than the last dimension is normalized."""
    cols = cols or x.shape[-1]
    weight = _constant(1.0, cols, x.dtype, x.device) if weight is None else _flat(weight)
    bias = _constant(0.0, cols, x.dtype, x.device) if bias is None else _flat(bias)
    return rows(x, (x, weight, bias), {"eps": eps}, cols)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Call | None:
    if x.dim() == 0 or weight.dim() != 2 or x.shape[-1] != weight.shape[1] or not x.shape[-1]:
        return None
    (n, k), leading = weight.shape, x.shape[:-1]
    flat = flatten(x, k)
    finish = same if flat is x else lambda out: out.reshape(*leading, n)
    return Call((flat, weight, bias), {}, (flat.shape[0], n, k, int(bias is not None)), finish)


def fused_mlp(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, activation: str) -> Call | None:
    if x.dim() == 0 or x.shape[-1] != gate.shape[1] or not x.shape[-1]:
        return None
    (hidden, dim), shape = gate.shape, x.shape
    flat = flatten(x, dim)
    finish = same if flat is x else lambda out: out.reshape(shape)
    return Call((flat, gate, up, down), {"activation": activation}, (flat.shape[0], dim, hidden), finish)


def rotary(x: Tensor, cos: Tensor, sin: Tensor, heads_last: bool = False, table_rank: int = 2) -> Call | None:
    """Turns x[B, H, S, D], or x[B, S, H, D] with `heads_last`, by tables [S, D/2], perhaps with ones for B and H."""
    if x.dim() != 4 or cos.dim() != table_rank or cos.shape != sin.shape:
        return None
    view = x.transpose(1, 2) if heads_last else x
    shape = view.shape
    table = (shape[2], shape[3] // 2)
    if table_rank == 4:
        if cos.shape != ((1, table[0], 1, table[1]) if heads_last else (1, 1, *table)):
            return None
        cos, sin = cos.reshape(table), sin.reshape(table)
    elif cos.shape != table:
        return None
    return Call((view, cos, sin), {}, tuple(shape), (lambda out: out.transpose(1, 2)) if heads_last else same)


def rows(x: Tensor, inputs: tuple[Tensor, ...], options: dict[str, object], cols: int | None = None) -> Call | None:
    """An operation on rows: leading dimensions are flattened away and come back afterwards."""
    cols = cols or x.shape[-1]
    for weight in inputs[1:]:
        if weight.numel() != cols:
            return None
    if cols == 0:
        return None
    shape, flat = x.shape, flatten(x, cols)
    finish = same if flat is x else lambda out: out.reshape(shape)
    return Call((flat, *inputs[1:]), options, tuple(flat.shape), finish)


def flatten(x: Tensor, cols: int) -> Tensor:
    if x.dim() == 2 and x.shape[1] == cols:
        return x
    return x.view(-1, cols) if x.is_contiguous() else x.reshape(-1, cols)  # a view costs half of what reshape does


def _flat(t: Tensor) -> Tensor:
    return t if t.dim() == 1 else t.reshape(-1)


def same(out: Tensor) -> Tensor:
    return out


@lru_cache(maxsize=64)
def _constant(value: float, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The weight of a norm that has none; made once, not in every forward."""
    return torch.full((size,), value, dtype=dtype, device=device)
