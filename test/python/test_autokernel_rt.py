"""compile_cpp compiles once and says what is wrong in a few lines; its prelude converts and exponentiates right."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
sys.path.append(str(KERNELS))

import autokernel_rt  # noqa: E402
from autokernel_rt import CPP_PRELUDE, I64, INT, PTR, CompileError, bind, compile_cpp, dtype_code, ptr  # noqa: E402

TRIPLE = """
extern "C" void triple(float* y, const float* x, long n) { for (long i = 0; i < n; i++) y[i] = FACTOR * x[i]; }
"""
PRELUDE_TESTS = r"""
extern "C" void exp_simd(float* y, const float* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = fast_exp(x[i]);
}
extern "C" void exp_vectors(float* y, const float* x, int64_t n) {
  for_row<2>(n, [&](int, int64_t c, int64_t lanes) { store(y + c, fast_exp(load(x + c, lanes, 0.0f)), lanes); });
}
extern "C" void convert(void* y, int to, const void* x, int from, int64_t n) {
  with_dtype(to, [&](auto a) {
    with_dtype(from, [&](auto b) {
      auto *out = (decltype(a)*)y;
      auto *in = (const decltype(b)*)x;
      for_row<4>(n, [&](int, int64_t c, int64_t lanes) { store(out + c, load(in + c, lanes, 0.0f), lanes); });
    });
  });
}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOKERNEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def prelude(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ctypes.CDLL]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOKERNEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield compile_cpp(CPP_PRELUDE + PRELUDE_TESTS)


def triple(x: torch.Tensor, factor: int) -> torch.Tensor:
    y = torch.empty_like(x)
    bind(compile_cpp(TRIPLE, {"FACTOR": factor}), "triple", PTR, PTR, I64)(ptr(y), ptr(x), x.numel())
    return y


def test_a_define_reaches_the_source_and_is_a_library_of_its_own(cache: Path) -> None:
    x = torch.arange(5.0)
    assert torch.equal(triple(x, 3), 3 * x)
    assert torch.equal(triple(x, 4), 4 * x)
    assert len(list(cache.glob("*.so"))) == 2


def test_a_second_compilation_is_a_look_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_cpp(TRIPLE, {"FACTOR": 3})
    (built,) = cache.iterdir()  # and no scratch folder is left beside it
    stamp = built.stat().st_mtime_ns
    started = time.perf_counter()
    compile_cpp(TRIPLE, {"FACTOR": 3})
    assert time.perf_counter() - started < 0.05
    assert built.stat().st_mtime_ns == stamp


def test_a_wrong_source_is_reported_by_its_own_line_numbers_and_nothing_else() -> None:
    with pytest.raises(CompileError) as caught:
        compile_cpp(CPP_PRELUDE + "void f() {\n  int x = missing;\n}\n")
    message = str(caught.value)
    assert message.startswith("kernel.cpp:2:11: error:")
    assert "missing" in message
    assert len(message.splitlines()) <= 12


def test_a_cache_that_cannot_be_written_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOKERNEL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CompileError, match=r"cannot write compiled kernels to .*: set AUTOKERNEL_CACHE") as caught:
        compile_cpp(TRIPLE, {"FACTOR": 3})
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_compiler_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CompileError, match=r"no C\+\+ compiler: 'no-such-compiler --version' failed .* install g\+\+"):
        compile_cpp(TRIPLE, {"FACTOR": 3})


def test_kernels_run_on_as_many_threads_as_torch() -> None:
    code = (
        "import sys, torch; sys.path.append(sys.argv[1]); from autokernel_rt import *; torch.set_num_threads(1)\n"
        "y = torch.zeros(1, dtype=torch.int64)\n"
        "bind(compile_cpp(sys.argv[2]), 'threads', PTR)(ptr(y)); print(y.item(), torch.get_num_threads())"
    )
    source = '#include <omp.h>\nextern "C" void threads(long* y) { *y = omp_get_max_threads(); }'
    command = [sys.executable, "-c", code, str(KERNELS), source]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "3"})
    assert done.stdout.split() == ["1", "1"], done.stderr


def test_dtypes_without_a_code_are_refused() -> None:
    assert [dtype_code(torch.empty(0, dtype=d)) for d in (torch.float32, torch.bfloat16, torch.float16)] == [0, 1, 2]
    with pytest.raises(TypeError, match=r"expected float32, bfloat16 or float16, got torch\.float64"):
        dtype_code(torch.empty(0, dtype=torch.float64))


@pytest.mark.parametrize("name", ["exp_simd", "exp_vectors"])
def test_fast_exp_is_within_two_ulp_and_right_at_the_ends(name: str, prelude: ctypes.CDLL) -> None:
    exp = bind(prelude, name, PTR, PTR, I64)
    x = torch.cat([torch.linspace(-87.3, 88.3, 500_001), torch.randn(100_000)])
    y = torch.empty_like(x)
    exp(ptr(y), ptr(x), x.numel())
    exact = x.double().exp()
    ulp = 2.0 ** (exact.log2().floor() - 23)
    assert float(((y.double() - exact).abs() / ulp).max()) < 2

    ends = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), -88.0, -1e30, 88.8, 1e30])
    y = torch.empty_like(ends)
    exp(ptr(y), ptr(ends), ends.numel())
    expected = torch.tensor([1.0, 1.0, float("inf"), 0.0, float("nan"), 0.0, 0.0, float("inf"), float("inf")])
    torch.testing.assert_close(y, expected, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("to", autokernel_rt.DTYPE_CODES, ids=str)
@pytest.mark.parametrize("source", autokernel_rt.DTYPE_CODES, ids=str)
def test_conversions_round_as_torch_does_and_write_no_lane_too_many(
    to: torch.dtype, source: torch.dtype, prelude: ctypes.CDLL
) -> None:
    convert = bind(prelude, "convert", PTR, INT, PTR, INT, I64)
    bits = torch.randint(-(2**31), 2**31 - 1, (100_003,), dtype=torch.int32, generator=torch.Generator().manual_seed(1))
    nans = torch.tensor([0x7FFFFFFF, 0x7F800001, -1], dtype=torch.int32)  # rounding up must not make them Inf
    x = torch.cat([bits, nans]).view(torch.float32)
    x = torch.cat([x, torch.tensor([65504.0, 65519.0, 65520.0, 6e-8, -1e-40, 0.0, -0.0])]).to(source)
    y = torch.empty_like(x, dtype=to)
    convert(ptr(y), autokernel_rt.DTYPE_CODES[to], ptr(x), autokernel_rt.DTYPE_CODES[source], x.numel())
    subnormal = torch.finfo(torch.bfloat16).smallest_normal if to == torch.bfloat16 else 0.0  # may be flushed there
    torch.testing.assert_close(y, x.float().to(to), rtol=0, atol=subnormal, equal_nan=True)
    for lanes in (0, 1, 15, 16, 17, 65):
        part = torch.full((80,), 7.0, dtype=to)
        convert(ptr(part), autokernel_rt.DTYPE_CODES[to], ptr(x), autokernel_rt.DTYPE_CODES[source], lanes)
        torch.testing.assert_close(part[:lanes], y[:lanes], rtol=0, atol=0, equal_nan=True)
        assert bool((part[lanes:] == 7).all())
