"""Operations are found in models: under other names, once each, through helpers, and without a trace of the search."""

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
from formula_modules import Gated, Norm, found, rms
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[2] / "models"))
sys.path.append(str(Path(__file__).resolve().parents[2] / "kernels"))

from model_loader import load

from autokernel_sites import Site, find_sites

FIXTURES = Path(__file__).resolve().parents[2] / "test" / "fixtures" / "models"


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


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * torch.complex(cos.float(), sin.float())).flatten(-2).type_as(x)


def turn_heads_last(x: Tensor, c: Tensor, s: Tensor) -> Tensor:
    return turn(x, c[:, None], s[:, None])


def scaled(x: Tensor, weight: Tensor, floor: float) -> Tensor:
    return rms(x, floor) * weight


def standard(v: Tensor, gain: Tensor, shift: Tensor, small: float = 1e-7) -> Tensor:
    return F.layer_norm(v, v.shape[-1:], gain, shift, small)


class Helped(nn.Module):
    """Calls helpers of this file."""

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        w = table.new_ones(x.shape[-1])
        y = turn(x, table, table) + turn_heads_last(x.transpose(1, 2), table, table).transpose(1, 2)
        return standard(scaled(y, w, 1e-2), w, shift=w)


def test_helpers_are_found_inside_the_forward_that_calls_them() -> None:
    calls = dict(described(Helped(), torch.randn(2, 3, 5, 8), torch.randn(5, 4)))
    assert calls == {
        "(model):turn": ((2, 3, 5, 8), {}, "fp32"),
        "(model):turn_heads_last": ((2, 3, 5, 8), {}, "fp32"),
        "(model):scaled": ((30, 8), {"eps": 1e-2}, "fp32"),
        "(model):standard": ((30, 8), {"eps": 1e-7}, "fp32"),
    }


def test_a_call_that_broadcasts_or_is_empty_is_not_the_operation() -> None:
    (site,) = find_sites(Norm(lambda x, w: rms(x, 1e-6) * w).eval())
    assert site.describe_call(torch.randn(128, 1)) is None and site.describe_call(torch.randn(0, 64)) is None
    assert site.describe_call(torch.tensor(1.0)) is None and site.describe_call("text") is None
    assert site.describe_call(x=torch.randn(2, 64)) == ((2, 64), {"eps": 1e-6}, "fp32")


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
