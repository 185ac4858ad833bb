"""Stands in for the GPU in tests: compiles a kernel's CUDA C++ with g++ and runs it thread by thread on the CPU."""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from autokernel_cuda import Grid, Kernel, pack, three

HERE = Path(__file__).resolve().parent
FLAGS = ["-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-fno-strict-aliasing", f"-I{HERE}"]
SHARED = 227 * 1024  # of an H200

FOOTER = """
inline float widen(fp16 x) { return (float)as<_Float16>(x.bits); }
inline void narrow(float x, fp16& y) { y.bits = as<u16>((_Float16)x); }
inline void narrow(float x, bf16& y) { y.bits = upper_half(x); }
extern "C" const char* launch(unsigned blocks, unsigned threads, void** arguments) {
  return run(blocks, threads, [](void** a) { invoke(KERNEL, a); }, arguments);
}
"""


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="cuda-on-cpu-")


@functools.cache
def runtime() -> Path:
    library = Path(folder().name) / "libcuda_on_cpu.so"
    subprocess.run(["g++", *FLAGS, "-O2", HERE / "cuda_on_cpu.cpp", "-o", library], check=True)
    return library


@functools.cache
def compiled(source: str, defines: tuple[tuple[str, object], ...], arch: str, name: str) -> Callable[..., bytes | None]:
    macros = dict(defines) | {"KERNEL": name} | ({"__CUDA_ARCH_FEAT_SM90_ALL": 1} if arch == "sm_90a" else {})
    library = Path(tempfile.mkstemp(suffix=".so", dir=folder().name)[1])
    command = ["g++", *FLAGS, *(f"-D{key}={value}" for key, value in macros.items()), "-x", "c++", "-", "-x", "none"]
    whole = '#include "cuda_on_cpu.h"\n' + source + FOOTER
    done = subprocess.run([*command, runtime(), "-o", library], input=whole, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    function = ctypes.CDLL(str(library)).launch
    function.restype = ctypes.c_char_p
    return function


def launch(
    self: Kernel, grid: Grid, block: Grid, args: Sequence[object], shared_bytes: int = 0, stream: int | None = None
) -> None:
    """In place of Kernel.launch."""
    blocks, threads = three(grid), three(block)
    assert blocks[1:] == threads[1:] == (1, 1), "one dimension is all that the starters use"
    assert blocks[0] > 0 and 0 < threads[0] <= 1024 and shared_bytes <= SHARED
    assert re.search(rf"\b{self.name}\b", self.module.source)
    values, pointers = pack(self.argtypes, args)
    module = self.module
    function = compiled(module.source, tuple(module.defines.items()), module.arch, self.name)
    problem = function(blocks[0], threads[0], pointers)
    assert problem is None, f"{self.name}: {problem.decode()}"
    del values
