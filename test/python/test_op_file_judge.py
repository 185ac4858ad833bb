"""A user's own operation before the judge: inputs that nobody chose for it show what its usual ones do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_client import Client

MODEL = """
import torch
class Model(torch.nn.Module):
    def forward(self, x):
        return {forward}
def get_inputs():
    return [torch.randn({rows}, 100)]
"""
SOFTMAX, TOWER = "torch.softmax(x, dim=1)", "torch.exp(torch.exp(x))"


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(tmp_path_factory.mktemp("cache"))
    yield client
    client.close()


def judged(
    judge: Client, folder: Path, forward: str, body: str, rows: int = 8
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The check, and its stage 3."""
    own, kernel = folder / "own.py", folder / "kernel.py"
    own.write_text(MODEL.format(forward=forward, rows=rows))
    kernel.write_text(f"import torch\n\n\ndef kernel_fn(x):\n    {body}\n")
    check = judge.check(kernel, "own", op_file=str(own))
    return check, next(stage for stage in check["stages"] if stage["name"] == "stability")


def test_a_softmax_without_its_maximum_is_wrong_on_larger_inputs(judge: Client, tmp_path: Path) -> None:
    naive = "e = torch.exp(x.float()); return (e / e.sum(1, keepdim=True)).to(x.dtype)"
    check, stage = judged(judge, tmp_path, SOFTMAX, naive, rows=640)  # so many that one is always large enough
    assert (check["verdict"], stage["status"]) == ("wrong", "fail")
    assert "scaled by 32 inputs" in check["detail"]


def test_an_epsilon_that_nobody_asked_for_is_wrong_on_smaller_inputs(judge: Client, tmp_path: Path) -> None:
    check, _ = judged(
        judge, tmp_path, "x / x.norm(dim=1, keepdim=True)", "return x / (x.norm(dim=1, keepdim=True) + 1e-6)"
    )
    assert check["verdict"] == "wrong" and "scaled by 1/1024 inputs" in check["detail"]


def test_a_right_kernel_passes_on_both(judge: Client, tmp_path: Path) -> None:
    check, stage = judged(judge, tmp_path, SOFTMAX, "x = x - x.amax(1, keepdim=True); return torch.softmax(x, 1)")
    assert check["verdict"] == "pass", check["detail"]
    assert (stage["status"], stage["cases"]) == ("pass", 2)


def test_where_plain_pytorch_overflows_nobody_is_held_to_it(judge: Client, tmp_path: Path) -> None:
    check, stage = judged(judge, tmp_path, TOWER, "return torch.exp(torch.exp(x))")
    assert check["verdict"] == "pass", check["detail"]
    assert (stage["status"], stage["cases"]) == ("pass", 1)  # the smaller ones


HEADS = """
import torch
shapes = [(4, 32, 128)]
def make_inputs(shape):
    return torch.randn(shape), torch.rand(64)
def reference(x, weight):
    return (x.reshape(*x.shape[:2], -1, 64) * weight).reshape(x.shape)
"""


@pytest.mark.parametrize(("rows", "verdict"), [("x.shape[0]", "pass"), ("x.shape[0] // 2 * 2", "wrong")])
def test_sizes_that_must_divide_stay_as_they_are_and_the_others_are_tried(
    judge: Client, tmp_path: Path, rows: str, verdict: str
) -> None:
    own, kernel = tmp_path / "heads.py", tmp_path / "kernel.py"
    own.write_text(HEADS)
    kernel.write_text(
        "import torch\n\n\ndef kernel_fn(x, weight):\n    out = torch.zeros_like(x)\n"
        f"    some = x[: {rows}]\n"
        "    out[: len(some)] = (some.reshape(*some.shape[:2], -1, 64) * weight).reshape(some.shape)\n    return out\n"
    )
    check = judge.check(kernel, "heads", op_file=str(own))
    assert check["verdict"] == verdict, check["detail"]
