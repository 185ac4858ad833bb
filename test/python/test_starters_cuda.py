"""CUDA starters without a GPU: run thread by thread on the CPU against float64, and compiled by NVRTC for real GPUs."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "kernels"), str(ROOT / "test" / "python")]

import autokernel_cuda  # noqa: E402
import cuda_on_cpu  # noqa: E402
from autokernel_cuda import Device, Kernel, pack, rows_of_words  # noqa: E402
from autokernel_nvrtc import _runtime_compiler  # noqa: E402
from test_starters_cpp import EMPTY, OPS, ROWS, SMALL, judge, options_of, variants  # noqa: E402

import autokernel_rt  # noqa: E402
from autokernel_rt import FLOAT, I64, INT, PTR, CompileError, compile_cuda  # noqa: E402
from op import DTYPES, Case  # noqa: E402

PRODUCTS = ("matmul", "linear", "fused_mlp", "flash_attention", "flash_attention_gqa")
HOPPER, AMPERE = Device("sm_90a", 227 * 1024, 4), Device("sm_80", 163 * 1024, 4)
needs_nvrtc = pytest.mark.skipif(_runtime_compiler() is None, reason="there is no NVRTC: neither pip's nor a toolkit's")


def source_of(op: str) -> str:
    return (ROOT / "kernels" / op / "starter_cuda.py").read_text()


def load(source: str) -> ModuleType:
    module = ModuleType("kernel")
    exec(compile(source, "kernel.py", "exec"), module.__dict__)
    return module


Emulate = Callable[..., ModuleType]


@pytest.fixture
def emulate(monkeypatch: pytest.MonkeyPatch) -> Emulate:
    """Loads a starter so that its kernels run on the CPU as they would on the GPU named."""

    def loaded(source: str, gpu: Device = HOPPER) -> ModuleType:
        for module in (autokernel_cuda, autokernel_rt):
            monkeypatch.setattr(module, "device", lambda: gpu)
        monkeypatch.setattr(autokernel_cuda, "machine_code", lambda source, defines, arch: b"")
        monkeypatch.setattr(Kernel, "launch", cuda_on_cpu.launch)
        return load(source)

    return loaded


@pytest.mark.parametrize("name", OPS)
def test_a_starter_is_right_in_every_dtype(name: str, emulate: Emulate) -> None:
    op, kernel = OPS[name], emulate(source_of(name)).kernel_fn
    for dtype in DTYPES.values():
        for shape in SMALL.get(name, ROWS):
            outcome = judge(op, kernel, Case(shape, options_of(op, {})), dtype, "normal")
            assert outcome.ok, outcome.detail


@pytest.mark.parametrize("name", OPS)
def test_a_starter_is_right_with_every_option_and_kind_of_input(name: str, emulate: Emulate) -> None:
    op, kernel = OPS[name], emulate(source_of(name)).kernel_fn
    for extra in ({}, *op.variants):
        for kind in op.stability if not extra else ("normal",):
            case = Case(SMALL.get(name, ROWS)[0], options_of(op, extra))
            outcome = judge(op, kernel, case, torch.bfloat16, kind)
            assert outcome.ok, f"{kind} {extra}: {outcome.detail}"


@pytest.mark.parametrize("gpu", [HOPPER, AMPERE], ids=["wgmma", "mma.sync"])
@pytest.mark.parametrize("name", ["matmul", "linear", "fused_mlp"])
def test_a_product_in_large_tiles_is_right(name: str, gpu: Device, emulate: Emulate) -> None:
    module = emulate(source_of(name), gpu)
    vars(module)["MIN_TILES"] = 1  # the whole tile for a small product
    shape = {"matmul": (130, 270, 200), "linear": (130, 270, 200, 1), "fused_mlp": (130, 72, 136)}[name]
    outcome = judge(OPS[name], module.kernel_fn, Case(shape, options_of(OPS[name], {})), torch.float16, "normal")
    assert outcome.ok, outcome.detail


@pytest.mark.parametrize("shape", [(1, 1, 200, 128), (1, 2, 40, 70, 256)], ids=str)
def test_attention_with_wide_heads_is_right(shape: tuple[int, ...], emulate: Emulate) -> None:
    kernel = emulate(source_of("flash_attention")).kernel_fn
    for dtype in (torch.float16, torch.float32):
        outcome = judge(OPS["flash_attention"], kernel, Case(shape), dtype, "normal")
        assert outcome.ok, outcome.detail


@pytest.mark.parametrize("name", ["softmax", "layernorm", "rmsnorm", "cross_entropy"])
@pytest.mark.parametrize("cols", [70_001, 131_072])
def test_rows_that_do_not_fit_into_registers_are_right(name: str, cols: int, emulate: Emulate) -> None:
    kernel = emulate(source_of(name)).kernel_fn
    outcome = judge(OPS[name], kernel, Case((2, cols)), torch.float16, "normal")
    assert outcome.ok, outcome.detail


@pytest.mark.parametrize("name", OPS)
def test_every_tunable_value_stays_right(name: str, emulate: Emulate) -> None:
    for i, source in enumerate(variants(source_of(name))):
        dtype = list(DTYPES.values())[1 + i % 2]
        kernel = emulate(source, AMPERE if i % 2 else HOPPER).kernel_fn
        outcome = judge(OPS[name], kernel, Case(SMALL.get(name, ROWS)[0], options_of(OPS[name], {})), dtype, "normal")
        settings = re.findall(r"(?m)^[A-Z_0-9]+ = \d+(?=  # tune|$)", source)
        assert outcome.ok, f"{settings}: {outcome.detail}"


@pytest.mark.parametrize("name", OPS)
def test_a_starter_takes_inputs_that_are_not_contiguous_or_not_aligned(name: str, emulate: Emulate) -> None:
    op, kernel = OPS[name], emulate(source_of(name)).kernel_fn
    for dtype, layout in ((torch.float16, "transposed"), (torch.float32, "every second element")):
        outcome = judge(op, kernel, Case(SMALL.get(name, ROWS)[0]), dtype, "normal", layout)
        assert outcome.ok, outcome.detail


@pytest.mark.parametrize("name", OPS)
def test_a_starter_takes_empty_inputs_as_eager_does(name: str, emulate: Emulate) -> None:
    op, kernel = OPS[name], emulate(source_of(name)).kernel_fn
    if name == "cross_entropy":  # the mean over no rows
        assert kernel(torch.empty(0, 9), torch.empty(0, dtype=torch.int64)).isnan()
        return
    for shape in EMPTY.get(name, ((0, 5),)):
        given = op.make_inputs(shape, torch.float32, torch.Generator().manual_seed(7), "normal")
        options = options_of(op, {})
        torch.testing.assert_close(kernel(*given, **options), op.eager(*given, **options), equal_nan=True)


@pytest.mark.parametrize("name", ["softmax", "layernorm", "rmsnorm", "reduce", "reduce_max", "cross_entropy", "matmul"])
def test_nan_and_inf_appear_where_eager_has_them(name: str, emulate: Emulate) -> None:
    op, kernel = OPS[name], emulate(source_of(name)).kernel_fn
    for bad in (float("nan"), float("inf"), float("-inf")):
        given = op.make_inputs((9, 30, 40)[: 2 + (name == "matmul")], torch.float16, torch.Generator(), "normal")
        assert given[0] is not None
        given[0][1, 3] = given[0][2, -1] = bad
        got, expected = kernel(*given, **op.options), op.eager(*given, **op.options)
        assert torch.equal(got.isnan(), expected.isnan())
        assert torch.equal(got.isinf(), expected.isinf())


def test_leading_dimensions_are_kept_and_rotary_takes_any_rank(emulate: Emulate) -> None:
    x = torch.randn(2, 3, 2, 40, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(emulate(source_of("softmax")).kernel_fn(x), x.softmax(-1))
    angles = torch.arange(20.0).reshape(5, 4)
    y = emulate(source_of("rotary_embedding")).kernel_fn(torch.ones(5, 8), angles.cos(), angles.sin())
    torch.testing.assert_close(y[:, ::2], angles.cos() - angles.sin())


def test_cross_entropy_ignores_what_pytorch_ignores_and_never_reads_outside(emulate: Emulate) -> None:
    kernel = emulate(source_of("cross_entropy")).kernel_fn
    logits, targets = torch.randn(4, 50, generator=torch.Generator()), torch.tensor([3, -100, 49, -100])
    torch.testing.assert_close(kernel(logits, targets), torch.nn.functional.cross_entropy(logits, targets))
    assert kernel(logits, torch.tensor([3, 50, 0, 1])).isnan()


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a copy that nobody waits for", "    cp_async_wait<AHEAD - 1>();\n"),
        ("a missing fence between cp.async and wgmma", "    fence_for_wgmma();\n"),
        ("a stage overwritten while wgmma reads it", "    wgmma_wait<1>();\n"),
        ("a result written while it is being made", "  wgmma_wait<0>();\n"),
        ("a stage read before all threads have it", "    __syncthreads();  // this stage has arrived for all"),
    ],
)
def test_the_stand_in_for_the_gpu_notices(what: str, line: str, emulate: Emulate) -> None:
    source = source_of("matmul")
    assert source.count(line) == 1
    kernel = emulate(source.replace(line, "//" if "//" in line else "")).kernel_fn
    a, b = torch.ones(64, 400, dtype=torch.float16), torch.ones(400, 64, dtype=torch.float16)
    try:
        wrong = not torch.equal(kernel(a, b), a @ b)
    except AssertionError:
        wrong = True
    assert wrong


@needs_nvrtc
def test_starters_compile_for_hopper_and_ampere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOKERNEL_CACHE", str(tmp_path))
    wanted: dict[tuple[str, tuple[tuple[str, object], ...], str], None] = {}
    monkeypatch.setattr(
        autokernel_cuda, "machine_code", lambda s, d, arch: wanted.setdefault((s, tuple(d.items()), arch))
    )
    monkeypatch.setattr(Kernel, "launch", lambda self, grid, block, args, shared=0: pack(self.argtypes, args))
    for name, op in OPS.items():
        for i, source in enumerate([source_of(name), *variants(source_of(name))]):
            gpu = HOPPER if i % 2 == 0 else AMPERE
            for module in (autokernel_cuda, autokernel_rt):
                monkeypatch.setattr(module, "device", lambda gpu=gpu: gpu)
            starter = load(source)
            vars(starter)["MIN_TILES"] = 1 if i % 2 else 1000  # products in whole tiles, and in the smallest
            for j, dtype in enumerate(DTYPES.values()):
                for shape in SMALL.get(name, ROWS) if i == 0 or j == i % 3 else ():
                    starter.kernel_fn(*op.make_inputs(shape, dtype, torch.Generator(), "normal"), **op.options)
    monkeypatch.undo()
    assert len(wanted) > 36
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(lambda job: autokernel_cuda.machine_code(job[0], dict(job[1]), job[2]), wanted))
    assert all(code[:4] == b"\x7fELF" for code in codes)


@needs_nvrtc
def test_a_wrong_source_is_reported_by_its_own_line_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOKERNEL_CACHE", str(tmp_path))
    source = autokernel_rt.CUDA_PRELUDE + '\nextern "C" __global__ void f(T* x) {\n  *x = missing;\n}\n'
    with pytest.raises(CompileError, match=r"^kernel\.cu\(3\): error: identifier \"missing\" is undefined"):
        compile_cuda(source, {"DTYPE": 2}, "sm_90a")


@needs_nvrtc
def test_the_toolkit_can_be_included_and_a_second_compilation_is_a_look_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOKERNEL_CACHE", str(tmp_path))
    source = '#include <mma.h>\nextern "C" __global__ void f(__half* x) { *x = __float2half(VALUE); }'
    first = compile_cuda(source, {"VALUE": 1}, "sm_90a").code
    stamps = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert compile_cuda(source, {"VALUE": 1}, "sm_90a").code == first
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == stamps and len(stamps) == 1
    assert compile_cuda(source, {"VALUE": 2}, "sm_90a").code != first


def test_arguments_are_packed_as_the_driver_reads_them() -> None:
    x = torch.empty(3)
    values, pointers = pack((PTR, PTR, I64, INT, FLOAT), (x, None, 2**40, True, 0.5))
    assert [value.value for value in values] == [x.data_ptr(), None, 2**40, 1, 0.5]
    assert list(pointers) == [ctypes.addressof(value) for value in values]
    assert ctypes.c_int64.from_address(pointers[2] or 0).value == 2**40
    with pytest.raises(OverflowError, match="4294967296 does not fit c_int"):
        pack((INT,), (2**32,))
    with pytest.raises(TypeError, match="the kernel takes 2 arguments, got 1"):
        pack((INT, INT), (1,))


def test_only_rows_that_are_not_whole_aligned_words_are_copied() -> None:
    x = torch.arange(6 * 16, dtype=torch.float16).reshape(6, 16)
    assert rows_of_words(x) is x and rows_of_words(x[::2]).data_ptr() == x.data_ptr()
    for odd in (x[:, 1:], x[:, :9], x.t()):
        padded = rows_of_words(odd)
        assert padded.stride(0) % 8 == 0 and padded.data_ptr() % 16 == 0
        assert torch.equal(padded[:, : odd.shape[1]], odd) and not padded[:, odd.shape[1] :].any()
