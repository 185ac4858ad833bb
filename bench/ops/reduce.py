"""reduce: the sum along one dimension of a matrix, the last unless told otherwise. Bound by memory."""

from __future__ import annotations

import op_costs
import torch
from op_inputs import cast, log_uniform, normal, uneven_rows, unknown_kind

from op import Inputs, Op, Rows, Shape


def reference(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """In float64 the definition; in the inputs' dtype both what models write and the vendor's call."""
    return x.sum(dim)


def magnitude(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Size of the sums on the way: a drift to the result, and a random walk around it."""
    return x.sum(dim).abs() + torch.linalg.vector_norm(x, dim=dim)


def make_inputs(shape: Shape, dtype: torch.dtype, g: torch.Generator, kind: str) -> Inputs:
    rows, cols = shape
    top = 5e3 / max(rows, cols) if dtype == torch.float16 else 1e3  # sums stay within fp16's 65504
    x = uneven_rows(g, rows, cols) + 0.5
    if kind == "normal":
        x = x * log_uniform(g, min(1e-3, top), top, rows, 1)
    elif kind == "cancellation":  # terms of both signs, in no order, that leave a hundredth of themselves
        x = normal(g, rows, cols) * 10
        x = x - x.mean(-1, keepdim=True) + 0.1
    elif kind == "positive":  # a running sum kept in the inputs' dtype stops growing
        x = (x.abs() + 1) * min(top, 1.0)
    elif kind == "one_large":
        x = x * 1e-3
        x[:, cols // 2 : cols // 2 + 1] = 1000.0
    else:
        raise unknown_kind("reduce", kind)
    return cast(dtype, x)


OP = Op(
    name="reduce",
    arguments=("x",),
    reference=reference,
    eager=reference,
    vendor=reference,
    make_inputs=make_inputs,
    dims=("rows", "cols"),
    primary=(8192, 8192),
    gpu_shapes=((1024, 1024), (4096, 4096), (8192, 8192), (1024, 32768)),
    gpu_edges=((1023, 1024), (4096, 4097)),
    cpu_primary=(1024, 4096),
    cpu_shapes=((64, 128), (1024, 1024), (1024, 4096), (64, 32768)),
    cpu_edges=((1023, 1024), (255, 4097), (1, 4097), (3, 1)),
    flops=lambda shape, options: op_costs.flops("reduce", shape, options),
    bytes_moved=lambda shape, dtype, options: op_costs.bytes_moved("reduce", shape, dtype.itemsize, options),
    depth=lambda shape: max(shape),
    stability=("cancellation", "positive", "one_large"),
    options={"dim": -1},
    variants=({"dim": 0},),
    magnitude=magnitude,
    rows=Rows(alone=lambda options: options.get("dim", -1) in (-1, 1)),
)
