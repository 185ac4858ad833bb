"""A module is what it computes, with its eps and activation; a look-alike that computes something else is not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from formula_modules import Affine, Bare, Gated, Norm, find_sites, found, rms
from torch import Tensor, nn


@pytest.mark.parametrize(
    ("module", "op", "options"),
    [
        (Norm(lambda x, w: w * rms(x.float(), 1e-5).to(x.dtype)), "rmsnorm", {"eps": 1e-5}),
        (Norm(lambda x, w: x / (x.square().mean(-1, True) + 2.5e-6).sqrt() * w), "rmsnorm", {"eps": 2.5e-6}),
        (Norm(lambda x, w: x * torch.rsqrt((x * x).mean(-1, True)) * w), "rmsnorm", {"eps": 0.0}),
        (nn.RMSNorm(64, eps=1e-4), "rmsnorm", {"eps": 1e-4}),
        (nn.RMSNorm(64), "rmsnorm", {"eps": torch.finfo(torch.float32).eps}),
        (Norm(lambda x, w: F.layer_norm(x, (64,), w, None, 1e-6)), "layernorm", {"eps": 1e-6}),
        (Affine(lambda x, g, s: F.layer_norm(x, (64,), g, s, 1e-12)), "layernorm", {"eps": 1e-12}),
        (nn.LayerNorm([2, 32], bias=False), "layernorm", {"eps": 1e-5}),
        (Bare(lambda x: rms(x, 1e-6)), "rmsnorm", {"eps": 1e-6}),
        (Bare(lambda x: (x - x.amax(-1, True)).exp() / (x - x.amax(-1, True)).exp().sum(-1, True)), "softmax", {}),
        (Gated(lambda a, b: F.silu(a) * b), "fused_mlp", {"activation": "silu"}),
        (Gated(lambda a, b: a * b.sigmoid() * b), "fused_mlp", {"activation": "silu"}),
        (Gated(lambda a, b: F.gelu(a, approximate="tanh") * b), "fused_mlp", {"activation": "gelu"}),
        (Gated(lambda a, b: F.gelu(a) * b), "fused_mlp", {"activation": "gelu_erf"}),
        (nn.Linear(64, 8), "linear", {}),
    ],
)
def test_a_module_is_what_it_computes(module: nn.Module, op: str, options: dict[str, object]) -> None:
    (site,) = find_sites(module.eval())
    x = torch.randn(4, 2, 32) if isinstance(module, Gated | nn.LayerNorm) else torch.randn(4, 64)
    description = site.describe_call(x)
    assert site.op == op and description is not None and description[1] == options


@pytest.mark.parametrize(
    "module",
    [
        Norm(lambda x, w: rms(x, 1e-6) * (1 + w)),  # Gemma's
        Norm(lambda x, w: x / (x.square().mean(-1, True).sqrt() + 1e-6) * w),  # eps outside the root
        Norm(lambda x, w: F.normalize(x, dim=-1) * w),  # no mean
        Norm(lambda x, w: rms(x, 1e-6) * w.square()),
        Affine(lambda x, g, s: rms(x, 1e-5) * g + s),  # a LayerNorm that does not subtract the mean
        Affine(lambda x, g, s: (x - x.mean(-1, True)) / (x.std(-1, keepdim=True) + 1e-5) * g + s),
        Affine(lambda x, g, s: (x - x.mean(-1, True)) * torch.rsqrt(x.var(-1, keepdim=True) + 1e-5) * g + s),  # n - 1
        Bare(lambda x: x.log_softmax(-1)),
        Bare(lambda x: x.softmax(-1) * 1.001),
        Bare(F.gelu),
    ],
)
def test_a_look_alike_is_not_taken(module: nn.Module) -> None:
    assert found(module.eval()) == []


@pytest.mark.parametrize(
    "module",
    [
        Gated(lambda a, b: a * (1.702 * a).sigmoid() * b),  # an approximation of gelu
        Gated(lambda a, b: a.sigmoid() * b),
        Gated(lambda a, b: F.silu(a) * b, bias=True),
        Gated(lambda a, b: F.silu(a) + b),
        nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)),
    ],
)
def test_an_mlp_that_is_not_gated_silu_keeps_its_linear_layers(module: nn.Module) -> None:
    assert {op for op, _ in found(module.eval())} == {"linear"}


def test_one_weight_as_k_by_n_is_left_alone() -> None:
    class Conv1D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(16, 16)), nn.Parameter(torch.zeros(16))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight + self.bias

    assert found(Conv1D()) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_eps_that_depends_on_the_dtype_is_not_mistaken(dtype: torch.dtype) -> None:
    by_dtype = Norm(lambda x, w: rms(x, torch.finfo(x.dtype).eps) * w).to(dtype)
    fixed = Norm(lambda x, w: rms(x.float(), 1e-6).to(x.dtype) * w).to(dtype)
    assert found(by_dtype) == [] and found(fixed) == [("rmsnorm", "(model)")]
