"""verify: the original model against the optimized one, in separate processes, with a real export of a real kernel."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_client import ROOT, Client

sys.path.insert(0, str(ROOT / "bench"))

from compared import counts

MODEL = """
import torch
from torch import nn


class Scale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.rand(width) + 0.5)
        self.tiny = 1e-5

    def forward(self, h):
        return h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.tiny) * self.gain


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 64)
        self.scales = nn.ModuleList(Scale(64) for _ in range(2))
        self.mix = nn.Linear(64, 64)
        self.out = nn.Linear(64, 100)

    def forward(self, tokens):
        h = self.table(tokens)
        for scale in self.scales:
            h = h + self.mix(scale(h))
        return self.out(h)


def get_inputs():
    return [torch.randint(0, 100, (2, 16))]


def get_init_inputs():
    return []
"""
RIGHT = "return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)"


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(tmp_path_factory.mktemp("cache"))
    yield client
    client.close()


def export(folder: Path, body: str, active: bool = True, op: str = "rmsnorm") -> Path:
    optimized = folder / "optimized"
    (optimized / op).mkdir(parents=True)
    for path in (ROOT / "kernels").glob("autokernel_*.py"):
        shutil.copy(path, optimized / ("__init__.py" if path.stem == "autokernel_apply" else path.name))
    header = "import torch\n\n\ndef kernel_fn(x, weight=None, eps=1e-6, **options):\n"
    (optimized / op / "kernel.py").write_text(f"{header}    {body}\n")
    kernel = {"kernel": op, "op": op, "dtype": "fp32", "backend": "cpp", "shapes": [], "active": active}
    (optimized / "manifest.json").write_text(json.dumps({"format": 1, "kernels": [kernel]}))
    return folder


def verify(judge: Client, tmp_path: Path, folder: Path, source: str = MODEL, **more: Any) -> dict[str, Any]:
    model = tmp_path / "model.py"
    model.write_text(source)
    spec = {"file": str(model), "class_name": None, "input_shape": None, "dtype": "fp32", "device": "cpu", "seed": 5}
    fields = {"only": None, "rounds": 0, "nan_probe": True, "compile": False, **more}
    reply = judge.ask("verify", model=spec, optimized=str(folder), **fields)
    assert reply["ok"], reply
    return reply["result"]


def test_a_right_kernel_is_found_in_use_compared_and_timed(judge: Client, tmp_path: Path) -> None:
    found = verify(judge, tmp_path, export(tmp_path, RIGHT), rounds=1)
    assert found["verdict"] == "pass", found["detail"]
    assert found["kernels"] == [{"kernel": "rmsnorm", "sites": 2, "used": True, "detail": ""}]
    assert found["error"]["normwise"] <= found["error"]["allowed_normwise"] < 1e-4
    (first,) = found["rounds"]
    assert first["order"] == first["order"][::-1] and {k: len(v) for k, v in first["ms"].items()} == {
        "original": 6,
        "optimized": 6,
    }


def test_a_kernel_that_is_slightly_off_fails_the_whole_model(judge: Client, tmp_path: Path) -> None:
    found = verify(judge, tmp_path, export(tmp_path, RIGHT + " * 1.0005"))
    assert found["verdict"] == "fail" and "normwise error" in found["detail"]


def test_a_kernel_that_destroys_its_weights_fails(judge: Client, tmp_path: Path) -> None:
    found = verify(judge, tmp_path, export(tmp_path, f"weight.mul_(1.5)\n    {RIGHT}"))
    assert found["verdict"] == "fail"


def test_a_kernel_that_fits_nowhere_is_a_failure_and_no_pass(judge: Client, tmp_path: Path) -> None:
    found = verify(judge, tmp_path, export(tmp_path, "return torch.softmax(x, -1)", op="softmax"))
    assert found["verdict"] == "fail" and "not used by the model: softmax" in found["detail"]
    assert found["kernels"][0]["sites"] == 0 and not found["kernels"][0]["used"]


def test_a_kernel_that_crashes_is_named_as_the_reason(judge: Client, tmp_path: Path) -> None:
    found = verify(judge, tmp_path, export(tmp_path, "raise ValueError('no such size')"))
    assert found["verdict"] == "fail" and "no such size" in found["detail"]


def test_results_remembered_by_a_sample_of_the_input_are_wrong_while_it_is_timed(judge: Client, tmp_path: Path) -> None:
    body = """made = getattr(kernel_fn, "made", {})
    kernel_fn.made, kernel_fn.calls = made, getattr(kernel_fn, "calls", 0) + 1
    key = (float(x.flatten()[0]), float(weight[0]))
    if kernel_fn.calls > 30 and key in made:
        return made[key]
    made[key] = torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)
    return made[key]"""
    found = verify(judge, tmp_path, export(tmp_path, body), rounds=1)
    assert found["verdict"] == "fail" and "computed while being timed" in found["detail"]


def test_a_model_whose_integers_cannot_change_places_is_verified_all_the_same(judge: Client, tmp_path: Path) -> None:
    folder = export(tmp_path, RIGHT)
    pairs = MODEL.replace("(2, 16))]", "(2, 16)).sort().values]").replace(
        "h = self.table(tokens)", "assert bool((tokens.diff() >= 0).all())\n        h = self.table(tokens)"
    )
    found = verify(judge, tmp_path, folder, source=pairs, rounds=1)
    assert found["verdict"] == "pass" and len(found["rounds"]) == 1, found["detail"]


def test_no_name_leads_from_a_kernel_to_the_harness(judge: Client, tmp_path: Path) -> None:
    body = "assert not {'model_child', 'arena', 'candidate'} & set(torch.sys.modules)"
    assert verify(judge, tmp_path, export(tmp_path, f"{body}\n    {RIGHT}"))["verdict"] == "pass"


@pytest.mark.parametrize("told", [None, [], {"rmsnorm": "many"}, {"rmsnorm": None}, {"rmsnorm": [1]}])
def test_what_a_process_says_of_its_calls_is_a_number_or_nothing(told: object) -> None:
    assert counts(told) == {}
    assert counts({"rmsnorm": 2, "softmax": "2"}) == {"rmsnorm": 2}


def test_nothing_active_is_nothing_and_only_names_a_kernel_all_the_same(judge: Client, tmp_path: Path) -> None:
    folder = export(tmp_path, RIGHT, active=False)
    assert verify(judge, tmp_path, folder)["verdict"] == "nothing"
    assert verify(judge, tmp_path, folder, only=["rmsnorm"])["verdict"] == "pass"
