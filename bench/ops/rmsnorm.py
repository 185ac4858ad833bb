"""rmsnorm: y = x / sqrt(mean(x^2) + eps) * weight, over the last dimension. Bound by memory."""

from __future__ import annotations

import op_costs
import torch
import torch.nn.functional as F
from op_inputs import cast, log_uniform, normal, signs, uneven_rows, unknown_kind, weights

from op import Inputs, Op, Rows, Shape


def reference(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def eager(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """As Llama writes it: normalized in fp32, rounded to the input's dtype, then scaled."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).type_as(x) * weight


def vendor(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def make_inputs(shape: Shape, dtype: torch.dtype, g: torch.Generator, kind: str) -> Inputs:
    rows, cols = shape
    x = uneven_rows(g, rows, cols)
    if kind == "normal":
        x = x * log_uniform(g, 1e-3, 1e3, rows, 1)
        x[1::8] *= 1e-3 / x[1::8].square().mean(-1, keepdim=True).sqrt().clamp_min(1e-12)  # mean square about eps
    elif kind == "eps_dominates":
        x = x * 1e-4
    elif kind == "large":
        x = x * (100.0 if dtype == torch.float16 else 1e12)  # squares overflow fp16, and stay inside fp32
    elif kind == "one_nonzero":
        x = torch.zeros_like(x).scatter(1, x.abs().argmax(1, keepdim=True), 3.0 * signs(g, rows, 1)) if cols else x
    elif kind == "zero_rows":
        x = x * (normal(g, rows, 1) > 0)
    else:
        raise unknown_kind("rmsnorm", kind)
    return cast(dtype, x, weights(g, cols))


OP = Op(
    name="rmsnorm",
    arguments=("x", "weight"),
    reference=reference,
    eager=eager,
    vendor=vendor,
    make_inputs=make_inputs,
    dims=("rows", "cols"),
    primary=(4096, 4096),
    gpu_shapes=((1024, 768), (4096, 1024), (4096, 4096), (2048, 4096), (8192, 4096), (8192, 8192)),
    gpu_edges=((1023, 768), (4097, 1024)),
    cpu_primary=(1024, 2048),
    cpu_shapes=((32, 128), (256, 512), (1024, 768), (1024, 2048), (64, 8192)),
    cpu_edges=((1023, 768), (127, 1023), (1, 4097), (3, 1)),
    flops=lambda shape, options: op_costs.flops("rmsnorm", shape, options),
    bytes_moved=lambda shape, dtype, options: op_costs.bytes_moved("rmsnorm", shape, dtype.itemsize, options),
    depth=lambda shape: shape[-1],
    stability=("eps_dominates", "large", "one_nonzero", "zero_rows"),
    options={"eps": 1e-6},
    variants=({"eps": 1e-3},),
    rows=Rows(),
)
