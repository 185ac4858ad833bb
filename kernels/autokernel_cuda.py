"""Compile a kernel's CUDA C++ and launch it on torch's stream, through the driver's own interface.

module = compile_cuda(CUDA_PRELUDE + SOURCE, {"DTYPE": dtype_code(x)})
softmax = module.kernel("softmax", PTR, PTR, I64, INT)
softmax.launch(grid=rows, block=256, args=(y, x, rows, cols))
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from autokernel_nvrtc import HIP, machine_code

Grid = int | tuple[int, ...]
MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
ATTRIBUTES = {"max_threads": 0, "shared": 1, "spilled": 3, "registers": 4}  # CU_FUNC_ATTRIBUTE_*, HIP's too
OF_MODULE = ("LaunchKernel", "OccupancyMaxActiveBlocksPerMultiprocessor")  # HIP names these hipModule...

# What ran in this process, with threads and dynamic shared bytes of its last launch, for whoever reports on registers.
launched: dict[tuple[str, int], tuple[Kernel, int, int]] = {}


class Device(NamedTuple):
    """What a launcher has to know of the current GPU."""

    arch: str  # sm_90a, or gfx942 under ROCm
    shared: int  # bytes of shared memory that one block may take
    processors: int

    @property
    def tensor_cores(self) -> bool:
        """Can mma.sync and cp.async be used?"""
        return self.arch.startswith("sm_") and int(self.arch[3:].rstrip("af")) >= 80


def device() -> Device:
    return _device(torch.cuda.current_device())


@functools.cache
def _device(index: int) -> Device:
    properties = torch.cuda.get_device_properties(index)
    shared = getattr(properties, "shared_memory_per_block_optin", None) or properties.shared_memory_per_block
    if HIP:
        return Device(properties.gcnArchName.split(":")[0], shared, properties.multi_processor_count)
    number = 10 * properties.major + properties.minor
    # only code for 90a may use wgmma, and it runs on nothing else
    return Device(f"sm_{number}{'a' if number == 90 else ''}", shared, properties.multi_processor_count)


def compile_cuda(source: str, defines: Mapping[str, object] | None = None, arch: str | None = None) -> Module:
    """Compile for `arch` (the current GPU's if None) or find it in the cache. CompileError has the compiler's words."""
    arch = arch or device().arch
    return Module(source, dict(defines or {}), arch, machine_code(source, defines or {}, arch))


@dataclass(eq=False)
class Module:
    """Machine code of one source. It is loaded into a GPU's context at the first launch there."""

    source: str
    defines: dict[str, object]
    arch: str
    code: bytes
    _handles: dict[int, ctypes.c_void_p] = field(default_factory=dict)

    def kernel(self, name: str, *argtypes: type[Any]) -> Kernel:
        return Kernel(self, name, argtypes)

    def function(self, name: str) -> ctypes.c_void_p:
        context = _context()
        if context not in self._handles:
            handle = ctypes.c_void_p()
            _call("ModuleLoadDataEx", ctypes.byref(handle), self.code, 0, None, None)
            self._handles[context] = handle
        function = ctypes.c_void_p()
        _call("ModuleGetFunction", ctypes.byref(function), self._handles[context], name.encode())
        return function


@dataclass(eq=False)
class Kernel:
    """One `extern "C" __global__` function and the C types of its arguments."""

    module: Module
    name: str
    argtypes: tuple[type[Any], ...]
    _functions: dict[int, ctypes.c_void_p] = field(default_factory=dict)
    _allowed: dict[int, int] = field(default_factory=dict)  # dynamic shared memory asked for so far

    def launch(
        self, grid: Grid, block: Grid, args: Sequence[object], shared_bytes: int = 0, stream: int | None = None
    ) -> None:
        """Queue on `stream`, torch's current one if None, of the tensors' GPU. Tensors stand for their addresses."""
        home = next((a.device.index for a in args if isinstance(a, torch.Tensor)), None)
        if home is not None and home != torch.cuda.current_device():
            with torch.cuda.device(home):
                return self.launch(grid, block, args, shared_bytes, stream)
        values, pointers = pack(self.argtypes, args)
        function = self.function()
        if (
            shared_bytes and not HIP
        ):  # more than 48 KiB must be asked for, and what a kernel holds statically counts, too
            context = _context()
            if shared_bytes > self._allowed.get(context, 0):
                _call("FuncSetAttribute", function, MAX_DYNAMIC_SHARED, shared_bytes)
                self._allowed[context] = shared_bytes
        queue = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream if stream is None else stream)
        _call("LaunchKernel", function, *three(grid), *three(block), shared_bytes, queue, pointers, None)
        launched[self.name, id(self)] = (self, math.prod(three(block)), shared_bytes)
        del values  # the driver has copied the arguments

    def function(self) -> ctypes.c_void_p:
        context = _context()
        if context not in self._functions:
            self._functions[context] = self.module.function(self.name)
        return self._functions[context]


def attributes(kernel: Kernel) -> dict[str, int]:
    """What the compiler made of a kernel: registers a thread, bytes spilled a thread, static shared bytes a block."""
    found = {}
    for name, number in ATTRIBUTES.items():
        value = ctypes.c_int()
        _call("FuncGetAttribute", ctypes.byref(value), number, kernel.function())
        found[name] = value.value
    return found


def occupancy(function: int | None, threads: int, shared_bytes: int) -> float:
    """Share of a multiprocessor's threads that blocks of this function fill, from the handle that the driver gave."""
    blocks = ctypes.c_int()
    arguments = (ctypes.c_void_p(function), threads, ctypes.c_size_t(shared_bytes))
    _call("OccupancyMaxActiveBlocksPerMultiprocessor", ctypes.byref(blocks), *arguments)
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return blocks.value * threads / properties.max_threads_per_multi_processor


def pack(argtypes: Sequence[type[Any]], args: Sequence[object]) -> tuple[list[Any], ctypes.Array[ctypes.c_void_p]]:
    """The arguments as C values, and the array of their addresses that a launch takes."""
    if len(args) != len(argtypes):
        raise TypeError(f"the kernel takes {len(argtypes)} arguments, got {len(args)}")
    plain = [a.data_ptr() if isinstance(a, torch.Tensor) else a for a in args]
    values = [argtype(value) for argtype, value in zip(argtypes, plain, strict=True)]
    for value, given in zip(values, plain, strict=True):
        if isinstance(given, int) and isinstance(value.value, int) and value.value != given:
            raise OverflowError(f"{given} does not fit {type(value).__name__}")  # ctypes would cut it off
    return values, (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))


def rows_of_words(x: torch.Tensor) -> torch.Tensor:
    """A matrix (of matrices) whose rows are whole 16-byte words, aligned: x itself, or a copy padded with zeros."""
    words = 16 // x.element_size()
    cols, outer = x.shape[-1], x.stride()[:-1]
    if cols % words == 0 and x.stride(-1) == 1 and x.data_ptr() % 16 == 0 and not any(s % words for s in outer):
        return x
    padded = x.new_zeros((*x.shape[:-1], -(-cols // words) * words))
    padded[..., :cols] = x
    return padded


def three(size: Grid) -> tuple[int, int, int]:
    sizes = (size,) if isinstance(size, int) else size
    return (*sizes, 1, 1)[:3]


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libamdhip64.so" if HIP else "libcuda.so.1")


def _context() -> int:
    """The context that torch made current in this thread; a thread that has not used the GPU yet gets it now."""
    context = ctypes.c_void_p()
    _call("CtxGetCurrent", ctypes.byref(context))
    if not context.value:
        torch.cuda.set_device(torch.cuda.current_device())
        torch.cuda.current_stream().synchronize()  # a call of the runtime binds the context
        _call("CtxGetCurrent", ctypes.byref(context))
    return context.value or 0


def _call(name: str, *arguments: object) -> None:
    full = ("hipModule" if name in OF_MODULE and HIP else "hip" if HIP else "cu") + name
    status = getattr(_driver(), full)(*arguments)
    if status:
        raise RuntimeError(f"{full} failed: {_meaning(status)}")


def _meaning(status: int) -> str:
    if HIP:
        _driver().hipGetErrorString.restype = ctypes.c_char_p
        return f"{_driver().hipGetErrorString(status).decode()} ({status})"
    text = ctypes.c_char_p()
    _driver().cuGetErrorString(status, ctypes.byref(text))
    return f"{(text.value or b'unknown error').decode()} ({status})"
