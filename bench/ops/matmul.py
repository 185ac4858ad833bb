"""matmul: C = A @ B. Bound by arithmetic where all three sizes are large."""

from __future__ import annotations

import op_costs
import torch
from op_inputs import cast, log_uniform, matrix, unknown_kind

from op import Inputs, Op, Rows, Shape


def reference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b


def random_walk(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """What remains in a partial sum, or in operands rounded to TF32, when the result itself cancels."""
    return (a.square() @ b.square()).sqrt()


def make_inputs(shape: Shape, dtype: torch.dtype, g: torch.Generator, kind: str) -> Inputs:
    m, n, k = shape
    a, b = matrix(g, m, k, 1.0), matrix(g, k, n, max(1, k) ** -0.5)
    if kind == "normal":
        a = a * log_uniform(g, 1e-2, 1e2, m, 1)
    elif kind == "wide_range":
        reach = 1e2 if dtype == torch.float16 else 1e6
        a, b = a * log_uniform(g, 1 / reach, reach, m, 1), b * log_uniform(g, 1 / reach, reach, 1, n) / reach
    elif kind == "cancellation":
        half = k // 2  # the second half takes back most of the first
        a[:, half : 2 * half], b[half : 2 * half] = a[:, :half], -b[:half] * 0.8
    elif kind == "tiny":
        a, b = a * 1e-3, b * 1e-3
    else:
        raise unknown_kind("matmul", kind)
    return cast(dtype, a, b)


OP = Op(
    name="matmul",
    arguments=("A", "B"),
    reference=reference,
    eager=torch.matmul,
    vendor=torch.matmul,
    make_inputs=make_inputs,
    dims=("M", "N", "K"),
    primary=(2048, 2048, 2048),
    gpu_shapes=(
        *((128, 128, 128), (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 4096)),
        *((8192, 1024, 1024), (1024, 8192, 1024), (1024, 1024, 8192), (4096, 4096, 512), (4096, 11008, 4096)),
    ),
    gpu_edges=((1023, 1023, 1023), (4097, 4097, 512), (1537, 1537, 1537)),
    cpu_primary=(512, 512, 512),
    cpu_shapes=((128, 128, 128), (256, 512, 384), (512, 512, 512), (32, 512, 512), (512, 64, 512)),
    cpu_edges=((127, 129, 131), (511, 257, 383), (1, 512, 512), (5, 3, 1)),
    flops=lambda shape, options: op_costs.flops("matmul", shape, options),
    bytes_moved=lambda shape, dtype, options: op_costs.bytes_moved("matmul", shape, dtype.itemsize, options),
    depth=lambda shape: shape[2],
    stability=("wide_range", "cancellation", "tiny"),
    roundings=random_walk,
    matmul_like=True,
    rows=Rows(),
)
