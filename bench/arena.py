"""The block of memory that judge and candidate share: inputs, output slots, guard bands, and windows for timing.

A buffer is described by {offset, shape, strides, dtype}, so that both sides see the same tensor without exchanging one.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import random
from collections.abc import Sequence
from typing import Any

import cuda_ipc
import torch

GUARD = 4096  # bytes of pattern on either side of a buffer
ALIGN = 512  # what torch's own CUDA allocator promises
PATTERN, POISON = 0xA5, 0xFF  # 0xFF.. is a NaN in fp16, bf16 and fp32
LEAST_SPIKES, MOST_SPIKES, SPIKE = 32, 4096, 16.0
CPU_BYTES = 1 << 31  # a sparse memfd: untouched pages cost nothing
NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.int64: "i64", torch.int32: "i32"}
NAMES |= {torch.bool: "bool", torch.float64: "fp64", torch.uint8: "u8", torch.complex64: "c64"}
TYPES = {name: dtype for dtype, name in NAMES.items()}

Buffer = dict[str, Any]
# bound before any candidate is imported
mul, absolute, clamp, finfo, Generator, randint = (
    torch.mul,
    torch.abs,
    torch.clamp,
    torch.finfo,
    torch.Generator,
    torch.randint,
)


def view(flat: torch.Tensor, buffer: Buffer) -> torch.Tensor:
    """The tensor that a buffer describes."""
    dtype = TYPES[buffer["dtype"]]
    shape, strides = buffer["shape"], buffer["strides"]
    start, size = buffer["offset"], span(shape, strides) * dtype.itemsize
    return flat[start : start + size].view(dtype).as_strided(shape, strides)


def blank(buffer: Buffer, device: torch.device) -> torch.Tensor:
    """A tensor like the one a buffer describes, of zeros and in memory of its own."""
    flat = torch.zeros(span(buffer["shape"], buffer["strides"]), dtype=TYPES[buffer["dtype"]], device=device)
    return flat.as_strided(buffer["shape"], buffer["strides"])


def span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first to one past the last."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def contiguous(shape: Sequence[int]) -> list[int]:
    """Strides of a row-major tensor."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(1, size)
    return strides[::-1]


def is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the elements fill one stretch of memory, each its own place, in whatever order."""
    expected = 1
    for stride, size in sorted((stride, size) for size, stride in zip(shape, strides, strict=True) if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def attach(fd: int, size: int, handle: str | None) -> torch.Tensor:
    """The candidate's side: the block as a flat uint8 tensor."""
    if handle is not None:
        return cuda_ipc.attach(bytes.fromhex(handle), size)
    return torch.frombuffer(mmap.mmap(fd, size), dtype=torch.uint8)


class ArenaFull(Exception):
    """The case needs more than the block holds."""


class Arena:
    """The judge's side: lays buffers out one after the other, and sees afterwards what else was written."""

    def __init__(self, device: torch.device, size: int = CPU_BYTES) -> None:
        self.device, self.size, self.fd, self.handle, self.pointer = device, size, None, None, 0
        if device.type == "cuda":
            self.size = max(size, 32 << 20)
            self.flat, handle, self.pointer = cuda_ipc.allocate(self.size)
            self.handle = handle.hex()
        else:
            self.fd = os.memfd_create("autokernel", os.MFD_ALLOW_SEALING)
            os.ftruncate(self.fd, size)
            # a candidate that shrank the block would kill the judge with SIGBUS
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self.flat = torch.frombuffer(mmap.mmap(self.fd, size), dtype=torch.uint8)
        self.cursor = 0
        self.buffers: list[tuple[str, Buffer]] = []
        self.pristine: torch.Tensor | None = None

    def close(self) -> None:
        self.flat, self.pristine = torch.empty(0, dtype=torch.uint8), None  # a CPU's memory goes with its last view
        if self.pointer:
            cuda_ipc.release(self.pointer)
            self.pointer = 0
            torch.cuda.empty_cache()  # the next candidate may need what the reference held
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def reset(self) -> None:
        self.cursor, self.buffers, self.pristine = 0, [], None

    def reserve(
        self, name: str, shape: Sequence[int], dtype: torch.dtype, strides: Sequence[int] | None = None
    ) -> Buffer:
        """Room for one tensor between two guard bands, filled with the guard's pattern."""
        strides = contiguous(shape) if strides is None else list(strides)
        start = -(-(self.cursor + GUARD) // ALIGN) * ALIGN
        end = start + span(shape, strides) * dtype.itemsize + GUARD
        if end > self.size:
            raise ArenaFull(f"{name} of {list(shape)} needs {end} bytes of shared memory, there are {self.size}")
        self.flat[self.cursor : end] = PATTERN
        self.cursor = end
        buffer = {"offset": start, "shape": list(shape), "strides": strides, "dtype": NAMES[dtype]}
        self.buffers.append((name, buffer))
        return buffer

    def place(self, name: str, tensor: torch.Tensor, strides: Sequence[int] | None = None) -> Buffer:
        buffer = self.reserve(name, tensor.shape, tensor.dtype, strides)
        view(self.flat, buffer).copy_(tensor)
        return buffer

    def slot(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Buffer:
        buffer = self.reserve(name, shape, dtype)
        self.poison(buffer)
        return buffer

    def poison(self, buffer: Buffer) -> None:
        start, end = extent(buffer)
        self.flat[start:end] = POISON

    def seal(self) -> None:
        """Remembers every byte, to be compared by `damage`."""
        self.pristine = self.flat[: self.cursor].clone()

    def damage(self, slots: Sequence[Buffer]) -> str:
        """What was written outside the output slots since `seal`: '' or words for whoever wrote it."""
        if self.pristine is None:
            return ""
        position = 0
        for start, end in [*sorted(extent(slot) for slot in slots), (self.cursor, self.cursor)]:
            now, before = self.flat[position:start], self.pristine[position:start]
            if not torch.equal(now, before):
                return self.where(position + int((now != before).nonzero()[0]))
            position = end
        return ""

    def read(self, buffer: Buffer, at: int | None = None) -> torch.Tensor:
        """A copy that the candidate can no longer touch; of row `at` alone where it is given."""
        whole = view(self.flat, buffer)
        return (whole if at is None else whole[at]).clone()

    def where(self, byte: int) -> str:
        """Words for whoever wrote there."""
        for name, buffer in self.buffers:
            start, end = extent(buffer)
            if start <= byte < end:
                return f"wrote into {name} (byte {byte - start}), which it may only read"
            if byte < start:
                return f"wrote outside its tensors: {start - byte} bytes before {name}"
            if byte < end + GUARD:
                return f"wrote outside its tensors: {byte - end} bytes past the end of {name}"
        return "wrote outside its tensors"


def extent(buffer: Buffer) -> tuple[int, int]:
    return buffer["offset"], buffer["offset"] + span(buffer["shape"], buffer["strides"]) * TYPES[
        buffer["dtype"]
    ].itemsize


def schedule(secret: str, count: int, starts: Sequence[int], keep: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """From a secret: where in its pool each call's inputs begin, and which outputs are kept."""
    draw = random.Random(secret).random
    offsets = [tuple(int(draw() * n) for n in starts) for _ in range(count)]
    return offsets, sorted({int(draw() * count) for _ in range(keep - 1)} | {count - 1})


def spikes(secret: str, count: int, numel: int) -> torch.Tensor:
    """From a secret: the elements of each call's largest input that are other than in its pool, while the call runs."""
    each = min(MOST_SPIKES, max(LEAST_SPIKES, numel >> 17)) if numel else 0
    generator = Generator().manual_seed(random.Random(f"{secret} spikes").getrandbits(62))
    return randint(max(1, numel), (count, each), generator=generator)  # one that comes twice changes nothing


def raised(values: torch.Tensor) -> torch.Tensor:
    """What an input holds at the places of its spikes: large beside its row, so that sums and maxima rise."""
    top = finfo(values.dtype).max / 4
    return clamp(mul(absolute(values), SPIKE), -top, top)


def bytes_for(tensors: Sequence[torch.Tensor | None]) -> int:
    """Shared memory that these tensors take, guard bands included."""
    return sum(2 * GUARD + ALIGN + math.ceil(t.numel() * t.itemsize) for t in tensors if t is not None)
