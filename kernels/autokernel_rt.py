"""Compile a kernel's C++ in about a second and call it on tensors: all that a kernel.py needs besides torch and triton.

softmax = bind(compile_cpp(CPP_PRELUDE + SOURCE, {"GRAIN": GRAIN}), "softmax", PTR, PTR, I64, I64, INT)
softmax(ptr(y), ptr(x), rows, cols, dtype_code(x))
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from autokernel_cpp import CPP_PRELUDE as CPP_PRELUDE

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
I64, INT, FLOAT, PTR = ctypes.c_int64, ctypes.c_int, ctypes.c_float, ctypes.c_void_p

# NaN and Inf belong where the reference has them, so no -ffast-math: a sum that may be reordered says so (`omp simd
# reduction`, or several accumulators).
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
FLAGS += ("-fno-signed-zeros", "-fopenmp", "-shared", "-fPIC", "-Wno-psabi")
# g++ prefers 256-bit vectors on server cores that have 512; on a core without them the flag changes nothing.
FLAGS += ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()


class CompileError(RuntimeError):
    """The compiler refused the source, or there is nothing to compile with or no place to compile to."""


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
    key = "\0".join([source, *arguments, compiler, _version(compiler), _cpu(), runtime or ""])
    cache = Path(os.environ.get("AUTOKERNEL_CACHE") or Path.home() / ".cache" / "autokernel")
    library = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.so"
    if not library.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            scratch = tempfile.TemporaryDirectory(dir=cache, prefix="build-")
        except OSError as error:
            advice = "set AUTOKERNEL_CACHE to a writable folder"
            raise CompileError(f"cannot write compiled kernels to {cache} ({error.strerror}): {advice}") from error
        with scratch as folder:
            built = Path(folder) / "kernel.so"
            link = ["-Wl,--as-needed", runtime] if runtime else []
            command = [compiler, *arguments, "-x", "c++", "-", "-x", "none", *link, "-o", str(built)]
            done = subprocess.run(command, input=source, capture_output=True, text=True)
            if done.returncode:
                raise CompileError(_first_errors(done.stderr) or f"{compiler} exited with {done.returncode}")
            built.replace(library)  # atomic: another process sees the whole file or none
    return ctypes.CDLL(str(library))


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


def _first_errors(text: str, limit: int = 12) -> str:
    """The compiler's first errors with their source lines, without the notes and template backtraces around them."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if "error:" in line), 0)
    return "\n".join(line[:240] for line in lines[first : first + limit])
