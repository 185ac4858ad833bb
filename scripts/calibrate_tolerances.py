"""Prints how far honest implementations stay inside the tolerances and cheats fall outside, as the tables of docs/tolerances.md.

    python scripts/calibrate_tolerances.py [--compile] [--seeds 3] [OP ...]

A number is the worst error as a fraction of what is allowed: up to 1 passes. For honest implementations it is the
largest over all input kinds, options, CPU shapes and seeds; for cheats the smallest over the seeds, at the primary shape.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "scripts")]

from op_table import load_ops  # noqa: E402
from tolerance_cases import CHEATS, HONEST, Cheat, cheats_on  # noqa: E402

from op import DTYPES, Case, Inputs, Op  # noqa: E402
from tolerance import Tolerance, allowed  # noqa: E402


def exam(op: Op, dtype: str, case: Case, kind: str, seed: int, allow_tf32: bool = False) -> tuple[Inputs, Tolerance]:
    """One call's inputs and what its output is compared with."""
    generator = torch.Generator().manual_seed(seed)
    inputs = op.make_inputs(case.shape, DTYPES[dtype], generator, kind)
    inputs64 = tuple(t.double() if t is not None and t.is_floating_point() else t for t in inputs)
    reference = op.reference(*inputs64, **case.options)
    eager = op.eager(*inputs, **case.options)
    return inputs, allowed(op, case, inputs64, reference, eager, DTYPES[dtype], allow_tf32)


def honest_cases(op: Op, quick: bool = False) -> Iterator[tuple[Case, str]]:
    """Every kind and option at the primary shape, and the other shapes on normal inputs."""
    for options in ({}, *op.variants):
        for kind in ("normal", *op.stability):
            yield Case(op.cpu_primary, options), kind
    if not quick:
        for shape in (*op.cpu_shapes, *op.cpu_edges):
            yield Case(shape), "normal"


def implementations(op: Op, compiled: bool = False) -> dict[str, object]:
    found: dict[str, object] = {"eager": op.eager, **HONEST[op.name]}
    if op.vendor is not None and op.vendor is not op.eager:
        found["vendor"] = op.vendor
    if compiled:
        found["compiled"] = torch.compile(op.eager, dynamic=True)
    return found


def honest_worst(op: Op, dtype: str, seeds: int, compiled: bool = False, quick: bool = False) -> tuple[float, str]:
    """The implementation that comes closest to its tolerance, and how close."""
    worst, who = 0.0, ""
    for case, kind in honest_cases(op, quick):
        for seed in range(seeds):
            inputs, tolerance = exam(op, dtype, case, kind, seed)
            for name, run in implementations(op, compiled).items():
                share = tolerance.judge(run(*inputs, **case.options)).worst  # type: ignore[operator]
                if share > worst:
                    worst, who = share, f"{name}, {kind} {'x'.join(map(str, case.shape))}"
    return worst, who


def cheats_of(op: Op) -> tuple[Cheat, ...]:
    return (*cheats_on(op.eager), *CHEATS[op.name])


def cheat_share(op: Op, dtype: str, cheat: Cheat, seed: int, options: Mapping[str, object] | None = None) -> float:
    case = Case(op.cpu_primary, options or {})
    inputs, tolerance = exam(op, dtype, case, cheat.kind, seed)
    return tolerance.judge(cheat.run(*inputs, **case.options)).worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ops", nargs="*", metavar="OP")
    parser.add_argument("--compile", action="store_true", help="torch.compile of eager among the honest ones (slow)")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    ops = {n: op for n, op in load_ops().items() if not arguments.ops or n in arguments.ops}
    print("| honest | fp16 | bf16 | fp32 | closest to the limit |\n|---|---|---|---|---|")
    for name, op in ops.items():
        found = [honest_worst(op, dtype, arguments.seeds, arguments.compile) for dtype in DTYPES]
        print(f"| {name} | {' | '.join(f'{share:.2f}' for share, _ in found)} | {max(found)[1]} |", flush=True)
    print("\n| cheat | | fp16 | bf16 | fp32 |\n|---|---|---|---|---|")
    for name, op in ops.items():
        for cheat in cheats_of(op):
            shares = [
                f"{min(cheat_share(op, dtype, cheat, seed) for seed in range(arguments.seeds)):.3g}"
                if dtype in cheat.dtypes
                else "-"
                for dtype in DTYPES
            ]
            print(f"| {name} | {cheat.name} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
