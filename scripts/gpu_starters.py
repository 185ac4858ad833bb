"""Checks every starting kernel on this machine's GPU, and times it beside eager, vendor call and AutoKernel's starter.

    python scripts/gpu_starters.py [--backend triton|cuda] [--op softmax]... [--json FILE] [--sweep]

Needs torch, triton and the repository. Checks each operation at all its GPU shapes and options in three dtypes, several
operations side by side in processes of their own, so that one that crashes takes no other with it. Then nothing runs
but the clock: medians of triton.testing.do_bench, L2 flushed. --sweep also times every listed value of every tunable,
one at a time. A failure is one line; the table comes last. Exits 1 when a check failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "kernels")]

import torch  # noqa: E402
from op_table import import_file, load_ops  # noqa: E402
from tolerance import allowed  # noqa: E402
from triton.testing import do_bench  # noqa: E402

from op import DTYPES, Case, Op  # noqa: E402

# What is timed in fp16, with AutoKernel's own Triton starter in us where it was measured: one H200, torch 2.11,
# Triton 3.6, the same clock, 2026-11-20. The operations' primary shapes come on top, in fp16 and bf16.
TIMED: dict[str, dict[tuple[int, ...], float | None]] = {
    "matmul": {
        (2048, 2048, 2048): 49.1,
        (4096, 4096, 4096): 422.5,
        (8192, 8192, 8192): 5271.8,
        (1024, 1024, 1024): None,
    },
    "linear": {(4096, 4096, 4096, 0): None},
    "softmax": {(4096, 4096): 20.1, (8192, 8192): 69.9, (4096, 50257): None},
    "layernorm": {(4096, 5120): 30.2, (8192, 4096): 37.6},
    "rmsnorm": {(4096, 4096): 20.8, (8192, 4096): 37.7, (8192, 8192): 70.7},
    "cross_entropy": {(4096, 32000): 124.7, (8192, 32000): 221.6, (8192, 50257): None},
    "reduce": {(8192, 8192): 62.3, (16384, 4096): 50.5},
    "reduce_max": {(16384, 4096): None},
    "rotary_embedding": {(2, 32, 2048, 128): 115.9, (2, 32, 4096, 128): 220.7},
    "flash_attention": {(2, 32, 2048, 128): 637.5, (2, 32, 4096, 128): 2335.0, (2, 32, 2048, 64): None},
    "flash_attention_gqa": {(2, 32, 8, 2048, 2048, 128): None},
    "fused_mlp": {(2048, 2048, 5504): 295.3, (4096, 4096, 11008): 2514.3},
}

Row = dict[str, Any]


def say(text: str) -> None:
    print(text, flush=True)


def described(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def load(op: str, source: str, folder: str) -> Callable[..., torch.Tensor]:
    """A starter's kernel_fn, from a file of its own: triton.jit reads its source there."""
    path = Path(tempfile.mkdtemp(dir=folder)) / "kernel.py"
    path.write_text(source)
    return import_file(path, f"starter_{op}").kernel_fn


def tensors(op: Op, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor | None, ...]:
    generator = torch.Generator("cuda").manual_seed(11)
    inputs = op.make_inputs(shape, dtype, generator, "normal")
    return tuple(None if t is None else t.cuda() for t in inputs)


def cases(op: Op) -> Iterator[Case]:
    for shape in (*op.gpu_shapes, *op.gpu_edges):
        yield Case(shape, dict(op.options))
    for shape in (op.gpu_shapes[1], op.gpu_edges[0]):
        for variant in op.variants:
            yield Case(shape, {**op.options, **variant})


def check(op: Op, args: argparse.Namespace, folder: str) -> list[Row]:
    """Every case in every dtype against float64 on the GPU."""
    rows: list[Row] = []
    try:
        kernel_fn = load(op.name, next(variants(op.name, args))[1], folder)
    except Exception as error:
        return [{"op": op.name, "case": "import", "dtype": "-", "worst": None, "detail": described(error)}]
    for case in cases(op):
        for dtype_name, dtype in DTYPES.items():
            row: Row = {"op": op.name, "case": f"{case.shape} {dict(case.options)}", "dtype": dtype_name}
            try:
                inputs = tensors(op, case.shape, dtype)
                out = kernel_fn(*inputs, **case.options)
                again = kernel_fn(*inputs, **case.options)
                wide = tuple(t.double() if t is not None and t.is_floating_point() else t for t in inputs)
                reference = op.reference(*wide, **case.options)
                limit = allowed(op, case, wide, reference, op.eager(*inputs, **case.options), dtype)
                outcome = limit.judge(out)
                same = torch.equal(out.nan_to_num(), again.nan_to_num())
                row |= {"worst": outcome.worst, "detail": outcome.detail or ("" if same else "not the same bits twice")}
            except Exception as error:  # one bad case must not hide the others
                row |= {"worst": None, "detail": described(error)}
            rows.append(row)
            torch.cuda.empty_cache()
    return rows


def variants(op: str, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """(what was changed, source): the defaults, each listed value of each tunable, and what --also names."""
    source = (ROOT / "kernels" / op / f"starter_{args.backend}.py").read_text()
    tunables = re.findall(r"(?m)^([A-Z_0-9]+) = (\S+)  # tune: (.+)$", source)
    single = (f"{name}={value}" for name, default, values in tunables for value in values.split() if value != default)
    for change in ["", *single, *args.also]:
        changed = source
        for name, value in (item.split("=") for item in change.split()):
            changed = re.sub(rf"(?m)^{name} = \S+", f"{name} = {value}", changed)
        yield change or "defaults", changed


def warm(op: Op, args: argparse.Namespace, folder: str) -> list[Row]:
    """Compiles every variant into the cache on disk, so that the sweep only has to time them."""
    inputs = [tensors(op, shape, torch.float16) for shape in {next(iter(TIMED[op.name])), op.primary}]
    for _, source in variants(op.name, args):
        with contextlib.suppress(Exception):  # the sweep meets it again and says so
            kernel_fn = load(op.name, source, folder)
            for arguments in inputs:
                kernel_fn(*arguments, **op.options)
    return []


def part(name: str, op: str, args: argparse.Namespace) -> list[Row]:
    """Runs check or warm for one operation in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, __file__, "--backend", args.backend, "--op", op, "--part", name, "--json", file.name]
        command += [f"--also={change}" for change in args.also]
        start = time.monotonic()
        told = "it took more than 170 s"
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=170).stderr.strip()[-300:]
            rows: list[Row] = json.loads(Path(file.name).read_text())
        except (OSError, ValueError, subprocess.SubprocessError):
            rows = [{"op": op, "case": name, "dtype": "-", "worst": None, "detail": f"the process failed: {told}"}]
    bad = [row for row in rows if row["detail"]]
    for row in bad:
        say(f"FAIL  {row['op']} {row['dtype']} {row['case']}: {row['detail']}")
    if name == "check":
        worst = max((float(row["worst"]) for row in rows if row["worst"] is not None), default=float("nan"))
        seconds = time.monotonic() - start
        say(f"{op:20} {len(rows) - len(bad)}/{len(rows)} right, worst {worst:.2f} of allowed, {seconds:.0f} s")
    return rows


def microseconds(call: Callable[[], object]) -> float | None:
    try:
        milliseconds: Any = do_bench(call, warmup=10, rep=50, return_mode="median")
        return 1e3 * milliseconds
    except Exception as error:
        say(f"FAIL  timing: {described(error)}")
        return None


def time_op(op: Op, args: argparse.Namespace, folder: str) -> list[Row]:
    rows: list[Row] = []
    kernel_fn = load(op.name, next(variants(op.name, args))[1], folder)
    options = dict(op.options)
    sides = {"starter": kernel_fn, "eager": op.eager, "vendor": op.vendor}
    shapes = [(shape, "fp16") for shape in dict.fromkeys([*TIMED[op.name], op.primary])]
    for shape, dtype in [*shapes, (op.primary, "bf16")]:
        inputs = tensors(op, shape, DTYPES[dtype])
        row: Row = {"op": op.name, "shape": "x".join(map(str, shape)), "dtype": dtype}
        for side, call in sides.items():
            row[side] = microseconds(lambda f=call, i=inputs: f(*i, **options)) if call else None
        traffic = op.bytes_moved(shape, DTYPES[dtype], options)
        row["limit"] = 1e6 * max(op.flops(shape, options) / 790e12, traffic / 4296e9)
        row["autokernel"] = TIMED[op.name].get(shape) if dtype == "fp16" else None
        rows.append(row)
    torch.cuda.empty_cache()
    return rows


def sweep(op: Op, args: argparse.Namespace, folder: str) -> list[Row]:
    rows: list[Row] = []
    for shape in {next(iter(TIMED[op.name])), op.primary}:
        inputs = tensors(op, shape, torch.float16)
        times: dict[str, float] = {}
        for change, source in variants(op.name, args):
            with contextlib.suppress(Exception):  # microseconds has said why
                kernel_fn = load(op.name, source, folder)
                times[change] = microseconds(lambda f=kernel_fn, i=inputs: f(*i, **op.options)) or float("inf")
        ranked = sorted(times.items(), key=lambda item: item[1])
        say(f"sweep {op.name} {shape} fp16: " + ", ".join(f"{change} {us:.1f}" for change, us in ranked))
        rows += [{"op": op.name, "shape": shape, "change": change, "us": us} for change, us in ranked]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="triton", choices=["triton", "cuda"])
    parser.add_argument("--op", action="append", choices=sorted(TIMED))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--also", action="append", default=[], metavar="'A=1 B=2'", help="one more point of the sweep")
    parser.add_argument("--part", choices=["check", "warm"], help=argparse.SUPPRESS)
    args = parser.parse_args()

    ops = load_ops()
    names = args.op or list(TIMED)
    with tempfile.TemporaryDirectory(prefix="starters-") as folder:
        if args.part:
            work = check if args.part == "check" else warm
            args.json.write_text(json.dumps([row for name in names for row in work(ops[name], args, folder)]))
            return 0
        start = time.monotonic()
        with ThreadPoolExecutor(min(6, os.cpu_count() or 1)) as pool:
            checks = [row for rows in pool.map(lambda name: part("check", name, args), names) for row in rows]
            if args.sweep:
                list(pool.map(lambda name: part("warm", name, args), names))
        times: list[Row] = []
        sweeps: list[Row] = []
        for name in names:
            try:
                times += time_op(ops[name], args, folder)
                sweeps += sweep(ops[name], args, folder) if args.sweep else []
            except Exception as error:
                say(f"FAIL  {name} cannot be timed: {described(error)}")
    device = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    if args.json:
        args.json.write_text(json.dumps({"device": device, "checks": checks, "times": times, "sweeps": sweeps}))
    bad = sum(bool(row["detail"]) for row in checks)
    columns = ("starter", "eager", "vendor", "autokernel", "limit")
    say(f"\n{device}: {len(checks) - bad}/{len(checks)} checks right, {time.monotonic() - start:.0f} s. Times in us.")
    say(f"{'op':20} {'shape':22} {'':5}" + "".join(f"{c:>11}" for c in columns))
    for row in times:
        cells = "".join(f"{row[c]:11.1f}" if row.get(c) is not None else f"{'-':>11}" for c in columns)
        say(f"{row['op']:20} {row['shape']:22} {row['dtype']:5}{cells}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
