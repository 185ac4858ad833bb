"""Compiles every CUDA starter for a GPU that need not be there, as it is really launched, and prints what it takes.

    python scripts/check_cuda_compile.py [--op softmax] [--arch sm_90a|sm_80] [--tune] [--set NAME=VALUE]

One line a kernel: registers, bytes spilled, shared memory, threads, milliseconds to compile. Exits 1 when a kernel does
not compile, spills at its default constants, or asks for more registers, threads or shared memory than the GPU has. The
tensors are on PyTorch's meta device, so any shape is free; the launch is the starter's own up to the driver's call.
--tune compiles every listed value of every tunable, one at a time: each must fit, though it may spill.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import triton
from check_triton_compile import DTYPES, SHAPES, inputs

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "kernels"))

import autokernel_cuda  # noqa: E402
from autokernel_cuda import Device, Grid, Kernel, pack, three  # noqa: E402

import autokernel_rt  # noqa: E402

DEVICES = {"sm_90a": Device("sm_90a", 227 * 1024, 132), "sm_80": Device("sm_80", 163 * 1024, 108)}
REGISTERS, MOST_REGISTERS = 64 * 1024, 255  # of a multiprocessor, and that a thread can name


@dataclass(frozen=True)
class Launch:
    kernel: Kernel
    blocks: int
    threads: int
    shared: int


@dataclass(frozen=True)
class Resources:
    registers: int
    spilled: int
    shared: int  # static


launches: list[Launch] = []  # of one kernel_fn call
compile_seconds: dict[bytes, float] = {}
usage: dict[bytes, dict[str, Resources]] = {}


def record(
    self: Kernel, grid: Grid, block: Grid, args: Sequence[object], shared_bytes: int = 0, stream: int | None = None
) -> None:
    """In place of Kernel.launch."""
    pack(self.argtypes, args)
    blocks, threads = three(grid), three(block)
    if blocks[0] > 2**31 - 1 or max(blocks[1:]) > 65535:
        raise ValueError(f"a grid of {blocks} blocks")
    launches.append(Launch(self, blocks[0] * blocks[1] * blocks[2], threads[0] * threads[1] * threads[2], shared_bytes))


def timed(compile_code):
    def measured(source, defines, arch):
        start = time.perf_counter()
        code = compile_code(source, defines, arch)
        compile_seconds.setdefault(code, time.perf_counter() - start)
        return code

    return measured


def resources(code: bytes) -> dict[str, Resources]:
    """Of each kernel of a cubin."""
    if code not in usage:
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(code)
            file.flush()
            report = subprocess.run([tool, "-res-usage", file.name], check=True, capture_output=True, text=True).stdout
        found = re.findall(r"Function (\w+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", report)
        usage[code] = {name: Resources(int(r), int(s), int(m)) for name, r, s, m in found}
    return usage[code]


def load(op: str, changes: dict[str, str]) -> ModuleType:
    """A starter with some of its tunables set."""
    source = (ROOT / "kernels" / op / "starter_cuda.py").read_text()
    for name, value in changes.items():
        source, count = re.subn(rf"(?m)^{name} = \S+", f"{name} = {value}", source)
        if count != 1:
            raise SystemExit(f"{op} has no tunable {name}")
    module = ModuleType(f"starter_{op}")
    exec(compile(source, f"{op}/starter_cuda.py", "exec"), module.__dict__)
    return module


def tunables(op: str) -> list[tuple[str, str]]:
    """Each tunable with each of its listed values except the default."""
    source = (ROOT / "kernels" / op / "starter_cuda.py").read_text()
    found = re.findall(r"(?m)^([A-Z_0-9]+) = (\S+)  # tune: (.+)$", source)
    return [(name, value) for name, default, values in found for value in values.split() if value != default]


def check(op: str, module: ModuleType, arch: str, shapes: Sequence[tuple[int, ...]], strict: bool, label: str) -> int:
    """Compiles one starter at some shapes in the three dtypes. Returns how many kernels are not as they should be."""
    bad, limit, seen = 0, DEVICES[arch].shared, set()
    for dtype_name, dtype in DTYPES.items():
        for shape in shapes:
            what = f"{op:20} {arch} {dtype_name} {'x'.join(map(str, shape)):22} {label}"
            launches.clear()
            try:
                module.kernel_fn(*inputs(op, shape, dtype))
            except Exception as error:  # any failure of the compiler is the finding
                bad += 1
                print(f"FAIL  {what} {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
                continue
            for launch in launches:
                code = launch.kernel.module.code
                r = resources(code)[launch.kernel.name]
                ok = launch.shared + r.shared <= limit + 1024 and (r.spilled == 0 or not strict)  # 1 KB is the system's
                per_thread = -(-r.registers // 8) * 8  # handed out by eights
                ok = ok and launch.threads <= 1024 and launch.threads * per_thread <= REGISTERS
                bad += not ok
                if (launch.kernel, launch.threads) in seen and ok:
                    continue
                seen.add((launch.kernel, launch.threads))
                takes = f"{r.registers:4} regs {r.spilled:4} spilled {launch.shared + r.shared:7} shared"
                takes += f" {launch.threads:5} threads {1e3 * compile_seconds[code]:5.0f} ms"
                print(f"{'ok  ' if ok else 'FAIL'}  {what} {launch.kernel.name:14} {takes}", flush=True)
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", choices=sorted(SHAPES))
    parser.add_argument("--arch", choices=sorted(DEVICES), default="sm_90a")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()

    autokernel_cuda.device = autokernel_rt.device = lambda: DEVICES[args.arch]
    autokernel_cuda.machine_code = timed(autokernel_cuda.machine_code)
    Kernel.launch = record
    changes = dict(item.split("=", 1) for item in args.set)
    bad = 0
    for op in [args.op] if args.op else SHAPES:
        singles = [{**changes, name: value} for name, value in tunables(op)] if args.tune else []
        for change in (changes, *singles):
            label = " ".join(f"{name}={value}" for name, value in change.items())
            bad += check(op, load(op, change), args.arch, SHAPES[op], strict=change is changes, label=label)
    print(f"{bad} kernels are not as they should be" if bad else "all as they should be")
    return 1 if bad else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="check-cuda-") as folder:
        os.environ["AUTOKERNEL_CACHE"] = folder  # so that the times are the compiler's
        sys.exit(main())
