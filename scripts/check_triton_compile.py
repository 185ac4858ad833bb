"""Compiles every Triton starter for a GPU that need not be there, as it is really launched, and prints what it takes.

    python scripts/check_triton_compile.py [--op softmax] [--arch sm_90|sm_80|gfx942] [--tune] [--set NAME=VALUE]

One line a kernel: registers, bytes spilled, shared memory. Exits 1 when a kernel does not compile, spills at its
default constants, or takes more shared memory than the GPU has. The tensors are on PyTorch's meta device, so any shape
is free; the launch is Triton's own up to the point where the driver would load the binary. --tune compiles every listed
value of every tunable, one at a time: each must fit, though it may spill.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # an interpreted kernel compiles to nothing

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

ROOT = Path(__file__).resolve().parent.parent
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
TARGETS = {
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_80": GPUTarget("cuda", 80, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED_LIMIT = {"sm_90": 227 * 1024, "sm_80": 163 * 1024, "gfx942": 64 * 1024}

# What each operation is launched with: its primary shape, then shapes that take another path through its wrapper.
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "matmul": ((2048, 2048, 2048), (512, 512, 512), (1023, 1023, 1023), (1, 1, 1)),
    "linear": ((2048, 2048, 2048, 1), (512, 512, 512, 0), (1023, 1023, 1023, 1), (1, 1, 1, 0)),
    "softmax": ((4096, 4096), (4096, 50257), (32, 128), (1, 1)),
    "layernorm": ((4096, 2048), (4096, 5120), (64, 131072), (1023, 1023), (1, 1)),
    "rmsnorm": ((4096, 4096), (1024, 768), (64, 131072), (1, 1)),
    "flash_attention": (
        *((2, 32, 1024, 64), (2, 32, 2048, 128), (1, 8, 127, 64)),
        *((1, 4, 300, 200, 96), (1, 4, 256, 256), (1, 1, 1, 8)),
    ),
    "flash_attention_gqa": (
        *((2, 32, 8, 1024, 1024, 64), (2, 32, 8, 2048, 2048, 128), (1, 8, 2, 127, 200, 64)),
        *((1, 6, 2, 64, 64, 256), (1, 8, 1, 1, 512, 128)),
    ),
    "fused_mlp": ((2048, 2048, 5504), (32, 128, 256), (1023, 1023, 2047), (1, 1, 1)),
    "cross_entropy": ((4096, 32000), (8192, 50257), (1, 1)),
    "rotary_embedding": ((2, 32, 1024, 128), (1, 8, 127, 64), (1, 3, 33, 80), (1, 1, 1, 2)),
    "reduce": ((8192, 8192), (1024, 32768), (4096, 4097), (1, 1)),
    "reduce_max": ((8192, 8192), (1024, 32768), (4096, 4097), (1, 1)),
}  # fmt: skip


@dataclass(frozen=True)
class Resources:
    """One compiled kernel."""

    name: str
    registers: int
    spilled: int
    shared: int
    warps: int
    stages: int


class HostlessDriver:
    """Answers what a launch asks before it compiles, for a GPU that is not there."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


compiled: list[Any] = []  # what the launches of one kernel_fn call compiled
launch = JITFunction.run


def compile_only(self: JITFunction, *args: object, grid: object, warmup: bool, **options: object) -> object:
    kernel = launch(self, *args, grid=grid, warmup=True, **options)
    compiled.append(kernel)
    return kernel


def load(op: str, changes: dict[str, str]) -> ModuleType:
    """A starter with some of its tunables set. Written out, since triton.jit wants its source in a file."""
    source = (ROOT / "kernels" / op / "starter_triton.py").read_text()
    for name, value in changes.items():
        source, count = re.subn(rf"(?m)^{name} = \S+", f"{name} = {value}", source)
        if count != 1:
            raise SystemExit(f"{op} has no tunable {name}")
    folder = Path(tempfile.mkdtemp(prefix="starter-", dir=scratch))
    (folder / "kernel.py").write_text(source)
    module = ModuleType(f"starter_{op}")
    module.__file__ = str(folder / "kernel.py")
    sys.modules[module.__name__] = module
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    return module


def tunables(op: str) -> Iterator[tuple[str, str]]:
    """Each tunable with each of its listed values except the default."""
    source = (ROOT / "kernels" / op / "starter_triton.py").read_text()
    for name, default, values in re.findall(r"(?m)^([A-Z_0-9]+) = (\S+)  # tune: (.+)$", source):
        yield from ((name, value) for value in values.split() if value != default)


def inputs(op: str, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor | None, ...]:
    """The operation's positional arguments on the meta device."""

    def empty(*size: int) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    match op, shape:
        case "matmul", (m, n, k):
            return empty(m, k), empty(k, n)
        case "linear", (m, n, k, bias):
            return empty(m, k), empty(n, k), empty(n) if bias else None
        case "layernorm", (rows, cols):
            return empty(rows, cols), empty(cols), empty(cols)
        case "rmsnorm", (rows, cols):
            return empty(rows, cols), empty(cols)
        case "flash_attention", (b, h, *lengths, d):
            return empty(b, h, lengths[0], d), empty(b, h, lengths[-1], d), empty(b, h, lengths[-1], d)
        case "flash_attention_gqa", (b, h, kv_heads, queries, keys, d):
            return empty(b, h, queries, d), empty(b, kv_heads, keys, d), empty(b, kv_heads, keys, d)
        case "fused_mlp", (m, d, hidden):
            return empty(m, d), empty(hidden, d), empty(hidden, d), empty(d, hidden)
        case "cross_entropy", (rows, cols):
            return empty(rows, cols), torch.empty(rows, dtype=torch.int64, device="meta")
        case "rotary_embedding", (b, h, s, d):
            return empty(b, h, s, d), empty(s, d // 2), empty(s, d // 2)
        case _:
            return (empty(*shape),)


def resources(kernel: Any, arch: str) -> Resources:
    if arch.startswith("gfx"):
        text = kernel.asm["amdgcn"]
        registers = max(int(n) for n in re.findall(r"\.vgpr_count:\s+(\d+)", text))
        spilled = 4 * sum(int(n) for n in re.findall(r"\.vgpr_spill_count:\s+(\d+)", text))
    else:
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        with tempfile.NamedTemporaryFile(suffix=".cubin", dir=scratch) as file:
            file.write(kernel.asm["cubin"])
            file.flush()
            report = subprocess.run([tool, "-res-usage", file.name], check=True, capture_output=True, text=True).stdout
        registers, spilled = (int(re.findall(rf"{word}:(\d+)", report)[-1]) for word in ("REG", "STACK"))
    meta = kernel.metadata
    return Resources(meta.name, registers, spilled, meta.shared, meta.num_warps, meta.num_stages)


def check(op: str, module: ModuleType, arch: str, shapes: tuple[tuple[int, ...], ...], strict: bool, label: str) -> int:
    """Compiles one starter at some shapes in the three dtypes. Returns how many kernels are not as they should be."""
    bad = 0
    seen: set[tuple[str, Resources]] = set()
    for dtype_name, dtype in DTYPES.items():
        for shape in shapes:
            what = f"{op:20} {arch} {dtype_name} {'x'.join(map(str, shape)):22} {label}"
            compiled.clear()
            try:
                module.kernel_fn(*inputs(op, shape, dtype))
            except Exception as error:  # any failure of the compiler is the finding
                bad += 1
                print(f"FAIL  {what} {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
                continue
            for kernel in compiled:
                r = resources(kernel, arch)
                ok = r.shared <= SHARED_LIMIT[arch] and (r.spilled == 0 or not strict)
                bad += not ok
                if (dtype_name, r) not in seen or not ok:
                    seen.add((dtype_name, r))
                    takes = f"{r.registers:4} regs {r.spilled:5} spilled {r.shared:7} shared {r.warps:2} warps"
                    print(f"{'ok  ' if ok else 'FAIL'}  {what} {r.name:24} {takes} {r.stages} stages", flush=True)
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", choices=sorted(SHAPES))
    parser.add_argument("--arch", choices=sorted(TARGETS), default="sm_90")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--quick", action="store_true", help="the primary shape alone")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()

    hostless: Any = HostlessDriver(TARGETS[args.arch])
    driver.set_active(hostless)
    JITFunction.run = compile_only
    changes = dict(item.split("=", 1) for item in args.set)
    bad = 0
    for op in [args.op] if args.op else SHAPES:
        for change in (
            [changes, *({**changes, name: value} for name, value in tunables(op))] if args.tune else [changes]
        ):
            module = load(op, change)
            if "shared_limit" in vars(module):
                vars(module)["shared_limit"] = lambda device: SHARED_LIMIT[args.arch]
            shapes = SHAPES[op][:1] if args.quick else SHAPES[op]
            label = " ".join(f"{name}={value}" for name, value in change.items())
            bad += check(op, module, args.arch, shapes, strict=change is changes, label=label)
    print(f"{bad} kernels are not as they should be" if bad else "all as they should be")
    return 1 if bad else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="check-triton-") as folder:
        scratch = folder
        sys.exit(main())
