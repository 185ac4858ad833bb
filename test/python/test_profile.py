"""A profile adds up, counts nothing twice, and finds what a model is made of, whatever that is called there."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.extend(str(Path(__file__).resolve().parents[2] / folder) for folder in ("profile", "models", "kernels"))

import profile_model

ROOT = Path(__file__).resolve().parents[2]
CPU = ("--device", "cpu", "--warmup", "1", "--iterations", "2")

HAND_WRITTEN = """
import torch
from torch import nn
from torch.nn.functional import silu

class Scale(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.tiny, self.g = 1e-6, nn.Parameter(torch.rand(n) + 0.5)
    def forward(self, h):
        return self.g * (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.tiny))

class Feed(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.a, self.b = nn.Linear(n, 2 * n, bias=False), nn.Linear(n, 2 * n, bias=False)
        self.c = nn.Linear(2 * n, n, bias=False)
    def forward(self, h):
        return self.c(silu(self.a(h)) * self.b(h))

def spin(h, c, s):
    e, o = h[..., ::2], h[..., 1::2]
    return torch.stack((e * c - o * s, e * s + o * c), dim=-1).flatten(-2)

class Net(nn.Module):
    def __init__(self, n=64):
        super().__init__()
        self.first, self.scale, self.feed, self.last = nn.Linear(n, n), Scale(n), Feed(n), nn.Linear(n, n)
        angles = torch.rand(8, n // 4)
        self.register_buffer("c", angles.cos())
        self.register_buffer("s", angles.sin())
    def forward(self, x):
        x = self.first(self.first(x))
        heads = x.view(x.shape[0], 8, 2, -1).transpose(1, 2)
        x = spin(heads, self.c, self.s).transpose(1, 2).reshape(x.shape)
        x = self.feed(self.scale(x))
        return self.last(torch.cumsum(x, 1)) @ torch.ones(64, 3)
"""


SOFTMAX = """
import torch
from torch import nn

class Model(nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)

def get_inputs():
    return [torch.randn(16, 128)]

def get_init_inputs():
    return []
"""


def profiled(tmp_path: Path, *args: str) -> dict[str, Any]:
    out = tmp_path / "profile.json"
    profile_model.main([*CPU, "--out", str(out), *args])
    return json.loads(out.read_text())


def rows_of(profile: dict[str, Any], op: str) -> list[dict[str, Any]]:
    return [row for row in profile["rows"] if row["op"] == op]


@pytest.fixture(scope="module")
def hand_written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("hand-written")
    file = folder / "net.py"
    file.write_text(HAND_WRITTEN)
    return profiled(folder, "--model", f"{file}:Net", "--input-shape", "2,8,64")


@pytest.mark.parametrize(
    ("model", "shape", "kinds"),
    [
        ("llama.py", "1,16", {"linear", "fused_mlp", "rmsnorm", "flash_attention", "rotary_embedding"}),
        ("gpt2.py", "1,16", {"linear", "layernorm", "flash_attention"}),
        ("bert.py", "1,16", {"linear", "layernorm"}),
        ("custom.py", "1,64,768", {"linear"}),
    ],
)
def test_each_models_profile_adds_up_within_the_clocks_time(
    tmp_path: Path, model: str, shape: str, kinds: set[str]
) -> None:
    trace = tmp_path / "trace.json"
    file = str(ROOT / "models" / model)
    profile = profiled(tmp_path, "--model", file, "--trace", str(trace), "--input-shape", shape)
    rows = profile["rows"]

    assert sum(row["share"] for row in rows) == pytest.approx(1, abs=1e-6)
    assert sum(row["time_us"] for row in rows) == pytest.approx(profile["total_us"])
    assert kinds <= {row["op"] for row in rows if row["sites"]}
    for row in rows:
        assert row["op"] == "other" or row["limit_us"] > 0
        assert row["amdahl"]["2"] == pytest.approx(1 / (1 - row["share"] / 2))
        assert list(row["amdahl"]) == ["1.5", "2", "3", "5"]

    events = json.loads(trace.read_text())["traceEvents"]
    steps = [e["dur"] for e in events if e.get("name", "").startswith("ProfilerStep#") and "dur" in e]
    assert len(steps) == 2
    assert 0 < profile["total_us"] <= sum(steps) / 2
    assert any(e.get("name", "").startswith("autokernel::linear::") for e in events)


def test_a_layer_called_twice_is_one_row_with_two_calls(hand_written: dict[str, Any]) -> None:
    square = [row for row in rows_of(hand_written, "linear") if row["shape"] == [16, 64, 64, 1]]
    assert [(row["calls"], row["sites"]) for row in square] == [(3, ["first", "last"])]


@pytest.mark.parametrize(
    ("op", "shape", "site"),
    [
        ("rmsnorm", [16, 64], "scale"),
        ("fused_mlp", [16, 64, 128], "feed"),
        ("rotary_embedding", [2, 2, 8, 32], "(model):spin"),
    ],
)
def test_what_is_written_by_hand_is_one_row_under_any_name(
    hand_written: dict[str, Any], op: str, shape: list[int], site: str
) -> None:
    (row,) = rows_of(hand_written, op)
    assert (row["shape"], row["calls"], row["dtype"], row["sites"]) == (shape, 1, "fp32", [site])


def test_a_product_outside_of_a_layer_is_a_matmul_that_cannot_be_replaced(hand_written: dict[str, Any]) -> None:
    (row,) = rows_of(hand_written, "matmul")
    assert (row["shape"], row["name"], row["sites"], row["calls"]) == ([16, 3, 64], "aten::mm", [], 1)


def test_what_is_no_known_operation_is_other_under_its_own_name(hand_written: dict[str, Any]) -> None:
    (row,) = [row for row in hand_written["rows"] if row["name"] == "aten::cumsum"]
    assert (row["op"], row["shape"], row["calls"], row["bound"], row["sites"]) == ("other", [2, 8, 64], 1, None, [])
    assert not [row for row in hand_written["rows"] if row["name"] in ("aten::rsqrt", "aten::silu", "aten::stack")]


def test_the_profile_says_what_was_profiled(hand_written: dict[str, Any]) -> None:
    model = hand_written["model"]
    assert (hand_written["format"], hand_written["model_class"], model["class_name"]) == (1, "Net", "Net")
    assert (model["dtype"], model["device"], model["input_shape"]) == ("fp32", "cpu", [2, 8, 64])
    assert hand_written["parameters"] == 2 * (64 * 64 + 64) + 64 + 3 * 64 * 128
    assert hand_written["wall_us"] > 0 and hand_written["device_name"]


def test_people_get_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench_file.py"
    file.write_text(SOFTMAX)
    profile = profiled(tmp_path, "--model", str(file))
    (row,) = rows_of(profile, "softmax")
    assert (row["shape"], row["calls"], len(row["sites"])) == ([16, 128], 1, 1)
    line = next(text for text in capsys.readouterr().out.splitlines() if text.startswith("softmax"))
    assert line.split()[:4] == ["softmax", "16,128", "fp32", "1"]


def test_on_request_it_writes_the_memorys_story_and_torch_compiles_log(tmp_path: Path) -> None:
    file, memory, log = tmp_path / "net.py", tmp_path / "memory.json", tmp_path / "compile.log"
    file.write_text(SOFTMAX)
    extras = ("--memory-snapshot", str(memory), "--compile-log", str(log))
    profiled(tmp_path, "--model", str(file), *extras)
    story = json.loads(memory.read_text())
    assert story["peak_bytes"] == max(step["alive_bytes"] for step in story["history"]) > 0
    assert "cpp_fused" in log.read_text()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def broken(:\n", "model.py:1"),
        ("x = 1\n", "nn.Module"),
        (
            "from torch import nn\nclass Model(nn.Module):\n    def forward(self, x):\n        raise ValueError('no')\n"
            "import torch\ndef get_inputs():\n    return [torch.ones(2)]\n",
            "ValueError: no",
        ),
    ],
)
def test_a_model_at_fault_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, said: str
) -> None:
    file = tmp_path / "model.py"
    file.write_text(source)
    with pytest.raises(SystemExit) as stop:
        profile_model.main([*CPU, "--model", str(file)])
    words = capsys.readouterr()
    assert stop.value.code == 2
    assert said in words.err and words.err.count("\n") == 1 and not words.out


@pytest.mark.parametrize(
    "args", [("--input-shape", "1,zero"), ("--iterations", "0"), ("--dtype", "int3"), ("--frobnicate",)]
)
def test_arguments_at_fault_are_one_line_and_exit_2(capsys: pytest.CaptureFixture[str], args: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as stop:
        profile_model.main(["--model", "models/custom.py", *args])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_device_that_is_not_there_is_one_line_and_exit_3(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        profile_model.main(["--model", "models/custom.py", "--device", "rocm"])
    assert stop.value.code == 3
    assert "--device rocm" in capsys.readouterr().err
