"""The judge's parts by themselves: what shared memory shows, which calls are made."""

from __future__ import annotations

import itertools
import random
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))


import arena  # noqa: E402
import op_table  # noqa: E402
import roofline  # noqa: E402
import trials  # noqa: E402
import windows  # noqa: E402
import wire  # noqa: E402
from correctness import limits_for  # noqa: E402

from op import DTYPES as op_dtypes  # noqa: E402

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (lambda b, _: b["offset"] + 3, "wrote into x"),
        (lambda b, _: b["offset"] - 5, "before x"),
        (lambda b, _: b["offset"] + 4 * 6 + 2, "past the end of x"),
        (lambda _, s: s["offset"] + 4 * 6 + 1, "past the end of the output"),
        (lambda _, s: s["offset"] + 1, ""),
    ],
)
def test_shared_memory_shows_every_byte_written_outside_the_output(where, words: str) -> None:
    block = arena.Arena(CPU, 1 << 20)
    placed, slot = block.place("x", torch.arange(6.0).view(2, 3)), block.slot("the output", [2, 3], torch.float32)
    block.seal()
    assert arena.view(block.flat, slot).isnan().all()
    block.flat[where(placed, slot)] ^= 0x10
    assert (words in block.damage([slot])) if words else block.damage([slot]) == ""
    block.close()


def test_the_candidate_sees_the_same_tensor_and_cannot_shrink_the_block() -> None:
    import os

    block = arena.Arena(CPU, 1 << 20)
    assert block.fd is not None
    strided = torch.randn(4, 6).t()
    buffer = block.place("x", strided, [1, 6])
    theirs = arena.attach(os.dup(block.fd), block.size, None)
    assert torch.equal(arena.view(theirs, buffer), strided) and arena.view(theirs, buffer).stride() == (1, 6)
    with pytest.raises(OSError):
        os.ftruncate(block.fd, 4096)


def test_a_message_too_long_or_too_slow_is_refused_unread() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall((wire.MAX_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(wire.BadMessage):
        wire.recv(ours, 1)
    theirs.sendall(b"\0\0\0\x05{")
    with pytest.raises(wire.TimedOut):
        wire.recv(ours, 0.05)
    theirs.close()
    with pytest.raises(wire.Closed):
        wire.recv(ours, 1)


def test_every_timed_call_sees_inputs_of_its_own_that_the_judge_can_reconstruct() -> None:
    op = op_table.load_ops()["rmsnorm"]
    case = trials.whole(op, (32, 128))
    block, (timed,) = windows.prepare(op, [(case, 1.0)], "fp32", CPU, 1 << 20, random.Random(1))
    offsets, kept = arena.schedule("secret", 50, timed.starts, windows.KEEP)
    assert arena.schedule("secret", 50, timed.starts, windows.KEEP) == (offsets, kept)
    assert len(set(offsets)) == 50 and kept[-1] == 49
    assert block.pristine is not None
    for row in offsets[:5]:
        x, weight = windows.window(timed, block.pristine, row)
        assert x is not None and weight is not None
        assert x.shape == (32, 128) and weight.shape == (128,)
        assert x.isfinite().all() and x.abs().sum() > 0
    block.close()


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("name", ["cross_entropy", "linear", "reduce_max"])
def test_refreshed_data_is_new_at_every_address_whole_finite_and_known_to_the_judge(name: str, dtype: str) -> None:
    torch.manual_seed(1)  # the few targets are rolled by chance: one in eight times they would come to lie as they did
    op = op_table.load_ops()[name]
    case = trials.whole(op, op.cpu_shapes[0])
    block, (timed,) = windows.prepare(op, [(case, 1.0)], dtype, CPU, 1 << 20, random.Random(1))
    assert block.pristine is not None
    row = tuple(start // 2 for start in timed.starts)
    data = []
    for at in range(3):
        windows.refresh(timed, block, random.Random(at))
        assert block.damage([timed.order["outputs"]]) == ""
        data.append([t for t in windows.window(timed, block.pristine, row) if t is not None])
    for one, two in itertools.pairwise(data):
        for a, b in zip(one, two, strict=True):
            assert a.isfinite().all()
            assert not torch.equal(a, b)
            if a.is_floating_point() and a.numel() > 1000:
                assert float((a != b).float().mean()) > 0.9
                quotients = (a.double() / b.double()).flatten()  # and no few factors lead from one to the other
                assert len(quotients[quotients.isfinite()].unique()) > 500
    block.close()


@pytest.mark.parametrize("known", [False, True])
def test_an_operation_that_may_not_take_every_sign_keeps_them(known: bool) -> None:
    op = op_table.load_ops()["reduce_max"]
    log = replace(op, eager=lambda x, **_: x.log(), make_inputs=lambda shape, *_: (torch.rand(shape) + 1,))
    case = trials.whole(op, (32, 128))
    block, (timed,) = windows.prepare(
        replace(log, guessed=not known), [(case, 1.0)], "fp32", CPU, 1 << 20, random.Random(1)
    )
    pool, base = timed.pools[0], timed.bases[0]
    assert pool is not None and base is not None
    windows.refresh(timed, block, random.Random(1))
    part = arena.view(block.flat, pool) / base
    assert 0.5 <= float(part.min()) < float(part.max()) <= 1
    block.close()


def test_the_content_of_timed_inputs_never_comes_again_even_at_a_tiny_shape() -> None:
    op = op_table.load_ops()["cross_entropy"]
    case = trials.whole(op, (8, 256))
    block, (timed,) = windows.prepare(op, [(case, 1.0)], "fp16", CPU, 1 << 18, random.Random(1))
    assert block.pristine is not None
    seen = set()
    rows = {(at, 0) for at in range(timed.starts[0])}
    for row in rows:
        logits, targets = windows.window(timed, block.pristine, row)
        assert logits is not None and targets is not None
        assert logits.isfinite().all() and 0 <= int(targets.min()) <= int(targets.max()) < 256
        seen.add(logits.numpy().tobytes())
    assert len(seen) == len(rows) > 100
    block.close()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", sorted(op_table.load_ops()))
def test_who_does_not_see_the_spikes_of_a_timed_call_is_wrong_and_who_does_is_right(name: str, dtype: str) -> None:
    op = op_table.load_ops()[name]
    case = trials.whole(op, op.cpu_primary)
    block, (timed,) = windows.prepare(op, [(case, 1.0)], dtype, CPU, 1 << 20, random.Random(1))
    assert block.pristine is not None and timed.spiked is not None
    numel = torch.Size(timed.order["inputs"][timed.spiked]["shape"]).numel()
    (offsets, *_), _ = arena.schedule("secret", 1, timed.starts, windows.KEEP)
    windows.refresh(timed, block, random.Random(2))
    plain = windows.window(timed, block.pristine, offsets)
    spiked = windows.window(timed, block.pristine, offsets, arena.spikes("secret", 1, numel)[0])
    eager = op.eager(*spiked, **case.options)
    limit = limits_for(op, case, spiked, eager, op_dtypes[dtype], False)
    assert limit.judge(eager).ok and not limit.judge(op.eager(*plain, **case.options)).ok
    block.close()


@pytest.mark.parametrize("name", sorted(op_table.load_ops()))
def test_an_exam_covers_all_dtypes_every_kind_of_input_odd_strides_and_sizes_nobody_was_told(name: str) -> None:
    op = op_table.load_ops()[name]
    plan = trials.Plan(op, "fp32", [], False, random.Random(3))
    shapes, edges = plan.shapes(), plan.edges()
    assert {t.dtype for t in shapes} == {torch.float16, torch.bfloat16, torch.float32}
    assert {t.kind for t in plan.stability()} == set(op.stability)
    assert set(trials.LAYOUTS) <= {t.layout for t in edges}
    told = {*op.cpu_shapes, *op.cpu_edges}
    assert any(t.case.shape not in told and not t.empty for t in edges)
    for variant in op.variants:
        assert any(all(t.case.options[k] == v for k, v in variant.items()) for t in shapes)
    generator = torch.Generator().manual_seed(0)
    unknown = [t for t in edges if t.case.shape not in told and not t.empty]
    for trial in unknown:
        inputs = op.make_inputs(trial.case.shape, trial.dtype, generator, trial.kind)
        assert op.eager(*inputs, **trial.case.options).isfinite().all()


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("name", sorted(op_table.load_ops()))
def test_in_every_dtype_every_free_size_is_odd_at_least_once(name: str, gpu: bool) -> None:
    op = op_table.load_ops()[name]
    fixed = {"bias", "H", "Hkv", "D"} if {"S", "Sq"} & {*op.dims} else {"bias"}
    for seed in range(40):
        plan = trials.Plan(op, "bf16", [], gpu, random.Random(seed))
        edges = [t for t in plan.edges() if not t.empty and t.layout == "plain"]
        for at, dim in enumerate(op.dims):
            for dtype in (torch.float16, torch.bfloat16, torch.float32):
                if dim not in fixed and plan.own[0][at] >= 4:
                    assert any(t.case.shape[at] % 2 for t in edges if t.dtype == dtype), (seed, dim, dtype)


def test_a_models_shapes_come_first_and_its_heaviest_is_the_primary() -> None:
    op = op_table.load_ops()["matmul"]
    told = [{"shape": [8, 16, 32], "weight": 0.2}, {"shape": [16, 16, 32], "weight": 0.8}]
    plan = trials.Plan(op, "bf16", told, False, random.Random(0))
    assert plan.primary.shape == (16, 16, 32)
    assert [t.case.shape for t in plan.shapes()[:2]] == [(8, 16, 32), (16, 16, 32)]
    assert plan.quick()[0].dtype == torch.bfloat16


def test_the_roofline_takes_the_tighter_bound_and_weighs_the_shapes() -> None:
    op = op_table.load_ops()["matmul"]
    peaks = {"gbps": 100.0, "tflops": {"fp32": 1.0}}
    big = roofline.limit(op, trials.whole(op, (1000, 1000, 1000)), "fp32", peaks)
    thin = roofline.limit(op, trials.whole(op, (1, 1000, 1000)), "fp32", peaks)
    assert (big[0], thin[0]) == ("compute", "memory")
    assert big[3] == pytest.approx(2000.0)
    assert roofline.weighted([big, thin], [0.75, 0.25])["limit_us"] == pytest.approx(0.75 * big[3] + 0.25 * thin[3])


@pytest.mark.parametrize(
    ("shape", "strides", "dense"),
    [
        ([4, 5], [5, 1], True),
        ([4, 5], [1, 4], True),
        ([4, 5], [0, 1], False),
        ([4, 5], [6, 1], False),
        ([1, 5], [9, 1], True),
    ],
)
def test_dense_means_every_element_its_own_place_and_no_gaps(shape: list[int], strides: list[int], dense: bool) -> None:
    assert arena.is_dense(shape, strides) is dense
