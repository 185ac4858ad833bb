"""A user's own operation: an Op, a file of plain names or a KernelBench file; a bad file is one clear line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "models")]

from op_table import OpFileError, load_op_file  # noqa: E402
from tolerance import allowed  # noqa: E402

from op import Case  # noqa: E402

KERNELBENCH = """
import torch
class Model(torch.nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.norm, self.line = torch.nn.LayerNorm(n), torch.nn.Linear(n, m)
    def forward(self, x):
        return torch.relu(self.line(self.norm(x)))
def get_inputs():
    return [torch.rand(8, 16)]
def get_init_inputs():
    return [16, 4]
"""
PLAIN = """
import torch
shapes = [(4, 6), (3, 1)]
options = {"alpha": 2.0}
def make_inputs(shape):
    return torch.randn(shape), torch.randn(shape)
def reference(x, y, alpha=1.0):
    return x + alpha * y
"""


def test_a_kernelbench_file_is_an_operation_whose_parameters_are_arguments(tmp_path: Path) -> None:
    (tmp_path / "19_LayerLine.py").write_text(KERNELBENCH)
    op = load_op_file(tmp_path / "19_LayerLine.py")
    assert (op.name, op.primary, len(op.arguments)) == ("layerline", (8, 16), 5)
    assert op.flops(op.primary, {}) == 2 * 8 * 16 * 4
    assert op.bytes_moved(op.primary, torch.bfloat16, {}) == 2 * (8 * 16 + 16 + 16 + 64 + 4 + 8 * 4)
    inputs = op.make_inputs(op.primary, torch.bfloat16, torch.Generator().manual_seed(7), "normal")
    exact = [t.double() for t in inputs if t is not None]
    x, scale, shift, weight, bias = exact
    normal = torch.nn.functional.layer_norm(x, (16,), scale, shift)
    assert torch.allclose(op.reference(*exact), torch.relu(torch.nn.functional.linear(normal, weight, bias)))
    assert not torch.equal(scale, torch.ones_like(scale)) and bool(shift.abs().sum() > 0)  # not to be ignored
    reference, eager = op.reference(*exact), op.eager(*inputs)
    given = allowed(op, Case(op.primary), exact, reference, eager, torch.bfloat16)
    assert given.judge(eager).ok
    assert given.judge(torch.zeros(8, 4, dtype=torch.bfloat16)).worst > 5


def test_a_file_of_plain_names_is_an_operation(tmp_path: Path) -> None:
    (tmp_path / "axpy.py").write_text(PLAIN)
    op = load_op_file(tmp_path / "axpy.py")
    assert (op.name, op.gpu_shapes, op.options) == ("axpy", ((4, 6), (3, 1)), {"alpha": 2.0})
    x, y = op.make_inputs((4, 6), torch.float16, torch.Generator().manual_seed(0), "normal")
    assert x is not None and y is not None and x.dtype == torch.float16
    assert torch.equal(op.reference(x, y, **op.options), x + 2 * y)
    assert op.bytes_moved((4, 6), torch.float32, {}) == 3 * 24 * 4


def test_a_file_may_hand_over_an_op_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from op_table import load_ops\nOP = load_ops()['softmax']\n")
    assert load_op_file(tmp_path / "mine.py").name == "softmax"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def reference(:\n", r"bad\.py:1: "),
        ("import no_such_module_anywhere\n", "ModuleNotFoundError while importing it"),
        ("x = 1\n", "expected OP, or reference .* found x"),
        ("def reference(x): return x\ndef make_inputs(shape): return shape\n", "make_inputs needs shapes"),
        ("def reference(x): return x\ndef get_inputs(): return [3]\n", "inputs must be tensors or None, got int"),
        (PLAIN.replace("x + alpha * y", "(x, y)"), "must return one tensor, got tuple"),
        (PLAIN.replace("x + alpha * y", "x @ y"), "RuntimeError while trying it"),
        (KERNELBENCH.replace("[16, 4]", "[16]"), "TypeError while trying it"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "bad.py").write_text(source)
    with pytest.raises(OpFileError, match=said) as error:
        load_op_file(tmp_path / "bad.py")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(OpFileError, match="no such file"):
        load_op_file(tmp_path / "absent.py")
