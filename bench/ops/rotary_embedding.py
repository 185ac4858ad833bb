"""rotary_embedding: each pair (x[2i], x[2i+1]) turned by its position's angle. Bound by memory."""

from __future__ import annotations

import op_costs
import torch
from op_inputs import cast, log_uniform, normal, signs, uniform, unknown_kind

from op import Inputs, Op, Rows, Shape

Tensor = torch.Tensor


def reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """In float64 the definition; in the inputs' dtype as models write it, strided even and odd halves."""
    even, odd = x[..., ::2], x[..., 1::2]
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    out[..., ::2] = even * cos - odd * sin
    out[..., 1::2] = even * sin + odd * cos
    return out


def products(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The two products of each element, which cancel where the turned pair meets an axis."""
    even, odd = x[..., ::2].abs(), x[..., 1::2].abs()
    pairs = (even * cos.abs() + odd * sin.abs(), even * sin.abs() + odd * cos.abs())
    return torch.stack(pairs, dim=-1).flatten(-2)


def make_inputs(shape: Shape, dtype: torch.dtype, g: torch.Generator, kind: str) -> Inputs:
    b, h, s, d = shape
    x = normal(g, b, h, s, d)
    angle = uniform(g, 0.0, 6.283185, s, d // 2)
    # not on the unit circle: a kernel must read both tables, and may not compute one from the other
    cos, sin = angle.cos() * uniform(g, 0.5, 1.5, s, 1), angle.sin() * uniform(g, 0.5, 1.5, s, 1)
    if kind == "normal":
        x = (x + normal(g, b, h, 1, d)) * log_uniform(g, 1e-3, 1e3, b, h, s, 1)
    elif kind == "cancellation":
        x[..., 1::2] = x[..., ::2] * (1 + 0.01 * normal(g, b, h, s, d // 2))
        cos = sin = signs(g, s, d // 2) * 0.75
    elif kind == "large":
        x = x * (5e3 if dtype == torch.float16 else 1e18)
    elif kind == "tiny":
        x = x * 1e-3
    else:
        raise unknown_kind("rotary_embedding", kind)
    return cast(dtype, x, cos, sin)


OP = Op(
    name="rotary_embedding",
    arguments=("x", "cos", "sin"),
    reference=reference,
    eager=reference,
    vendor=None,
    make_inputs=make_inputs,
    dims=("B", "H", "S", "D"),
    primary=(2, 32, 1024, 128),
    gpu_shapes=(
        *((1, 4, 64, 64), (2, 8, 256, 64), (2, 16, 512, 64), (2, 32, 1024, 128)),
        *((2, 32, 2048, 128), (1, 32, 2048, 128), (1, 40, 2048, 128)),
    ),
    gpu_edges=((1, 8, 127, 64), (1, 8, 1023, 128)),
    cpu_primary=(1, 16, 512, 128),
    cpu_shapes=((1, 4, 64, 64), (2, 8, 256, 64), (1, 16, 512, 128), (1, 12, 512, 64)),
    cpu_edges=((1, 8, 127, 64), (1, 3, 255, 128), (1, 1, 1, 2)),
    flops=lambda shape, options: op_costs.flops("rotary_embedding", shape, options),
    bytes_moved=lambda shape, dtype, options: op_costs.bytes_moved("rotary_embedding", shape, dtype.itemsize, options),
    depth=lambda shape: 2,
    stability=("cancellation", "large", "tiny"),
    roundings=products,
    rows=Rows(),
)
