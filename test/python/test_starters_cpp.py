"""Every C++ starter is right against the float64 reference: dtypes, hard inputs, strides, emptiness, tunables."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
for folder in ("bench", "models", "kernels"):
    sys.path.append(str(ROOT / folder))

from op_table import load_ops  # noqa: E402
from tolerance import Outcome, allowed  # noqa: E402

from op import DTYPES, Case, Op  # noqa: E402

Kernel = Callable[..., torch.Tensor]
OPS = load_ops()
TUNABLE = re.compile(r"^(?P<name>[A-Z_]+) = (?P<value>\S+)  # tune: (?P<values>.+)$", re.MULTILINE)

# One shape each that no vector or block divides, and a larger one that the tunable blocks do divide in part.
SMALL = {
    "matmul": ((13, 35, 300), (70, 100, 60)),
    "linear": ((13, 35, 300, 1), (70, 100, 60, 0)),
    "fused_mlp": ((5, 19, 37), (64, 32, 96)),
    "flash_attention": ((1, 2, 70, 20), (1, 2, 33, 150, 64)),
    "flash_attention_gqa": ((1, 4, 2, 70, 70, 20), (2, 6, 2, 33, 150, 64)),
    "rotary_embedding": ((1, 3, 7, 38), (2, 4, 64, 64)),
    "cross_entropy": ((5, 1037), (40, 512)),
}
ROWS = ((7, 1037), (64, 512))
EMPTY = {
    "matmul": ((0, 5, 4), (3, 0, 4), (3, 5, 0)),
    "linear": ((0, 5, 4, 1), (3, 5, 0, 1), (3, 5, 0, 0)),
    "fused_mlp": ((0, 4, 8),),
    "flash_attention": ((0, 2, 8, 16), (1, 2, 0, 16)),
    "flash_attention_gqa": ((0, 2, 1, 8, 8, 16), (1, 2, 1, 0, 8, 16)),
    "rotary_embedding": ((1, 2, 0, 8), (0, 2, 4, 8)),
    "reduce": ((0, 5), (5, 0)),
}


def starter(op: str) -> Path:
    return ROOT / "kernels" / op / "starter_cpp.py"


def import_kernel(path: Path, name: str) -> Kernel:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.kernel_fn


@pytest.fixture(scope="module")
def kernels() -> Mapping[str, Kernel]:
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(OPS, pool.map(lambda op: import_kernel(starter(op), f"{op}_cpp"), OPS), strict=True))


def options_of(op: Op, extra: Mapping[str, object]) -> dict[str, object]:
    return {**op.options, **extra}


def judge(op: Op, kernel: Kernel, case: Case, dtype: torch.dtype, kind: str, layout: str = "contiguous") -> Outcome:
    inputs = op.make_inputs(case.shape, dtype, torch.Generator().manual_seed(7), kind)
    options = options_of(op, case.options)
    wide = tuple(t.double() if t is not None and t.is_floating_point() else t for t in inputs)
    reference = op.reference(*wide, **options)
    with torch.no_grad():
        eager = op.eager(*inputs, **options) if reference.numel() else None
        out = kernel(*(arranged(t, layout) for t in inputs), **options)
    assert out.is_contiguous()
    return allowed(op, case, wide, reference, eager, dtype).judge(out)


def arranged(t: torch.Tensor | None, layout: str) -> torch.Tensor | None:
    """The same values in memory that is not contiguous: columns first, or every second element of a larger tensor."""
    if t is None or layout == "contiguous":
        return t
    if layout == "transposed":
        return t.transpose(-1, 0).contiguous().transpose(-1, 0)
    larger = torch.full((*t.shape[:-1], 2 * t.shape[-1] + 1), 77, dtype=t.dtype)
    larger[..., 1::2] = t
    return larger[..., 1::2]


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
@pytest.mark.parametrize("name", OPS)
def test_a_starter_is_right_on_every_kind_of_input_and_with_every_option(
    name: str, dtype: torch.dtype, kernels: Mapping[str, Kernel]
) -> None:
    op = OPS[name]
    for shape in (*SMALL.get(name, ROWS), op.cpu_shapes[0]):
        for kind in ("normal", *op.stability):
            for extra in ({}, *op.variants):
                outcome = judge(op, kernels[name], Case(shape, options_of(op, extra)), dtype, kind)
                assert outcome.ok, f"{kind} {extra}: {outcome.detail}"


@pytest.mark.parametrize("name", OPS)
def test_a_starter_is_right_at_edge_shapes(name: str, kernels: Mapping[str, Kernel]) -> None:
    op = OPS[name]
    for shape in op.cpu_edges:
        outcome = judge(op, kernels[name], Case(shape), torch.bfloat16, "normal")
        assert outcome.ok, outcome.detail


@pytest.mark.parametrize("layout", ["transposed", "every second element"])
@pytest.mark.parametrize("name", OPS)
def test_a_starter_takes_inputs_that_are_not_contiguous(name: str, layout: str, kernels: Mapping[str, Kernel]) -> None:
    op = OPS[name]
    for dtype in (torch.float32, torch.bfloat16):
        outcome = judge(op, kernels[name], Case(SMALL.get(name, ROWS)[0]), dtype, "normal", layout)
        assert outcome.ok, outcome.detail


@pytest.mark.parametrize("name", OPS)
def test_a_starter_takes_empty_inputs_as_eager_does(name: str, kernels: Mapping[str, Kernel]) -> None:
    op = OPS[name]
    if name == "cross_entropy":  # the mean over no rows
        assert kernels[name](torch.empty(0, 9), torch.empty(0, dtype=torch.int64)).isnan()
        return
    for shape in EMPTY.get(name, ((0, 5),)):
        inputs = op.make_inputs(shape, torch.float32, torch.Generator().manual_seed(7), "normal")
        options = options_of(op, {})
        expected = op.eager(*inputs, **options)
        torch.testing.assert_close(kernels[name](*inputs, **options), expected, equal_nan=True, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "layernorm", "rmsnorm"])
def test_a_row_starter_keeps_leading_dimensions(name: str, kernels: Mapping[str, Kernel]) -> None:
    x, *rest = OPS[name].make_inputs((12, 40), torch.float32, torch.Generator().manual_seed(7), "normal")
    assert x is not None
    flat = kernels[name](x, *rest)
    assert torch.equal(kernels[name](x.view(2, 3, 2, 40), *rest), flat.view(2, 3, 2, 40))


def test_linear_and_rotary_take_inputs_of_any_rank(kernels: Mapping[str, Kernel]) -> None:
    x, weight, bias = torch.randn(2, 3, 40), torch.randn(9, 40), torch.randn(9)
    torch.testing.assert_close(kernels["linear"](x, weight, bias), torch.nn.functional.linear(x, weight, bias))
    angles = torch.randn(5, 4)
    y = kernels["rotary_embedding"](torch.ones(5, 8), angles.cos(), angles.sin())
    torch.testing.assert_close(y[:, ::2], angles.cos() - angles.sin())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["softmax", "layernorm", "rmsnorm", "reduce", "reduce_max", "cross_entropy", "matmul"])
def test_nan_and_inf_appear_where_eager_has_them(name: str, bad: float, kernels: Mapping[str, Kernel]) -> None:
    op = OPS[name]
    for shape in SMALL.get(name, ROWS):
        inputs = op.make_inputs(shape, torch.float32, torch.Generator().manual_seed(7), "normal")
        first = inputs[0]
        assert first is not None
        first[1, 3] = first[2, -1] = bad
        got, expected = (f(*inputs, **op.options) for f in (kernels[name], op.eager))
        assert torch.equal(got.isnan(), expected.isnan())
        assert torch.equal(got.isinf(), expected.isinf())


def test_cross_entropy_ignores_what_pytorch_ignores_and_never_reads_outside(kernels: Mapping[str, Kernel]) -> None:
    logits, targets = torch.randn(4, 50), torch.tensor([3, -100, 49, -100])
    expected = torch.nn.functional.cross_entropy(logits, targets)
    torch.testing.assert_close(kernels["cross_entropy"](logits, targets), expected)
    assert kernels["cross_entropy"](logits, torch.tensor([3, 50, 0, 1])).isnan()


def test_the_same_call_gives_the_same_bits(kernels: Mapping[str, Kernel]) -> None:
    for name, op in OPS.items():
        inputs = op.make_inputs(op.cpu_shapes[1], torch.float32, torch.Generator().manual_seed(7), "normal")
        first = kernels[name](*inputs, **op.options)
        kept = first.clone()
        for _ in range(2):
            assert torch.equal(kernels[name](*inputs, **op.options), kept), name
        assert torch.equal(first, kept), f"{name}: a later call changed an earlier result"


def variants(source: str) -> list[str]:
    """Sources in which, taken together, every tunable has each of its values at least once."""
    tunables = [(m["name"], m["value"], m["values"].split()) for m in TUNABLE.finditer(source)]
    assert tunables and all(value in values for _, value, values in tunables), tunables
    sources = []
    for i in range(max(len(values) for _, _, values in tunables)):
        chosen = {name: values[(i + j) % len(values)] for j, (name, _, values) in enumerate(tunables)}
        sources.append(TUNABLE.sub(lambda m, chosen=chosen: f"{m['name']} = {chosen[m['name']]}", source))
    return sources


def test_every_tunable_value_compiles_and_stays_right(tmp_path: Path) -> None:
    paths: list[tuple[str, Path]] = []
    for name in OPS:
        for i, source in enumerate(variants(starter(name).read_text())):
            path = tmp_path / f"{name}_{i}.py"
            path.write_text(source)
            paths.append((name, path))
    with ThreadPoolExecutor(2) as pool:
        built = list(pool.map(lambda job: import_kernel(job[1], job[1].stem), paths))
    for (name, path), kernel in zip(paths, built, strict=True):
        op = OPS[name]
        for shape in SMALL.get(name, ROWS):
            for extra in ({}, *op.variants):
                outcome = judge(op, kernel, Case(shape, options_of(op, extra)), torch.float32, "normal")
                settings = [line for line in path.read_text().splitlines() if re.match(r"[A-Z_]+ = \d+$", line)]
                assert outcome.ok, f"{settings}: {outcome.detail}"
