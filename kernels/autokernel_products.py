"""Recognises what multiplies: a linear layer, a gated MLP, and rotary embedding."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from autokernel_trial import Found, Source, Weight, attempt, close, ranks_where, stand_ins, with_tensors
from torch import Tensor, nn

LEADING = ((6,), (2, 3), (1, 3, 2))  # the same six rows as inputs of rank 2, 3 and 4
# Of a row's largest output. Trials are in fp64, so that TF32 is no matter: the two gelus are only 5e-4 apart.
PRODUCT = 2e-5

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_erf": F.gelu,
    "relu": F.relu,
}


def recognise_linear(module: nn.Module, matrix: str, vector: str | None, source: Source) -> Found | None:
    tensors = stand_ins(module, source, torch.float64)
    weight, bias = tensors[matrix], None if vector is None else tensors[vector]
    if bias is not None and bias.numel() != weight.shape[0]:
        return None
    x = source.normal(6, weight.shape[1]).double()
    ranks = ranks_where(with_tensors(module, tensors), x, F.linear(x, weight, bias), LEADING, PRODUCT)
    weights = (Weight(matrix), None if vector is None else Weight(vector))
    return Found("linear", weights, {}, ranks) if ranks else None


def recognise_mlp(module: nn.Module, matrices: list[str], source: Source) -> Found | None:
    """down(act(gate(x)) * up(x)), the weights in any order; gate and up may be the two halves of one matrix."""
    tensors = stand_ins(module, source, torch.float64)
    run = with_tensors(module, tensors)
    outputs: dict[int, tuple[Tensor, Tensor | None]] = {}  # by width, for a weight's place decides it
    for roles in _mlp_roles(matrices):
        gate, up, down = (role.of(tensors[role.path]) for role in roles)
        if gate.shape != up.shape or down.shape != gate.shape[::-1]:
            continue
        dim = gate.shape[1]
        if dim not in outputs:
            x = source.normal(6, dim).double()
            outputs[dim] = (x, attempt(run, x))
        x, y = outputs[dim]
        if y is None:
            continue
        gated, raised = x @ gate.t(), x @ up.t()
        for name, activation in ACTIVATIONS.items():
            expected = (activation(gated) * raised) @ down.t()
            if close(y, expected, PRODUCT):
                ranks = ranks_where(run, x, expected, LEADING, PRODUCT)
                return Found("fused_mlp", roles, {"activation": name}, ranks)
    return None


def _mlp_roles(matrices: list[str]) -> Iterator[tuple[Weight, Weight, Weight]]:
    if len(matrices) == 3:
        for gate, up, down in itertools.permutations(matrices):
            yield Weight(gate), Weight(up), Weight(down)
        return
    for both, down in itertools.permutations(matrices):
        for first in (0, 1):
            yield Weight(both, first), Weight(both, 1 - first), Weight(down)


def recognise_rotary(function: Callable[..., object], source: Source) -> Found | None:
    """function(x, cos, sin) turns neighbouring pairs. The half-split layout (rotate_half) is another operation."""
    seq, dim = 5, 8
    angles = source.normal(seq, dim // 2)
    for heads_last, table_rank in ((False, 2), (False, 4), (True, 4), (True, 2)):
        x = source.normal(2, seq, 3, dim) if heads_last else source.normal(2, 3, seq, dim)
        full = (1, seq, 1, dim // 2) if heads_last else (1, 1, seq, dim // 2)
        cos, sin = angles.cos().reshape(full), angles.sin().reshape(full)
        even, odd = x[..., ::2], x[..., 1::2]
        expected = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
        tables = [t.reshape(full if table_rank == 4 else (seq, dim // 2)) for t in (cos, sin)]
        out = attempt(lambda x, tables=tables: function(x, *tables), x)
        if out is not None and close(out, expected, PRODUCT):
            return Found("rotary_embedding", (), {"heads_last": heads_last, "table_rank": table_rank}, arguments=True)
    return None
