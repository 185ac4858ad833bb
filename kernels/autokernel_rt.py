"""Compile a kernel's C++ in about a second and call it on tensors: all that a kernel.py needs besides torch and triton.

For CUDA C++ see autokernel_cuda.py. For C++:
softmax = bind(compile_cpp(CPP_PRELUDE + SOURCE, {"GRAIN": GRAIN}), "softmax", PTR, PTR, I64, I64, INT)
softmax(ptr(y), ptr(x), rows, cols, dtype_code(x))
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from autokernel_cache import CompileError as CompileError
from autokernel_cache import cached, first_errors
from autokernel_cpp import CPP_PRELUDE as CPP_PRELUDE
from autokernel_cuda import compile_cuda as compile_cuda
from autokernel_cuda import device as device
from autokernel_cuda import rows_of_words as rows_of_words
from autokernel_cuda_attention import CUDA_ATTENTION as CUDA_ATTENTION
from autokernel_cuda_attention import CUDA_ATTENTION_FFMA as CUDA_ATTENTION_FFMA
from autokernel_cuda_gemm import CUDA_FFMA as CUDA_FFMA
from autokernel_cuda_gemm import CUDA_TENSOR as CUDA_TENSOR
from autokernel_cuda_prelude import CUDA_PRELUDE as CUDA_PRELUDE

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
I64, INT, FLOAT, PTR = ctypes.c_int64, ctypes.c_int, ctypes.c_float, ctypes.c_void_p

# NaN and Inf belong where the reference has them, so no -ffast-math: a sum that may be reordered says so (`omp simd
# reduction`, or several accumulators).
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
FLAGS += ("-fno-signed-zeros", "-fopenmp", "-shared", "-fPIC", "-Wno-psabi")
# g++ prefers 256-bit vectors on server cores that have 512; on a core without them the flag changes nothing.
FLAGS += ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()


def ptr(tensor: torch.Tensor | None) -> int | None:
    """The address of a tensor's first element; None becomes a null pointer."""
    return None if tensor is None else tensor.data_ptr()


def dtype_code(tensor: torch.Tensor) -> int:
    """What `with_dtype` of the prelude switches on."""
    if tensor.dtype not in DTYPE_CODES:
        raise TypeError(f"expected float32, bfloat16 or float16, got {tensor.dtype}")
    return DTYPE_CODES[tensor.dtype]


def bind(library: ctypes.CDLL, name: str, *argtypes: type) -> Callable[..., None]:
    """An extern "C" function that returns nothing, with its argument types set."""
    function = getattr(library, name)
    function.argtypes, function.restype = argtypes, None
    return function


def compile_cpp(source: str, defines: Mapping[str, object] | None = None, flags: Sequence[str] = ()) -> ctypes.CDLL:
    """Compile with g++ (or $CXX) and load; cached in $AUTOKERNEL_CACHE under a hash of all that decides the content."""
    compiler = os.environ.get("CXX") or "g++"
    arguments = [*FLAGS, *(f"-D{name}={value}" for name, value in sorted((defines or {}).items())), *flags]
    runtime = _openmp_of_torch()

    def build(library: Path) -> None:
        link = ["-Wl,--as-needed", runtime] if runtime else []
        command = [compiler, *arguments, "-x", "c++", "-", "-x", "none", *link, "-o", str(library)]
        done = subprocess.run(command, input=source, capture_output=True, text=True)
        if done.returncode:
            raise CompileError(first_errors(done.stderr) or f"{compiler} exited with {done.returncode}")

    key = "\0".join([source, *arguments, compiler, _version(compiler), _cpu(), runtime or ""])
    return ctypes.CDLL(str(cached(key, ".so", build)))


@functools.cache
def _version(compiler: str) -> str:
    try:
        return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        problem = f"no C++ compiler: '{compiler} --version' failed ({error})"
        raise CompileError(f"{problem}; install g++ 12 or later, or set CXX") from error


@functools.cache
def _cpu() -> str:
    """What -march=native stands for: a cache in a shared home folder serves unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(dict.fromkeys(line for line in lines if line.startswith(("model name", "flags", "Features"))))


@functools.cache
def _openmp_of_torch() -> str | None:
    """The libgomp that torch runs on: sharing it shares one pool of threads, and torch.set_num_threads holds here."""
    try:
        mapped = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line]
    except OSError:
        return None
    return min(mapped, key=lambda path: "torch" not in path) if mapped else None
