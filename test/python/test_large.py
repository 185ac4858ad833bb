"""The stage `large`: more elements than 32 bits can count, here with a threshold that a CPU reaches in milliseconds."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import op_table  # noqa: E402
from arena import Arena, view  # noqa: E402
from correctness import limits_for  # noqa: E402
from large import LargeExam, unwritten  # noqa: E402
from seal import Seal  # noqa: E402
from slices import boundaries, grow, limit_of, limit_of_mean, places  # noqa: E402
from verdict import Verdict  # noqa: E402
from worker import WorkerFailed  # noqa: E402

from op import Case, Op  # noqa: E402

CPU = torch.device("cpu")
ELEMENTS = 1 << 16
OPS = op_table.load_ops()
SMALL = {name: op.cpu_shapes[0] for name, op in OPS.items()} | {"cross_entropy": (32, 1000), "reduce": (64, 1000)}
Kernel = Callable[..., torch.Tensor]


def case_of(op: Op) -> Case:
    return Case(SMALL[op.name], op.options)


def judged(op: Op, kernel: Kernel, dtype: torch.dtype = torch.float32, free: int = 1 << 40) -> tuple[Verdict, Any]:
    """What the stage says of a kernel that runs in this process."""

    def call(block: Arena, order: dict[str, Any]) -> dict[str, Any]:
        inputs = [None if b is None else view(block.flat, b) for b in order["inputs"]]
        view(block.flat, order["output"]).copy_(kernel(*inputs, **order["options"]))
        return {}

    verdict = Verdict()
    exam = LargeExam(op, case_of(op), dtype, CPU, random.Random(5), False, call, ELEMENTS)
    return verdict, exam.run(verdict, free)


def wrapped(op: Op) -> Kernel:
    """Its offsets start from 0 again at the threshold, in whatever it reads."""

    def again(t: torch.Tensor) -> torch.Tensor:
        return t.reshape(-1)[torch.arange(t.numel()) % ELEMENTS].reshape(t.shape)

    return lambda *inputs, **options: op.eager(*(None if t is None else again(t) for t in inputs), **options)


def writing_wrapped(op: Op) -> Kernel:
    def kernel(*inputs: Any, **options: Any) -> torch.Tensor:
        right = op.eager(*inputs, **options)
        out = torch.full_like(right, float("nan")).reshape(-1)
        out[torch.arange(right.numel()) % ELEMENTS] = right.reshape(-1)
        return out.reshape(right.shape)

    return kernel


@pytest.mark.parametrize("name", sorted(OPS))
def test_the_reference_by_rows_is_the_whole_reference(name: str) -> None:
    op = OPS[name]
    assert op.rows is not None
    grown = grow(op, op.rows, case_of(op), torch.float32, CPU, ELEMENTS)
    assert max(like.numel for like in grown.with_rows()) > ELEMENTS
    inputs = op.make_inputs(grown.case.shape, torch.float32, torch.Generator().manual_seed(1), "normal")
    assert [None if like is None else like.shape for like in grown.inputs] == [
        None if t is None else tuple(t.shape) for t in inputs
    ]
    eager = op.eager(*inputs, **grown.case.options)
    assert (tuple(eager.shape), eager.dtype) == (grown.output.shape, grown.output.dtype)
    whole = limits_for(op, grown.case, inputs, eager, torch.float32, False)
    if op.rows.mean:
        few = limit_of_mean(replace(grown, at_once=7), inputs, False)
        torch.testing.assert_close(few.reference, whole.reference, rtol=1e-12, atol=0)
        assert whole.limit <= few.limit <= 1.5 * whole.limit and few.norm_limit <= 2 * whole.norm_limit
        return
    for first, last in places(grown, random.Random(2)):
        some = limit_of(grown, inputs, first, last, False)
        torch.testing.assert_close(some.reference, whole.reference[first:last], rtol=1e-12, atol=1e-12)
        assert (some.limit <= whole.limit[first:last] * 1.001).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", sorted(OPS))
def test_a_right_kernel_passes(name: str, dtype: torch.dtype) -> None:
    verdict, stage = judged(OPS[name], OPS[name].eager, dtype)
    assert (stage["status"], verdict.kind, verdict.detail) == ("pass", "pass", ""), stage
    assert 0 <= (verdict.worst or 0) < 1 and "rows" in stage["detail"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", sorted(OPS))
def test_a_kernel_whose_offsets_start_again_at_the_threshold_is_wrong_and_told_where(
    name: str, dtype: torch.dtype
) -> None:
    op = OPS[name]
    assert op.rows is not None
    rows = grow(op, op.rows, case_of(op), dtype, CPU, ELEMENTS)
    verdict, stage = judged(op, wrapped(op), dtype)
    assert (stage["status"], verdict.kind) == ("fail", "wrong")
    assert verdict.detail == f"large: {stage['detail']}" and rows.label in stage["detail"]
    assert "64 bits" in stage["detail"]
    if not op.rows.mean:  # a row past the threshold, counted from the first of all
        row = int(stage["detail"].split("worst at [")[1].split(",")[0].split("]")[0])
        assert rows.count - 2 * rows.span <= row < rows.count


@pytest.mark.parametrize(
    "name", [name for name in sorted(OPS) if name not in ("cross_entropy", "reduce", "reduce_max")]
)
def test_a_kernel_that_does_not_write_past_the_threshold_is_wrong(name: str) -> None:
    verdict, stage = judged(OPS[name], writing_wrapped(OPS[name]))
    assert verdict.kind == "wrong" and "never written" in stage["detail"]


@pytest.mark.parametrize("name", [name for name in sorted(OPS) if name != "cross_entropy"])
def test_a_tail_left_as_poison_or_as_fresh_memory_is_wrong(name: str) -> None:
    op = OPS[name]

    def forgets(value: float) -> Kernel:
        def kernel(*inputs: Any, **options: Any) -> torch.Tensor:
            out = op.eager(*inputs, **options)
            out[-1] = value
            return out

        return kernel

    assert all(judged(op, forgets(value))[0].kind == "wrong" for value in (float("nan"), 0.0))


def test_what_was_never_written_is_found_wherever_it_is() -> None:
    out = torch.randn(7, 20000)
    assert unwritten(out, 8192) is None
    holed = out.clone()
    holed[3, 17] = float("nan")
    assert unwritten(holed, 8192) == 60017
    holed = out.clone()
    holed[2, 100:9000] = 0.0
    first = unwritten(holed, 8192)
    assert first is not None and 40100 <= first < 45000


def test_the_rows_to_be_judged_lie_at_both_ends_and_around_every_boundary_in_bytes() -> None:
    op = OPS["rmsnorm"]
    assert op.rows is not None
    grown = grow(op, op.rows, Case((32, 128), op.options), torch.float32, CPU, ELEMENTS)
    assert grown.count == ELEMENTS // 128 + 2
    assert boundaries(grown) == [128, 256, 384, 512]  # of four bytes an element
    chosen = {row for first, last in places(grown, random.Random(1)) for row in range(first, last)}
    assert {0, 1, 127, 128, 129, 511, 512, 513} <= chosen
    others = [sorted(chosen - {row for m in (0, 128, 256, 384, 512, 514) for row in range(m - 2, m + 2)})]
    others.append(sorted({r for f, last in places(grown, random.Random(2)) for r in range(f, last)} - chosen))
    assert all(others)  # and somewhere that nobody knows


def test_too_little_memory_leaves_the_stage_out_and_says_how_much_it_takes() -> None:
    verdict, stage = judged(OPS["softmax"], OPS["softmax"].eager, free=5_000_000)
    assert (stage["status"], stage["cases"], verdict.kind) == ("skipped", 0, "pass")
    assert stage["detail"].startswith("needs ") and stage["detail"].endswith(" GB, 0.0 GB free")


def failing(error: Exception) -> Kernel:
    def kernel(*_inputs: Any, **_options: Any) -> torch.Tensor:
        raise error

    return kernel


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (WorkerFailed("crash", "out of memory: OutOfMemoryError: CUDA out of memory"), "does not get there: out of"),
        (WorkerFailed("crash", "CUDA error: invalid configuration argument"), "CUDA error: invalid configuration"),
        (WorkerFailed("timeout", "no answer within 30 s; killed"), "does not get there: no answer"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "the judge itself ran out of memory"),
    ],
)
def test_who_says_that_it_cannot_is_not_wrong(error: Exception, words: str) -> None:
    """Attention over many short sequences, heads along the grid's second axis: right wherever it can be started."""
    verdict, stage = judged(OPS["rmsnorm"], failing(error))
    assert (verdict.kind, stage["status"], stage["cases"]) == ("pass", "skipped", 0)
    assert words in stage["detail"]


@pytest.mark.parametrize(
    "detail",
    [
        "AcceleratorError: CUDA error: an illegal memory access was met",
        "the candidate's process was ended by SIGSEGV",
        "CUDA error: unspecified launch failure",
    ],
)
def test_an_address_of_somebody_else_is_wrong(detail: str) -> None:
    verdict, stage = judged(OPS["rmsnorm"], failing(WorkerFailed("crash", detail)))
    assert (verdict.kind, stage["status"]) == ("wrong", "fail")
    assert "offsets need 64 bits" in stage["detail"]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (lambda x, _: x["offset"] + 3, "wrote into x"),
        (lambda x, _: x["offset"] + 4 * 2_000_001, "wrote into x"),
        (lambda x, _: x["offset"] + 2 * 5_000_001 - 1, "wrote into x"),  # in half a word
        (lambda x, _: x["offset"] - 5, "before x"),
        (lambda _, s: s["offset"] - 1, "before the output"),
        (lambda _, s: s["offset"] + 2 * 30 + 1, "past the end of the output"),
        (lambda _, s: s["offset"] + 1, ""),
    ],
)
def test_a_sealed_block_shows_what_was_written_outside_the_output(where: Any, words: str) -> None:
    block = Arena(CPU, 1 << 25)
    placed = block.place("x", torch.randn(5_000_002, 1).bfloat16()[:5_000_001])
    slot = block.slot("the output", [5, 6], torch.bfloat16)
    seal = Seal(block, slot, random.Random(3))
    assert seal.damage() == ""
    block.flat[where(placed, slot)] ^= 0x10
    assert (words in seal.damage()) if words else seal.damage() == ""
    block.close()


def test_a_kernel_that_writes_into_its_inputs_at_this_size_is_wrong() -> None:
    def kernel(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        out = OPS["rmsnorm"].eager(x, weight, eps)
        x[-1, 5] += 1
        return out

    assert "wrote into x" in judged(OPS["rmsnorm"], kernel)[0].detail
