"""The stage `large` as the judge runs it: in a process of its own, on request, and never where it cannot be."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_client import Client

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from correctness import Limits  # noqa: E402
from service import Judge  # noqa: E402


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOKERNEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        found = Judge("cpu", "auto", Limits(build=20, call=6))
    found.checks.large_elements = 1 << 22
    yield found
    found.close()


def ask(judge: Judge, folder: Path, body: str, **fields: Any) -> dict[str, Any]:
    path = folder / "kernel.py"
    path.write_text(f"import torch\n\n\ndef kernel_fn(x, weight, eps=1e-6):\n{textwrap.indent(body, '    ')}\n")
    return judge.check({"path": str(path), "op": "rmsnorm", "dtype": "fp32", "shapes": [], "large": True, **fields})


def blocks() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:autokernel")


RIGHT = "out = torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)"


def test_the_judge_runs_it_last_in_a_process_of_its_own_and_gives_the_memory_back(judge: Judge, tmp_path: Path) -> None:
    held = blocks()
    found = ask(judge, tmp_path, f"{RIGHT}\nreturn out")
    assert found["verdict"] == "pass", found["detail"]
    assert (found["stages"][-1]["name"], found["stages"][-1]["status"]) == ("large", "pass")
    assert blocks() == held
    wrong = ask(judge, tmp_path, f"{RIGHT}\nif x.numel() > 3 << 20: out[out.shape[0] // 2 :] = out[-1]\nreturn out")
    assert wrong["verdict"] == "wrong" and wrong["detail"].startswith("large: rmsnorm 2050x2048"), wrong["detail"]
    assert [s["status"] for s in wrong["stages"]] == ["pass"] * 6 + ["fail"]
    gone = ask(judge, tmp_path, "import ctypes\nif x.numel() > 3 << 20: ctypes.string_at(8)\n" + RIGHT + "\nreturn out")
    assert gone["verdict"] == "wrong" and "outside its tensors" in gone["detail"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"large": False}, "not asked for"), ({"quick": True}, "not asked for (quick)")],
)
def test_it_is_left_out_where_nobody_asked(judge: Judge, tmp_path: Path, fields: dict[str, Any], why: str) -> None:
    last = ask(judge, tmp_path, f"{RIGHT}\nreturn out", **fields)["stages"][-1]
    assert last == {"name": "large", "status": "skipped", "cases": 0, "seconds": 0.0, "detail": why}


def test_an_operation_that_does_not_know_its_rows_or_needs_them_all_is_not_asked(judge: Judge, tmp_path: Path) -> None:
    own = tmp_path / "scale.py"
    own.write_text(
        "import torch\nshapes = [(64, 32)]\n"
        "def reference(x): return 2 * x\n"
        "def make_inputs(shape): return [torch.randn(shape)]\n"
    )
    kernel = tmp_path / "double.py"
    kernel.write_text("def kernel_fn(x):\n    return 2 * x\n")
    asked = {"path": str(kernel), "op": "scale", "op_file": str(own), "dtype": "fp32", "shapes": [], "large": True}
    last = judge.check(asked)["stages"][-1]
    assert last["status"] == "skipped" and "Op.rows" in last["detail"]
    kernel.write_text("def kernel_fn(x, dim=-1):\n    return x.sum(dim)\n")
    shapes = [{"shape": [64, 32], "options": {"dim": 0}, "weight": 1.0}]
    last = judge.check({**asked, "op": "reduce", "op_file": None, "shapes": shapes})["stages"][-1]
    assert last["status"] == "skipped" and "dim=0" in last["detail"]


def test_over_the_wire_it_has_to_be_asked_for(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel.py"
    kernel.write_text("def kernel_fn(x):\n    return x.softmax(-1)\n")
    client = Client(tmp_path / "cache")
    try:
        assert client.check(kernel, "softmax")["stages"][-1]["detail"] == "not asked for"
    finally:
        client.close()
