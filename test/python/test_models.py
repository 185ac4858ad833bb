"""Model files load the same way twice, on every convention, and what is wrong with one is said in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[2] / "models"))

import llama
import model_loader
from model_loader import LoadedModel, ModelError, cast, load

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "test" / "fixtures"


def output(loaded: LoadedModel) -> Tensor:
    with torch.no_grad():
        out = loaded.model(*loaded.inputs)
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize(
    ("name", "millions", "shape"),
    [
        ("gpt2", 124.4, (1, 16, 50257)),
        ("llama", 162.4, (1, 16, 32000)),
        ("bert", 109.5, (1, 16, 768)),
    ],
)
def test_a_model_of_ours_has_its_size_and_its_tokens_in_its_vocabulary(
    name: str, millions: float, shape: tuple[int, ...]
) -> None:
    loaded = load(ROOT / "models" / f"{name}.py", input_shape=[1, 16])
    assert sum(p.numel() for p in loaded.model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    out = output(loaded)
    assert out.shape == shape and bool(out.isfinite().all())


def test_the_template_runs_as_it_stands() -> None:
    out = output(load(ROOT / "models" / "custom.py"))
    assert out.shape == (4, 1000) and bool(out.isfinite().all())


def test_the_7b_is_a_7b_without_building_it() -> None:
    with torch.device("meta"):
        model = llama.Llama7B()
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(6.74, abs=0.01)


def test_the_same_seed_gives_the_same_model_and_inputs_and_another_does_not() -> None:
    file = FIXTURES / "models" / "other_names.py"
    first, second, other = load(file, seed=3), load(file, seed=3), load(file, seed=4)
    assert torch.equal(first.inputs[0], second.inputs[0]) and not torch.equal(first.inputs[0], other.inputs[0])
    assert torch.equal(output(first), output(second)) and not torch.equal(output(first), output(other))
    assert not torch.equal(first.draw_inputs(5)[0], first.inputs[0])


def test_half_precision_casts_numbers_only() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))
            self.register_buffer("turns", torch.polar(torch.ones(2), torch.ones(2)))
            self.register_buffer("order", torch.arange(2))

    model = cast(Holder(), torch.bfloat16, torch.device("cpu"))
    kinds = [t.dtype for t in (*model.parameters(), *model.buffers())]
    assert kinds == [torch.bfloat16, torch.complex64, torch.int64]
    loaded = load(FIXTURES / "models" / "other_names.py", dtype="bf16")
    assert loaded.inputs[0].dtype == torch.int64 and output(loaded).dtype == torch.bfloat16


def test_a_kernelbench_file_needs_nothing_added() -> None:
    loaded = load(FIXTURES / "models" / "kernelbench_softmax.py")
    assert loaded.class_name == "Model" and loaded.inputs[0].shape == (1024, 4096)
    assert torch.allclose(output(loaded).sum(-1), torch.ones(1024))


def test_a_class_without_get_inputs_gets_tokens_of_its_vocabulary_or_numbers() -> None:
    tokens = load(FIXTURES / "models" / "two_classes.py", "Wide", [4, 500])
    assert tokens.inputs[0].dtype == torch.int64
    assert (int(tokens.inputs[0].min()), int(tokens.inputs[0].max())) == (0, 10)
    numbers = load(FIXTURES / "models" / "two_classes.py", "Narrow", [2, 32], dtype="bf16")
    assert numbers.inputs[0].dtype == torch.bfloat16 and numbers.inputs[0].shape == (2, 32)


def test_an_input_shape_replaces_the_files_own() -> None:
    loaded = load(FIXTURES / "models" / "other_names.py", input_shape=[3, 7])
    assert loaded.inputs[0].shape == (3, 7) and output(loaded).shape == (3, 7, 1000)


def test_of_several_classes_the_one_that_no_other_is_made_of_is_the_model(tmp_path: Path) -> None:
    start = "from torch import nn\n\n\n"
    block = "class Block(nn.Linear):\n    pass\n\n\n"
    net = "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.b = Block(4, 4)\n\n"
    forward = "    def forward(self, x):\n        return self.b(x)\n\n\n"
    (tmp_path / "net.py").write_text(start + block + net + forward)
    assert load(tmp_path / "net.py", input_shape=[2, 4]).class_name == "Net"
    (tmp_path / "two.py").write_text(start + block + net + forward + "class Deep(Net):\n    pass\n")
    with pytest.raises(ModelError, match=r"several nn\.Module classes \(Net, Deep\); choose one with --class"):
        load(tmp_path / "two.py", input_shape=[2, 4])


@pytest.mark.parametrize(
    ("file", "class_name", "shape", "said"),
    [
        ("broken/syntax_error.py", None, None, r"syntax_error\.py:5: "),
        ("models/no_module.py", None, None, r"expected an nn\.Module class in it, found none"),
        ("models/two_classes.py", None, None, r"several nn\.Module classes \(Narrow, Wide\); choose one with --class"),
        ("models/two_classes.py", "Wider", None, r"expected an nn\.Module class named Wider, found Narrow, Wide"),
        ("models/two_classes.py", "Wide", None, r"it has no get_inputs\(\); give --input-shape"),
        ("models/forward_raises.py", None, None, r"forward_raises\.py:14: Model\.forward\(.*cannot be multiplied"),
        ("models/none.py", None, None, "there is no such file"),
        ("models/other_names.py", None, [8, 9, 10], "other_names.py:.* raised "),
    ],
)
def test_what_is_wrong_is_one_line(file: str, class_name: str | None, shape: list[int] | None, said: str) -> None:
    with pytest.raises(ModelError, match=said) as error:
        load(FIXTURES / file, class_name, shape)
    assert "\n" not in str(error.value)


def test_a_file_that_ends_the_process_is_an_error_and_no_end(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ModelError, match=r"script\.py:2: importing it raised SystemExit"):
        load(tmp_path / "script.py")


def test_a_model_may_import_its_neighbours_and_nothing_is_written_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "its_layers.py").write_text("from torch import nn\nclass Layer(nn.Linear): pass\n")
    (tmp_path / "net.py").write_text(
        "from its_layers import Layer\nfrom torch import nn\nclass Net(nn.Sequential):\n"
        "    def __init__(self):\n        super().__init__(Layer(4, 4))\n"
    )
    assert output(load(tmp_path / "net.py", input_shape=[2, 4])).shape == (2, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["its_layers.py", "net.py"]


INSISTS = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.full((1,), float(torch.ones(3).sum())))  # no number can be had of meta

    def forward(self, x):
        return x * self.scale
"""


def test_a_model_that_insists_on_the_cpu_is_built_there(tmp_path: Path) -> None:
    file = tmp_path / "insists.py"
    file.write_text(INSISTS)
    module = model_loader._import(file)
    built = model_loader._build(module, module.Model, torch.device("meta"), seed=0)
    assert built.scale.device.type == "cpu" and built.scale.item() == 3.0
