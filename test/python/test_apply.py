"""The exported folder puts kernels into a model, falls back where they do not fit, and can be taken out again."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[2] / "models"))

import bert
import custom
import gpt2
import llama
from export_fixture import NAN, ROOT, TOYS, entry, export
from model_loader import load

TOKENS = torch.randint(0, 1000, (2, 24), generator=torch.Generator().manual_seed(1))
MODELS = {
    "llama": (lambda: llama.Llama(64, 2, 4, 96), TOKENS),
    "gpt2": (lambda: gpt2.GPT2(64, 2, 4), TOKENS),
    "bert": (lambda: bert.Bert(64, 2, 4), TOKENS),
    "custom": (lambda: custom.Model(64, 8, 10), torch.randn(2, 24, 768)),
}
USED = {
    "llama": {"linear": 9, "rmsnorm": 5, "fused_mlp": 2, "flash_attention": 2, "rotary_embedding": 2},
    "gpt2": {"linear": 9, "layernorm": 5, "flash_attention": 2},
    "bert": {"linear": 13, "layernorm": 5, "flash_attention": 2},
    "custom": {"linear": 4, "layernorm": 1, "softmax": 1},
}


def build(name: str) -> tuple[nn.Module, Tensor]:
    make, given = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    for p in model.parameters():
        if p.dim() == 1:  # a weight of 1 and a bias of 0 would forgive a kernel that ignores them
            nn.init.uniform_(p, 0.5, 1.5)
    return model, given


@torch.no_grad()
def run(model: nn.Module, *given: Tensor) -> Tensor:
    out = model(*given)
    return out[0] if isinstance(out, tuple) else out


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return export(tmp_path_factory.mktemp("toys"), [entry(op) for op in TOYS])


@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_the_same_with_all_kernels_and_bit_for_bit_after_undo(name: str, toys: ModuleType) -> None:
    model, given = build(name)
    before = run(model, given)
    report = toys.apply(model)
    after = run(model, given)
    assert {k: n for k, n in report.replaced.items() if n} == USED[name]
    assert all(report.calls[kernel] >= sites for kernel, sites in USED[name].items())
    assert set(report.skipped) == set(TOYS) - set(USED[name])
    assert not torch.equal(after, before)  # another order of summing: it really was another code
    torch.testing.assert_close(after, before, rtol=2e-4, atol=2e-5)
    report.undo()
    assert torch.equal(run(model, given), before)
    assert not any({"forward", "_attend"} & set(vars(m)) for m in model.modules())


@pytest.mark.parametrize(("name", "op"), [(name, op) for name, used in USED.items() for op in used])
def test_a_kernel_that_returns_nan_shows_in_the_output(name: str, op: str, tmp_path: Path) -> None:
    model, given = build(name)
    nan = (
        NAN
        if op != "linear"
        else NAN.replace("x, *rest", "x, w, *rest").replace("full_like(x,", "full((len(x), len(w)),")
    )
    report = export(tmp_path, [entry(op)], {op: nan}).apply(model)
    assert report.replaced == {op: USED[name][op]}
    assert bool(run(model, given).isnan().any())


def test_a_model_with_other_names_is_served_too(toys: ModuleType) -> None:
    loaded = load(ROOT / "test" / "fixtures" / "models" / "other_names.py")
    before = run(loaded.model, *loaded.inputs)
    with toys.apply(loaded.model) as report:
        torch.testing.assert_close(run(loaded.model, *loaded.inputs), before, rtol=2e-4, atol=2e-5)
        used = {k: n for k, n in report.replaced.items() if n}
        assert used == {"linear": 4, "rmsnorm": 5, "fused_mlp": 2, "flash_attention": 2}
    assert torch.equal(run(loaded.model, *loaded.inputs), before)


class Grouped(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True)


class Repeating(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def test_grouped_attention_is_its_own_operation_unless_the_model_repeats_the_heads(toys: ModuleType) -> None:
    q, k, v = torch.randn(2, 8, 12, 16), torch.randn(2, 2, 20, 16), torch.randn(2, 2, 20, 16)
    for model, kernel in ((Grouped(), "flash_attention_gqa"), (Repeating(), "flash_attention")):
        before = run(model, q, k, v)
        report = toys.apply(model)
        torch.testing.assert_close(run(model, q, k, v), before, rtol=1e-4, atol=1e-5)
        assert report.calls[kernel] == 1 and sum(report.calls.values()) == 1


def test_a_call_that_the_kernel_is_not_made_for_runs_the_models_own_code(toys: ModuleType) -> None:
    model = Grouped()
    report = toys.apply(model)
    q, k, mask = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8), torch.randn(6, 6)
    for inputs in ((q, k, k, mask), (q.double(), k.double(), k.double()), (q[0], k[0], k[0])):
        assert torch.equal(run(model, *inputs), run(Grouped(), *inputs))
    assert report.calls["flash_attention_gqa"] == 0
    run(model, q, k, k)
    assert report.calls["flash_attention_gqa"] == 1


def test_gradients_training_and_autocast_run_the_models_own_code(toys: ModuleType) -> None:
    model, given = build("llama")
    report = toys.apply(model)
    model(given).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.train()
    run(model, given)
    assert sum(report.calls.values()) - report.calls["flash_attention"] - report.calls["rotary_embedding"] == 0
    with torch.autocast("cpu", torch.bfloat16):
        run(model.eval(), given)
    assert report.calls["linear"] == 0


def test_another_dtype_or_device_is_refused_with_its_reason(tmp_path: Path, toys: ModuleType) -> None:
    model, _ = build("gpt2")
    report = toys.apply(model.bfloat16())
    assert not any(report.replaced.values())
    assert report.skipped["linear"] == "it is made for fp32, and the model is in bf16"
    on_gpu = export(tmp_path, [entry("linear", backend="triton")]).apply(model.float())
    assert on_gpu.skipped == {"linear": "it is made with triton, and the model is on cpu"}


def test_one_of_two_kernels_of_an_operation_takes_its_own_shapes(tmp_path: Path) -> None:
    shape = {"shape": [48, 192, 64, 1], "options": {}, "weight": 1.0}  # tokens x qkv
    module = export(
        tmp_path, [entry("linear", "linear-1", shapes=[shape]), entry("linear", "linear-2", shapes=[[48, 64, 64, 1]])]
    )
    model, given = build("gpt2")
    report = module.apply(model)
    assert report.replaced == {"linear-1": 2, "linear-2": 2}
    run(model, given)
    assert report.calls == {"linear-1": 2, "linear-2": 2}
    run(model, given[:1])
    assert report.calls == {"linear-1": 2, "linear-2": 2}  # half the tokens: not their shape


def test_inactive_kernels_stay_out_unless_named(tmp_path: Path) -> None:
    module = export(tmp_path, [entry("linear"), entry("rmsnorm", active=False)])
    model, _ = build("llama")
    with module.apply(model) as report:
        assert report.replaced == {"linear": 9}
    with module.apply(model, only="rmsnorm") as report:
        assert report.replaced == {"rmsnorm": 5}
    with pytest.raises(ValueError, match="there is no kernel 'softmax'"):
        module.apply(model, only=["softmax"])


def test_a_missing_file_or_a_manifest_of_another_format_says_so(tmp_path: Path) -> None:
    module = export(tmp_path, [entry("linear")])
    home = tmp_path / "optimized"
    (home / "linear" / "kernel.py").unlink()
    with pytest.raises(FileNotFoundError, match="the manifest names this kernel"):
        module.apply(build("llama")[0])
    (home / "manifest.json").write_text('{"format": 2, "kernels": []}')
    with pytest.raises(ValueError, match="expected format 1, found 2"):
        module.apply(build("llama")[0])


def test_only_that_model_changes_and_two_exports_live_side_by_side(tmp_path: Path, toys: ModuleType) -> None:
    nans = export(tmp_path, [entry("rotary_embedding")], {"rotary_embedding": NAN})
    (one, given), (other, _) = build("llama"), build("llama")
    before = run(other, given)
    nans.apply(one)
    assert bool(run(one, given).isnan().all()) and torch.equal(run(other, given), before)
    toys.apply(other)
    torch.testing.assert_close(run(other, given), before, rtol=2e-4, atol=2e-5)
    assert torch.nn.functional.scaled_dot_product_attention is llama.F.scaled_dot_product_attention


SCALE = 1.0


class ReadsAGlobal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x * SCALE, dim=-1) + torch.zeros(1).add(F.relu(x))


def test_a_global_set_later_is_seen_later(toys: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = ReadsAGlobal(), torch.randn(3, 5)
    for _ in range(50):
        run(model, x)  # CPython has by now specialised the code for the globals it had
    report = toys.apply(model)
    run(model, x)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    torch.testing.assert_close(run(model, x), F.softmax(3 * x, -1) + x.relu())
    assert report.calls["softmax"] == 2


def make_closure(power: int, soften: Any = F.softmax) -> type[nn.Module]:
    class Inner(nn.Module):
        def forward(self, x: Tensor, *, extra: float = 0.5) -> Tensor:
            return soften(x**power, dim=-1) + extra

    return Inner


def test_closures_and_keyword_defaults_survive(toys: ModuleType) -> None:
    model, x = make_closure(2)(), torch.randn(3, 5)
    report = toys.apply(model)
    torch.testing.assert_close(run(model, x), F.softmax(x**2, -1) + 0.5)
    assert report.calls["softmax"] == 1
    report.undo()
    assert torch.equal(run(model, x), F.softmax(x**2, -1) + 0.5)
