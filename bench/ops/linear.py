"""linear: y = x @ weight^T + bias, nn.Linear's layout. The last number of a shape says whether there is a bias."""

from __future__ import annotations

import op_costs
import torch
import torch.nn.functional as F
from op_inputs import cast, log_uniform, matrix, normal, unknown_kind

from op import Inputs, Op, Rows, Shape


def reference(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return F.linear(x, weight, bias)


def random_walk(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """What remains in a partial sum, or in operands rounded to TF32, when the result itself cancels."""
    walk = F.linear(x.square(), weight.square()).sqrt()
    return walk if bias is None else walk + bias.abs()


def make_inputs(shape: Shape, dtype: torch.dtype, g: torch.Generator, kind: str) -> Inputs:
    m, n, k, has_bias = (*shape, 0)[:4]
    x, weight = matrix(g, m, k, 1.0), matrix(g, n, k, max(1, k) ** -0.5)
    bias = normal(g, n) + 1.0
    if kind == "normal":
        x = x * log_uniform(g, 0.1, 10.0, m, 1)
    elif kind == "wide_range":
        reach = 1e2 if dtype == torch.float16 else 1e5
        x, weight = x * log_uniform(g, 1 / reach, reach, m, 1), weight * log_uniform(g, 1e-3, 1.0, n, 1)
    elif kind == "cancellation":
        half = k // 2  # the second half takes back most of the first
        x[:, half : 2 * half], weight[:, half : 2 * half] = x[:, :half], -weight[:, :half] * 0.8
    elif kind == "bias_dominates":
        bias = bias * 1e3
    else:
        raise unknown_kind("linear", kind)
    return cast(dtype, x, weight, bias if has_bias else None)


OP = Op(
    name="linear",
    arguments=("x", "weight", "bias"),
    reference=reference,
    eager=F.linear,
    vendor=F.linear,
    make_inputs=make_inputs,
    dims=("M", "N", "K", "bias"),
    primary=(2048, 2048, 2048, 1),
    gpu_shapes=(
        *((128, 128, 128, 1), (512, 768, 768, 0), (1024, 3072, 768, 1), (2048, 2048, 2048, 1)),
        *((4096, 4096, 4096, 0), (1024, 50257, 768, 0), (2048, 11008, 4096, 0), (16, 4096, 4096, 1)),
    ),
    gpu_edges=((1023, 1023, 1023, 1), (1, 4096, 4096, 0), (4097, 515, 1025, 1)),
    cpu_primary=(512, 512, 512, 1),
    cpu_shapes=((128, 128, 128, 0), (256, 512, 384, 1), (512, 512, 512, 1), (32, 512, 512, 0), (512, 64, 512, 1)),
    cpu_edges=((127, 129, 131, 1), (511, 257, 383, 0), (1, 512, 512, 1), (5, 3, 1, 0)),
    flops=lambda shape, options: op_costs.flops("linear", shape, options),
    bytes_moved=lambda shape, dtype, options: op_costs.bytes_moved("linear", shape, dtype.itemsize, options),
    depth=lambda shape: shape[2],
    stability=("wide_range", "cancellation", "bias_dominates"),
    roundings=random_walk,
    matmul_like=True,
    rows=Rows(),
)
