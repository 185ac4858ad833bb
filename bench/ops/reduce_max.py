"""reduce_max: the largest value along one dimension of a matrix, exactly. Bound by memory."""

from __future__ import annotations

import op_costs
import torch
from op_inputs import cast, log_uniform, normal, signs, uneven_rows, unknown_kind

from op import Inputs, Op, Rows, Shape


def reference(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """In float64 the definition; in the inputs' dtype both what models write and the vendor's call."""
    return x.amax(dim)


def make_inputs(shape: Shape, dtype: torch.dtype, g: torch.Generator, kind: str) -> Inputs:
    rows, cols = shape
    x = uneven_rows(g, rows, cols)
    if kind == "normal":
        x = x * log_uniform(g, 1e-3, 1e3, rows, 1)
    elif kind == "all_negative":  # a maximum that starts from 0 is wrong everywhere
        x = -x.abs() - 1e-3
    elif kind == "at_the_ends":
        x[::2, -1:], x[1::2, :1] = 500.0, 500.0
    elif kind == "masked":
        x = x.masked_fill(normal(g, rows, cols) > 0, float("-inf"))
        x[:, :1], x[:1] = -3.0, -2.0  # every row and every column keeps a finite entry
        return (x.to(dtype),)
    elif kind == "huge":
        x = signs(g, rows, cols) * float(torch.finfo(dtype).max)
    else:
        raise unknown_kind("reduce_max", kind)
    return cast(dtype, x)


OP = Op(
    name="reduce_max",
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
    flops=lambda shape, options: op_costs.flops("reduce_max", shape, options),
    bytes_moved=lambda shape, dtype, options: op_costs.bytes_moved("reduce_max", shape, dtype.itemsize, options),
    depth=lambda shape: 1,
    stability=("all_negative", "at_the_ends", "masked", "huge"),
    options={"dim": -1},
    variants=({"dim": 0},),
    exact=True,
    rows=Rows(alone=lambda options: options.get("dim", -1) in (-1, 1)),
)
