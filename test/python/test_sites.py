"""Operations are found by what they compute: under other names, once each, and not where something else is computed."""

from __future__ import annotations

import copy
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[2] / "models"))
sys.path.append(str(Path(__file__).resolve().parents[2] / "kernels"))

from model_loader import load

from autokernel_sites import Site, find_sites

FIXTURES = Path(__file__).resolve().parents[2] / "test" / "fixtures" / "models"


class Norm(nn.Module):
    """A module with one weight around a formula."""

    def __init__(self, formula: Callable[[Tensor, Tensor], Tensor], width: int = 64) -> None:
        super().__init__()
        self.formula = formula
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x, self.weight)


class Affine(nn.Module):
    def __init__(self, formula: Callable[[Tensor, Tensor, Tensor], Tensor], width: int = 64) -> None:
        super().__init__()
        self.formula = formula
        self.shift, self.gain = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x, self.gain, self.shift)


class Gated(nn.Module):
    def __init__(self, formula: Callable[[Tensor, Tensor], Tensor], bias: bool = False, width: int = 32) -> None:
        super().__init__()
        self.formula = formula
        self.x1, self.x2, self.x3 = (nn.Linear(width, width, bias=bias) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.x1(self.formula(self.x2(x), self.x3(x)))


class Bare(nn.Module):
    def __init__(self, formula: Callable[..., Tensor]) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x)


class Counting(Norm):
    count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return rms(x, 1e-6) * self.weight


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.past: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.past.append(x)
        return x.exp() / x.exp().sum(-1, keepdim=True)


def rms(x: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def found(model: nn.Module) -> list[tuple[str, str]]:
    return [(site.op, site.path) for site in find_sites(model)]


def described(model: nn.Module, *inputs: Tensor) -> list[tuple[str, Any]]:
    """What every site says of the calls it gets in one forward."""
    seen: list[tuple[str, Any]] = []

    def listen(site: Site) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            def heard(*args: Any, **kwargs: Any) -> Any:
                seen.append((site.path, site.describe_call(*args, **kwargs)))
                return original(*args, **kwargs)

            return heard

        return make

    sites = find_sites(model)
    for site in sites:
        site.wrap(listen(site))
    with torch.no_grad():
        model(*inputs)
    for site in sites:
        site.undo()
    return seen


LAYER = {"rmsnorm": 2, "fused_mlp": 1, "rotary_embedding": 1, "flash_attention": 1, "linear": 4}
SMALL = [
    ("llama", "Llama(64, 2, 4, 96)", {k: 2 * v for k, v in LAYER.items()} | {"rmsnorm": 5, "linear": 9}),
    ("gpt2", "GPT2(64, 2, 4)", {"layernorm": 5, "flash_attention": 2, "linear": 9}),
    ("bert", "Bert(64, 2, 4)", {"layernorm": 5, "flash_attention": 2, "linear": 13}),
    ("custom", "Model(64, 8, 10)", {"layernorm": 1, "softmax": 1, "linear": 4}),
]


@pytest.mark.parametrize(("name", "build", "expected"), SMALL)
def test_each_model_of_ours_has_its_sites_once(name: str, build: str, expected: dict[str, int]) -> None:
    module = __import__(name)
    sites = find_sites(eval(build, vars(module)).eval())
    assert Counter(site.op for site in sites) == expected
    assert len({site.path for site in sites}) == len(sites)


def test_other_names_are_found_with_their_eps_and_their_scale() -> None:
    loaded = load(FIXTURES / "other_names.py")
    calls = described(loaded.model, *loaded.inputs)
    assert calls[0] == ("stages.0.n1", ((256, 256), {"eps": 3e-6}, "fp32"))
    assert ("stages.0.mix", ((256, 256, 512), {"activation": "silu"}, "fp32")) in calls
    assert ("stages.1.mix", ((256, 256, 512), {"activation": "silu"}, "fp32")) in calls  # gate and up packed
    attention = ((2, 4, 128, 64), {"causal": True, "sm_scale": 0.125}, "fp32")
    assert ("stages.0.look:_attend.scaled_dot_product_attention", attention) in calls
    assert Counter(path.split(".")[-1] for path, _ in calls)["inp"] == 2
    assert not [path for path, _ in calls if "spin" in path or ".mix." in path]


def test_a_kernelbench_softmax_is_one_site() -> None:
    model = load(FIXTURES / "kernelbench_softmax.py").model
    assert described(model, torch.randn(3, 5)) == [("(model)", ((3, 5), {}, "fp32"))]
    assert described(model, torch.randn(3, 5, 7)) == [("(model)", None)]  # dim=1 is then not the last


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


def test_hooks_dropout_in_training_and_traces_are_left_alone() -> None:
    hooked = nn.Linear(4, 4)
    hooked.register_forward_pre_hook(lambda module, args: None)
    dropping = Gated(lambda a, b: F.silu(a) * b)
    dropping.add_module("drop", nn.Dropout(0.5))
    assert found(Counting(torch.mul)) == [] and found(hooked) == []
    assert {op for op, _ in found(dropping)} == {"linear"}
    assert found(dropping.eval()) == [("fused_mlp", "(model)")]
    weight_norm = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    assert found(weight_norm) == []
    assert found(Remembering().eval()) == []


def test_looking_changes_nothing() -> None:
    loaded = load(FIXTURES / "other_names.py")
    model = loaded.model
    before = copy.deepcopy(model.state_dict())
    shown = [sorted(vars(m)) for m in model.modules()]
    state = torch.get_rng_state()
    find_sites(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert [sorted(vars(m)) for m in model.modules()] == shown
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_looking_is_quick() -> None:
    import llama

    model = llama.Llama(512, 16, 8, 2048).eval()
    started = time.process_time()
    assert len(find_sites(model)) == 16 * 9 + 2
    assert time.process_time() - started < 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_eps_that_depends_on_the_dtype_is_not_mistaken(dtype: torch.dtype) -> None:
    by_dtype = Norm(lambda x, w: rms(x, torch.finfo(x.dtype).eps) * w).to(dtype)
    fixed = Norm(lambda x, w: rms(x.float(), 1e-6).to(x.dtype) * w).to(dtype)
    assert found(by_dtype) == [] and found(fixed) == [("rmsnorm", "(model)")]
