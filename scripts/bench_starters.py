"""How fast the C++ starters are beside eager PyTorch and the best library call, at each operation's primary CPU shape.

python scripts/bench_starters.py [--dtype fp32 bf16 fp16] [--op NAME ...] [--rounds 21]

Each round times all sides in turn, in an order that alternates; a ratio is the median over the rounds of one round's
times, so that a slow moment of the machine falls on both. Inputs rotate over three sets. This is a look at the starting
points, in one process; what a run keeps is decided by bench/bench.py on pairs of fresh processes.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("bench", "models", "kernels")]

from op_table import load_ops  # noqa: E402

from op import DTYPES, Op  # noqa: E402

BATCH_S = (
    0.004  # one timed batch: long against the clock's resolution and a thread's waking, short against a time slice
)
Side = Callable[..., torch.Tensor]


def main() -> None:
    ops = load_ops()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--op", nargs="+", choices=ops, default=list(ops))
    parser.add_argument("--rounds", type=int, default=21)
    args = parser.parse_args()
    print(
        f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, medians of {args.rounds} rounds"
    )
    print("| op | shape | dtype | starter us | eager us | vendor us | eager / starter | vendor / starter |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.op:
        for dtype in args.dtype:
            print(row(ops[name], load_starter(name), dtype, args.rounds), flush=True)


def row(op: Op, starter: Side, dtype: str, rounds: int) -> str:
    sides = {"starter": starter, "eager": op.eager}
    if op.vendor is not None:
        sides["vendor"] = op.vendor
    generator = torch.Generator().manual_seed(0)
    sets = [op.make_inputs(op.cpu_primary, DTYPES[dtype], generator, "normal") for _ in range(3)]
    with torch.no_grad():
        times = measure(sides, sets, dict(op.options), rounds)
    micros = [
        f"{statistics.median(times[side]):.1f}" if side in times else "-" for side in ("starter", "eager", "vendor")
    ]
    ratios = [ratio(times[side], times["starter"]) if side in times else "-" for side in ("eager", "vendor")]
    return "| " + " | ".join([op.name, "x".join(map(str, op.cpu_primary)), dtype, *micros, *ratios]) + " |"


def measure(sides: dict[str, Side], sets: Sequence[tuple], options: dict, rounds: int) -> dict[str, list[float]]:
    """Microseconds per call, one number a round and side."""
    calls = {name: calls_per_batch(side, sets, options) for name, side in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds):
        for name in list(sides) if i % 2 else reversed(sides):
            times[name].append(batch(sides[name], sets, options, calls[name]) / calls[name] * 1e6)
    return times


def calls_per_batch(side: Side, sets: Sequence[tuple], options: dict) -> int:
    batch(side, sets, options, 3)
    return max(1, int(BATCH_S / min(batch(side, sets, options, 1) for _ in range(3))))


def batch(side: Side, sets: Sequence[tuple], options: dict, calls: int) -> float:
    started = time.perf_counter()
    for i in range(calls):
        side(*sets[i % len(sets)], **options)
    return time.perf_counter() - started


def ratio(baseline: list[float], starter: list[float]) -> str:
    """Above 1 the starter is faster."""
    return f"{statistics.median(b / s for b, s in zip(baseline, starter, strict=True)):.2f}"


def load_starter(op: str) -> Side:
    spec = importlib.util.spec_from_file_location(f"{op}_starter", ROOT / "kernels" / op / "starter_cpp.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"kernels/{op}/starter_cpp.py cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.kernel_fn


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")


if __name__ == "__main__":
    main()
