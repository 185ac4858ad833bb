"""layernorm: y = (x - mean) / sqrt(var + eps) * weight + bias, over the last dimension. Bound by memory."""

from __future__ import annotations

import op_costs
import torch
import torch.nn.functional as F
from op_inputs import cast, log_uniform, normal, uneven_rows, unknown_kind, weights

from op import Inputs, Op, Rows, Shape


def reference(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    centered = x - x.mean(-1, keepdim=True)
    return centered * torch.rsqrt(centered.square().mean(-1, keepdim=True) + eps) * weight + bias


def eager(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """As models write it, nn.LayerNorm, which also is the vendor's call."""
    return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)


def scaled(x: torch.Tensor, weight: torch.Tensor, _bias: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """The normalized row times its weight, which a kernel may round before it adds the bias."""
    return reference(x, weight, torch.zeros_like(weight), eps).abs_()


def offset(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """An error of the mean is as large as the sums on the way to it, and stands out as far as the row is scaled up.

    The sums are the mean's own drift and a random walk around it: where one element is far larger than the others, the
    walk is that element, and what lies near the mean has an error that is large beside itself.
    """
    var, mean = torch.var_mean(x, -1, keepdim=True, correction=0)
    walk = torch.linalg.vector_norm(x, dim=-1, keepdim=True) / max(1, x.shape[-1])
    return (mean.abs() + walk) * torch.rsqrt(var + eps) * weight.abs() + bias.abs()


def make_inputs(shape: Shape, dtype: torch.dtype, g: torch.Generator, kind: str) -> Inputs:
    rows, cols = shape
    x = uneven_rows(g, rows, cols)
    exact = dtype == torch.float32
    if kind == "normal":
        x = x * log_uniform(g, 1e-3, 1e3, rows, 1)
        spread = (x - x.mean(-1, keepdim=True)).square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)
        x[1::8] *= 3e-3 / spread[1::8]  # variance about eps
    elif kind == "big_offset":
        x = x + (3e4 if exact else 100.0)  # E[x^2] - mean^2 loses all its digits
    elif kind == "near_constant":
        x = 5.0 + x * (1e-5 if exact else 0.02)
    elif kind == "constant":
        x = torch.full_like(x, 7.0)
    elif kind == "eps_dominates":
        x = x * 1e-4
    elif kind == "large":
        x = x * (100.0 if dtype == torch.float16 else 1e12)
    else:
        raise unknown_kind("layernorm", kind)
    return cast(dtype, x, weights(g, cols), normal(g, cols))


OP = Op(
    name="layernorm",
    arguments=("x", "weight", "bias"),
    reference=reference,
    eager=eager,
    vendor=eager,
    make_inputs=make_inputs,
    dims=("rows", "cols"),
    primary=(4096, 2048),
    gpu_shapes=(
        *((32, 128), (256, 512), (1024, 1024), (4096, 2048)),
        *((8192, 4096), (1024, 8192), (4096, 4096), (4096, 5120)),
    ),
    gpu_edges=((1023, 1023), (4097, 4097)),
    cpu_primary=(1024, 2048),
    cpu_shapes=((32, 128), (256, 512), (1024, 768), (1024, 2048), (64, 8192)),
    cpu_edges=((1023, 1023), (127, 768), (1, 4097), (3, 1)),
    flops=lambda shape, options: op_costs.flops("layernorm", shape, options),
    bytes_moved=lambda shape, dtype, options: op_costs.bytes_moved("layernorm", shape, dtype.itemsize, options),
    depth=lambda shape: shape[-1],
    stability=("big_offset", "near_constant", "constant", "eps_dominates", "large"),
    options={"eps": 1e-5},
    variants=({"eps": 1e-3},),
    magnitude=offset,
    roundings=scaled,
    rows=Rows(),
)
