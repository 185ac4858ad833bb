"""softmax: y = exp(x - max x) / sum exp(x - max x), over the last dimension. Bound by memory."""

from __future__ import annotations

import op_costs
import torch
from op_inputs import cast, log_uniform, normal, uniform, unknown_kind

from op import Inputs, Op, Rows, Shape


def reference(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, dim=-1)


def eager(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.softmax(x, dim=-1)


def magnitude(x: torch.Tensor) -> torch.Tensor:
    """exp turns an absolute error of its argument, one rounding of x - max or x * log2(e), into a relative one."""
    top = x.amax(-1, keepdim=True)
    arguments = (x.abs() + top.abs()).nan_to_num(posinf=0.0)  # a masked entry is exactly 0
    steps = 2 + arguments / max(1, x.shape[-1]) ** 0.5  # not summed over the row: takes no sqrt(depth)
    return reference(x) * steps


def make_inputs(shape: Shape, dtype: torch.dtype, g: torch.Generator, kind: str) -> Inputs:
    rows, cols = shape
    x = normal(g, rows, cols)
    if kind == "normal":
        x = x * log_uniform(g, 0.1, 3.0, rows, 1) + uniform(g, -4.0, 4.0, rows, 1)
        if rows and cols:  # one entry as heavy as all others of its row: who skips it is off by half
            heavy = torch.randint(0, cols, (rows, 1), generator=g, device=g.device)
            heavy[::4] = cols - 1
            x = x.scatter(1, heavy, torch.logsumexp(x, 1, keepdim=True))
    elif kind == "large":
        x = x + 1000.0  # exp overflows without the max-subtraction
    elif kind == "large_negative":
        x = x - 1000.0  # and here everything underflows, 0 / 0
    elif kind == "identical":
        x = torch.full_like(x, 300.0)
    elif kind == "wide":
        x = x * 100.0  # nearly one-hot
    elif kind == "masked":
        x = x.masked_fill(uniform(g, 0.0, 1.0, rows, cols) < 0.3, float("-inf"))
        x[:, :1] = 0.5  # at least one entry survives
        return (x.to(dtype),)
    else:
        raise unknown_kind("softmax", kind)
    return cast(dtype, x)


OP = Op(
    name="softmax",
    arguments=("x",),
    reference=reference,
    eager=eager,
    vendor=eager,  # already one fused call
    make_inputs=make_inputs,
    dims=("rows", "cols"),
    primary=(4096, 4096),
    gpu_shapes=(
        *((32, 128), (256, 512), (1024, 1024), (4096, 4096)),
        *((8192, 8192), (1024, 32768), (32768, 128), (4096, 50257)),
    ),
    gpu_edges=((1023, 1023), (4097, 4097), (1024, 50257)),
    cpu_primary=(1024, 1024),
    cpu_shapes=((32, 128), (256, 512), (1024, 1024), (64, 8192), (4096, 128)),
    cpu_edges=((1023, 1023), (16, 50257), (1, 4097), (3, 1)),
    flops=lambda shape, options: op_costs.flops("softmax", shape, options),
    bytes_moved=lambda shape, dtype, options: op_costs.bytes_moved("softmax", shape, dtype.itemsize, options),
    depth=lambda shape: shape[-1],
    stability=("large", "large_negative", "identical", "wide", "masked"),
    magnitude=magnitude,
    rows=Rows(),
)
