"""The tolerances accept every honest implementation we know, and refuse what skips, drops or ignores something."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "scripts")]

from calibrate_tolerances import cheat_share, cheats_of, exam, honest_worst  # noqa: E402
from op_table import load_ops  # noqa: E402
from tolerance import Tolerance, allowed  # noqa: E402
from tolerance_cases import Cheat, with_tf32  # noqa: E402

from op import DTYPES, Case  # noqa: E402

OPS = load_ops()
SMALL = {name: op.cpu_shapes[1] for name, op in OPS.items()} | {"flash_attention_gqa": (1, 4, 2, 96, 96, 64)}
CHEATS = [(name, cheat) for name, op in OPS.items() for cheat in cheats_of(op)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPS)
def test_honest_implementations_pass_on_every_kind_of_input_with_room(name: str, dtype: str) -> None:
    op = OPS[name]
    kinds = [(Case(SMALL[name], o), kind) for o in ({}, *op.variants) for kind in ("normal", *op.stability)]
    worst, who = honest_worst(op, dtype, kinds)
    assert worst < 0.9, who


@pytest.mark.parametrize(("name", "cheat"), CHEATS, ids=[f"{name}: {cheat.name}" for name, cheat in CHEATS])
def test_a_cheat_is_refused_at_every_dtype(name: str, cheat: Cheat) -> None:
    shares = {dtype: cheat_share(OPS[name], dtype, cheat, 1, SMALL[name]) for dtype in cheat.dtypes}
    assert min(shares.values()) > 1.5, shares


def test_tf32_products_pass_only_where_they_were_allowed() -> None:
    case = Case((128, 128, 128))
    inputs, strict = exam(OPS["matmul"], "fp32", case, "normal", 0)
    _, relaxed = exam(OPS["matmul"], "fp32", case, "normal", 0, allow_tf32=True)
    out = with_tf32(*(t for t in inputs if t is not None))
    assert strict.judge(out).worst > 10
    assert relaxed.judge(out).ok
    assert not relaxed.judge(out * 1.05).ok


def tolerance(values: list[float], limit: float = 0.5, dtype: torch.dtype = torch.float16) -> Tolerance:
    reference = torch.tensor(values, dtype=torch.float64)
    return Tolerance("x", reference, torch.full_like(reference, limit), 1e9, None, dtype)


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("reference", "got", "ok"),
    [
        ([1.0, 2.0], [1.4, 2.4], True),
        ([1.0, 2.0], [1.0, 2.6], False),
        ([1.0, 2.0], [1.0, NAN], False),
        ([1.0, 2.0], [1.0, INF], False),
        ([1.0, INF], [1.0, INF], True),
        ([1.0, INF], [1.0, -INF], False),
        ([1.0, INF], [1.0, 60000.0], False),
        ([1.0, INF], [1.0, NAN], False),
        ([1.0, NAN], [1.0, NAN], True),
        ([1.0, NAN], [1.0, 2.0], False),
        ([1.0, 1e5], [1.0, INF], True),  # past fp16's largest number
        ([1.0, 1e5], [1.0, -INF], False),
        ([1.0, 1e5], [1.0, 7.0], False),
    ],
)
def test_nan_and_inf_belong_exactly_where_the_reference_has_them(
    reference: list[float], got: list[float], ok: bool
) -> None:
    assert tolerance(reference).judge(torch.tensor(got, dtype=torch.float16)).ok is ok


def test_the_detail_names_index_expected_got_allowed_and_how_many_are_wrong() -> None:
    out = torch.tensor([[1.0, 2.0], [9.0, 4.0]], dtype=torch.float32)
    reference = torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.float64)
    outcome = Tolerance("op 2x2 fp32", reference, torch.full_like(reference, 0.5), 1e9, None, torch.float32).judge(out)
    assert (outcome.ok, outcome.worst, outcome.max_abs_err) == (False, 12.0, 6.0)
    assert outcome.detail == (
        "op 2x2 fp32: worst at [1, 0]: expected 3, got 9, allowed +-0.5; 2 of 4 elements are wrong (50 %)"
    )


def test_small_errors_everywhere_fail_together_even_where_each_is_allowed() -> None:
    reference = torch.ones(10000, dtype=torch.float64)
    strict = Tolerance("x", reference, torch.full_like(reference, 0.5), 10.0, 2.0, torch.float32)
    outcome = strict.judge(torch.full((10000,), 1.2))
    assert not outcome.ok
    assert outcome.worst == pytest.approx(2.0, rel=1e-3)
    assert "together" in outcome.detail and "eager PyTorch has 0.02" in outcome.detail


@pytest.mark.parametrize("out", [torch.zeros(2), torch.zeros(3, dtype=torch.float16), torch.zeros(3, 1)])
def test_another_shape_or_dtype_is_wrong_even_if_it_would_broadcast(out: torch.Tensor) -> None:
    outcome = tolerance([0.0, 0.0, 0.0], dtype=torch.float32).judge(out)
    assert not outcome.ok
    assert "expected an output [3] fp32" in outcome.detail


def test_an_eager_that_overflows_is_no_yardstick() -> None:
    op = OPS["reduce"]
    inputs, _ = exam(op, "fp16", Case((4, 64)), "normal", 0)
    x = inputs[0]
    assert x is not None
    reference = op.reference(x.double())
    broken = torch.full((4,), INF, dtype=torch.float16)
    given = allowed(op, Case((4, 64)), (x.double(),), reference, broken, torch.float16)
    assert given.eager_error is None
    assert given.judge(op.eager(x)).ok
    assert not given.judge(broken).ok


def test_an_infinite_output_gives_its_neighbours_no_infinite_allowance() -> None:
    op = replace(OPS["reduce"], magnitude=lambda x, dim=-1: x.abs().sum().expand(x.shape[0]))
    x = torch.ones(3, 4, dtype=torch.float64)
    x[1, 2] = INF
    given = allowed(op, Case((3, 4)), (x,), op.reference(x), None, torch.float32)
    assert given.judge(torch.tensor([4.0, INF, 4.0])).ok
    assert not given.judge(torch.tensor([4.0, INF, 4.1])).ok


def test_an_empty_output_is_right() -> None:
    assert tolerance([]).judge(torch.empty(0, dtype=torch.float16)).ok
