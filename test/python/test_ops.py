"""Every operation is defined as documented, on inputs that make each argument matter."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "models")]

import op_costs  # noqa: E402
from op_table import load_ops  # noqa: E402
from tolerance import Tolerance, allowed  # noqa: E402

from op import DTYPES, Case, Inputs, Op  # noqa: E402

OPS = load_ops()
SMALL = {name: op.cpu_shapes[1] for name, op in OPS.items()}
each_op = pytest.mark.parametrize("op", OPS.values(), ids=OPS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def draw(op: Op, dtype: str, kind: str = "normal", seed: int = 7, shape: tuple[int, ...] | None = None) -> Inputs:
    return op.make_inputs(shape or SMALL[op.name], DTYPES[dtype], torch.Generator().manual_seed(seed), kind)


def wide(inputs: Inputs) -> Inputs:
    return tuple(t.double() if t is not None and t.is_floating_point() else t for t in inputs)


def tolerance(op: Op, dtype: str, inputs: Inputs) -> Tolerance:
    reference = op.reference(*wide(inputs))
    return allowed(op, Case(SMALL[op.name]), wide(inputs), reference, op.eager(*inputs), DTYPES[dtype])


def test_the_twelve_operations_are_there() -> None:
    assert set(OPS) == {
        *("matmul", "linear", "softmax", "layernorm", "rmsnorm", "flash_attention", "flash_attention_gqa"),
        *("fused_mlp", "cross_entropy", "rotary_embedding", "reduce", "reduce_max"),
    }


@each_dtype
@each_op
def test_the_reference_is_finite_in_the_dtype_on_every_kind_of_input(op: Op, dtype: str) -> None:
    for kind in ("normal", *op.stability):
        inputs = draw(op, dtype, kind)
        reference = op.reference(*wide(inputs))
        assert reference.dtype == torch.float64
        assert reference.to(DTYPES[dtype]).isfinite().all(), kind
        assert all(t is None or t.dtype in (DTYPES[dtype], torch.int64) for t in inputs)


@each_dtype
@each_op
def test_perturbing_any_argument_moves_the_reference_by_more_than_ten_tolerances(op: Op, dtype: str) -> None:
    inputs = draw(op, dtype)
    given = tolerance(op, dtype, inputs)
    other = draw(op, dtype, seed=8)
    for i, argument in enumerate(inputs):
        if argument is None:
            continue
        replacement = other[i]
        assert replacement is not None
        if argument.is_floating_point():
            spread = argument.double().std()
            noise = torch.randn(argument.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
            replacement = argument.double() + spread * noise
        changed = [*wide(inputs)]
        changed[i] = replacement
        moved = op.reference(*changed).to(DTYPES[dtype])
        assert given.judge(moved).worst > 10, op.arguments[i]


@each_op
def test_every_variant_of_the_options_moves_the_reference_by_more_than_ten_tolerances(op: Op) -> None:
    inputs = draw(op, "fp16")
    given = tolerance(op, "fp16", inputs)
    for variant in op.variants:
        outcome = given.judge(op.reference(*wide(inputs), **variant).half())
        assert outcome.worst > 10, variant


@each_op
def test_the_vendor_and_eager_compute_the_same_function_in_float64(op: Op) -> None:
    inputs = wide(draw(op, "fp32"))
    for options in ({}, *op.variants):
        reference = op.reference(*inputs, **options)
        size = float(reference.abs().max())
        for run, room in ((op.eager, 1e-5), (op.vendor, 1e-12)):  # eager goes through fp32 as models do
            if run is not None:
                assert torch.allclose(run(*inputs, **options).double(), reference, rtol=room, atol=room * size)


@each_op
def test_the_same_seed_gives_the_same_inputs_and_another_seed_others(op: Op) -> None:
    first, again, other = (draw(op, "fp32", seed=seed)[0] for seed in (1, 1, 2))
    assert first is not None and again is not None and other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@each_op
def test_cpu_cases_are_what_a_cpu_can_bear(op: Op) -> None:
    shapes = (op.cpu_primary, *op.cpu_shapes, *op.cpu_edges)
    assert op.cpu_primary in op.cpu_shapes and op.primary in op.gpu_shapes
    for shape in shapes:
        assert op.flops(shape, {"causal": False}) <= 2e9
        assert op.bytes_moved(shape, torch.float32, {}) <= 64e6
        if op.matmul_like:
            assert max(shape) <= 512
    for shape in (*shapes, *op.gpu_shapes, *op.gpu_edges):
        assert len(shape) == len(op.dims) or (op.name == "flash_attention" and len(shape) == 5)


def test_targets_include_the_first_and_the_last_class() -> None:
    targets = draw(OPS["cross_entropy"], "fp32")[1]
    assert targets is not None
    assert {0, SMALL["cross_entropy"][1] - 1} <= set(targets.tolist())


@pytest.mark.parametrize("rows", [64, 4096])
def test_no_row_of_a_cross_entropy_costs_more_than_a_fifth_of_all(rows: int) -> None:
    logits, targets = draw(OPS["cross_entropy"], "fp32", shape=(rows, 50))
    assert logits is not None and targets is not None
    losses = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    assert 0.15 < losses.max() / losses.sum() < 0.25


def test_linear_has_a_bias_in_about_half_of_its_cases() -> None:
    op = OPS["linear"]
    for shapes in (op.cpu_shapes, op.cpu_edges, op.gpu_shapes, op.gpu_edges):
        assert 0.4 <= sum(shape[3] for shape in shapes) / len(shapes) <= 0.7
    assert draw(op, "fp32", shape=(4, 3, 2, 0))[2] is None
    assert draw(op, "fp32", shape=(4, 3, 2, 1))[2] is not None


def test_a_causal_mask_is_aligned_at_the_first_query_and_key() -> None:
    q, k = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 5, 4)
    v = torch.arange(5.0).reshape(1, 1, 5, 1).expand(1, 1, 5, 4).contiguous()
    out = OPS["flash_attention"].reference(q.double(), k.double(), v.double())
    assert out[0, 0, :, 0].tolist() == pytest.approx([0.0, 0.5])


def test_each_key_head_serves_consecutive_query_heads() -> None:
    op = OPS["flash_attention_gqa"]
    q, k, v = (t for t in wide(draw(op, "fp32", shape=(1, 4, 2, 8, 8, 4))) if t is not None)
    expected = OPS["flash_attention"].reference(q, k[:, [0, 0, 1, 1]], v[:, [0, 0, 1, 1]])
    assert torch.allclose(op.reference(q, k, v), expected)


@pytest.mark.parametrize(
    ("op", "shape", "options", "flops", "elements"),
    [
        ("matmul", (2, 3, 5), {}, 60, 31),
        ("linear", (2, 3, 5, 1), {}, 66, 34),
        ("softmax", (4, 8), {}, 160, 64),
        ("layernorm", (4, 8), {}, 256, 80),
        ("rmsnorm", (4, 8), {}, 192, 72),
        ("flash_attention", (1, 2, 16, 8), {"causal": False}, 4 * 2 * 256 * 8, 4 * 2 * 16 * 8),
        ("flash_attention", (1, 2, 16, 8), {"causal": True}, 2 * 2 * 256 * 8, 4 * 2 * 16 * 8),
        ("flash_attention", (1, 1, 4, 8, 2), {"causal": True}, 4 * 2 * 8, 2 * 2 * 4 + 2 * 2 * 4),
        ("flash_attention_gqa", (1, 4, 2, 16, 16, 8), {"causal": False}, 4 * 4 * 256 * 8, 2 * (4 + 2) * 16 * 8),
        ("fused_mlp", (2, 3, 5), {}, 180, 12 + 45),
        ("rotary_embedding", (1, 2, 4, 8), {}, 192, 128 + 32),
        ("reduce", (4, 8), {}, 32, 36),
        ("reduce", (4, 8), {"dim": 0}, 32, 40),
        ("reduce_max", (4, 8), {}, 32, 36),
    ],
)
def test_costs_count_each_input_and_output_once(
    op: str, shape: tuple[int, ...], options: dict[str, object], flops: float, elements: float
) -> None:
    assert op_costs.flops(op, shape, options) == flops
    assert op_costs.bytes_moved(op, shape, 2, options) == 2 * elements


def test_cross_entropy_reads_its_logits_its_targets_and_writes_one_number() -> None:
    assert op_costs.flops("cross_entropy", (4, 8), {}) == 128
    assert op_costs.bytes_moved("cross_entropy", (4, 8), 2, {}) == 2 * 33 + 8 * 4


def test_large_gpu_shapes_keep_the_documented_primaries() -> None:
    primaries = {name: math.prod(op.primary[:4]) for name, op in OPS.items()}
    assert OPS["fused_mlp"].primary == (2048, 2048, 5504)
    assert OPS["cross_entropy"].primary == (4096, 32000)
    assert OPS["rotary_embedding"].primary == (2, 32, 1024, 128)
    assert (primaries["matmul"], primaries["reduce"]) == (2048**3, 8192**2)
