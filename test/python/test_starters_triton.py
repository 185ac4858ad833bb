"""The Triton starters against float64, in Triton's CPU interpreter, and compiled for GPUs that need not be there.

The interpreter is chosen when triton is imported, so it runs in a process of its own: this file, started as a script.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))

from op_table import import_file, load_ops  # noqa: E402
from tolerance import allowed  # noqa: E402

from op import DTYPES, Case  # noqa: E402

pytest.importorskip("triton")

# Small, odd, single, longer than one block, and with every option: what reaches each branch of each wrapper and kernel.
CASES: dict[str, list[tuple[tuple[int, ...], dict[str, object]]]] = {
    "matmul": [((128, 96, 80), {}), ((67, 33, 45), {}), ((1, 5, 1), {})],
    "linear": [((128, 96, 80, 1), {}), ((67, 33, 45, 0), {}), ((1, 5, 3, 1), {})],
    "softmax": [((4, 128), {}), ((3, 1023), {}), ((2, 50257), {}), ((2, 32768), {}), ((1, 1), {})],
    "layernorm": [((4, 256), {}), ((5, 1023), {"eps": 1e-3}), ((1, 20001), {}), ((3, 1), {})],
    "rmsnorm": [((4, 256), {}), ((5, 1023), {"eps": 1e-3}), ((1, 20001), {}), ((3, 1), {})],
    "flash_attention": [
        *(((1, 2, 160, 64), {}), ((1, 2, 127, 64), {"causal": False}), ((1, 1, 70, 150, 128), {})),
        *(((1, 1, 150, 70, 40), {"sm_scale": 0.2}), ((2, 1, 33, 256), {}), ((1, 1, 1, 1, 8), {"causal": False})),
    ],
    "flash_attention_gqa": [
        *(((1, 4, 2, 96, 96, 64), {}), ((1, 6, 2, 50, 80, 128), {}), ((1, 6, 1, 50, 33, 40), {"sm_scale": 0.2})),
        *(((2, 8, 2, 1, 150, 64), {"causal": False}), ((1, 3, 1, 70, 70, 64), {"causal": False})),
    ],
    "fused_mlp": [
        *(((32, 48, 96), {}), ((33, 45, 67), {"activation": "gelu"})),
        *(((17, 32, 40), {"activation": "relu"}), ((17, 32, 40), {"activation": "gelu_erf"}), ((1, 1, 1), {})),
    ],
    "cross_entropy": [((5, 1000), {}), ((3, 50257), {}), ((2, 32000), {}), ((1, 1), {})],
    "rotary_embedding": [((1, 4, 64, 64), {}), ((2, 3, 33, 128), {}), ((1, 5, 7, 80), {}), ((1, 1, 1, 2), {})],
    "reduce": [((4, 1024), {}), ((33, 130), {"dim": 0}), ((3, 20001), {}), ((1, 1), {})],
    "reduce_max": [((3, 300), {}), ((9, 40), {"dim": 0}), ((1, 8200), {}), ((1, 1), {})],
}
Call = Callable[..., torch.Tensor]
OPS = load_ops()


def judged(op_name: str, kernel_fn: Call, call: str) -> str:
    """'' when the kernel is right in this case, else what is wrong."""
    op = OPS[op_name]
    index, dtype_name, kind = call.split()
    shape, options = CASES[op_name][int(index)]
    case = Case(shape, {**op.options, **options})
    inputs = op.make_inputs(shape, DTYPES[dtype_name], torch.Generator().manual_seed(7), kind)
    wide = tuple(t.double() if t is not None and t.is_floating_point() else t for t in inputs)
    reference = op.reference(*wide, **case.options)
    limit = allowed(op, case, wide, reference, op.eager(*inputs, **case.options), DTYPES[dtype_name])
    return limit.judge(kernel_fn(*inputs, **case.options)).detail


def strided(t: torch.Tensor) -> torch.Tensor:
    """The same values in which no dimension is contiguous."""
    spread = torch.stack([t, torch.full_like(t, 77)], dim=-1)
    return spread[..., 0]


def near(out: torch.Tensor, right: torch.Tensor) -> bool:
    return torch.allclose(out, right, rtol=1e-5, atol=1e-5)


def special(starters: dict[str, Call]) -> Iterator[tuple[str, bool]]:
    """What make_inputs does not draw: layouts, ranks, empty inputs, NaN and infinity."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(6, 40, generator=g)
    w = torch.randn(40, generator=g)
    yield "matmul takes views", near(starters["matmul"](strided(x), x.t()), x @ x.t())
    linear = starters["linear"](x.view(2, 3, 40), strided(x))
    yield "linear takes any rank", near(linear, (x @ x.t()).view(2, 3, 6))
    for name in ("softmax", "layernorm", "rmsnorm"):
        more = {"softmax": (), "layernorm": (w, w), "rmsnorm": (w,)}[name]
        plain = starters[name](x, *more)
        yield f"{name} takes views", torch.equal(starters[name](strided(x), *more), plain)
        yield f"{name} takes any rank", torch.equal(starters[name](x.view(2, 3, 40), *more), plain.view(2, 3, 40))
        yield f"{name} of nothing is nothing", starters[name](x[:0], *more).shape == (0, 40)
    qkv = torch.randn(1, 20, 3, 2, 16, generator=g).unbind(2)  # as a model's one projection leaves it
    q, k, v = (t.transpose(1, 2) for t in qkv)
    right = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    for name in ("flash_attention", "flash_attention_gqa"):
        yield f"{name} takes views", near(starters[name](q, k, v), right)
        yield f"{name} of nothing is nothing", starters[name](q[:0], k[:0], v[:0]).shape == (0, 2, 20, 16)
        yield (
            f"{name} scales by less than 0",
            near(
                starters[name](q, k, v, causal=False, sm_scale=-0.3),
                torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=-0.3),
            ),
        )
    cos, sin = torch.randn(2, 20, 8, generator=g)
    plain = starters["rotary_embedding"](q.contiguous(), cos, sin)
    yield "rotary_embedding takes views", torch.equal(starters["rotary_embedding"](q, strided(cos), sin), plain)
    targets = torch.tensor([3, -100, 0, 39, -100, 5])
    loss = starters["cross_entropy"](strided(x), targets)
    yield "cross_entropy leaves ignored rows out", near(loss, torch.nn.functional.cross_entropy(x, targets))
    masked = x.masked_fill(torch.rand(6, 40, generator=g) < 0.3, float("-inf"))
    masked[:, 0] = 1.0
    loss = starters["cross_entropy"](masked, targets.clamp_max(0).clamp_min(0))
    yield "cross_entropy takes -inf", near(loss, torch.nn.functional.cross_entropy(masked, 0 * targets))
    yield "reduce takes views", near(starters["reduce"](strided(x), dim=0), x.sum(0))
    yield (
        "reduce takes any rank",
        near(starters["reduce"](x.view(2, 3, 40), dim=1), x.view(2, 3, 40).sum(1)),
    )
    yield "reduce of nothing is 0", torch.equal(starters["reduce"](x[:, :0]), torch.zeros(6))
    x[2, 17] = float("nan")
    top = starters["reduce_max"](strided(x))
    yield "reduce_max keeps NaN", bool(top[2].isnan()) and torch.equal(top[3:], x.amax(1)[3:])
    yield "matmul over nothing is 0", torch.equal(starters["matmul"](x[:, :0], x[:0]), torch.zeros(6, 40))


def mend_interpreter() -> None:
    """Triton's interpreter keeps bf16 as bits in integers. It multiplies those, and cuts where a GPU rounds."""
    import triton.language as tl
    from triton.runtime import interpreter

    handle, builder = interpreter.TensorHandle, interpreter.InterpreterBuilder
    cast, dot = builder.cast_impl, builder.create_dot

    def cast_impl(self, src, dst_type):
        if (src.dtype.scalar, dst_type.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, src, dst_type)
        return handle(torch.tensor(src.data).bfloat16().view(torch.uint16).numpy(), tl.bfloat16)

    def create_dot(self, a, b, d, input_precision, max_num_imprecise_acc):
        a, b = (cast(self, t, tl.float32) if t.dtype.scalar == tl.bfloat16 else t for t in (a, b))
        return dot(self, a, b, d, input_precision, max_num_imprecise_acc)

    builder.cast_impl, builder.create_dot = cast_impl, create_dot


def calls(op_name: str) -> list[str]:
    """Every case in every dtype; the stability inputs on the first case, in fp32 where they bite most."""
    plain = [f"{i} {dtype} normal" for i in range(len(CASES[op_name])) for dtype in DTYPES]
    return plain + [f"0 fp32 {kind}" for kind in OPS[op_name].stability]


def run_all() -> dict[str, str]:
    """In the interpreter's process: the outcome of each check, '' when it passed."""
    mend_interpreter()
    starters = {op: import_file(ROOT / "kernels" / op / "starter_triton.py", f"starter_{op}").kernel_fn for op in CASES}
    outcome: dict[str, str] = {}
    for op in CASES:
        for call in calls(op):
            try:
                outcome[f"{op} {call}"] = judged(op, starters[op], call)
            except Exception as error:  # the others' outcomes are wanted all the same
                outcome[f"{op} {call}"] = f"{type(error).__name__}: {error}"
    for sentence, right in special(starters):
        outcome[sentence] = "" if right else "it does not"
    return outcome


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("op", CASES)
def test_starter_agrees_with_float64_in_every_case_and_dtype(op: str, interpreted: dict[str, str]) -> None:
    wrong = {call: interpreted[f"{op} {call}"] for call in calls(op) if interpreted[f"{op} {call}"]}
    assert not wrong


def test_starters_take_views_any_rank_empty_inputs_and_special_values(interpreted: dict[str, str]) -> None:
    sentences = {sentence: detail for sentence, detail in interpreted.items() if sentence.split()[1].isalpha()}
    assert len(sentences) > 20
    assert not {sentence for sentence, detail in sentences.items() if detail}


@pytest.mark.parametrize("arch", ["sm_90", "sm_80"])
def test_starter_compiles_without_spills_for_a_gpu_that_is_not_there(arch: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        ROOT / "scripts" / "check_triton_compile.py",
        "--op",
        "softmax",
        "--quick",
        "--arch",
        arch,
    ]
    run = subprocess.run(command, env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "short_rows_kernel" in run.stdout


if __name__ == "__main__":
    print(json.dumps(run_all()))
