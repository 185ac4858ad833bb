"""Prints how far inside the tolerances honest implementations stay, and how far outside cheats fall.

    python scripts/calibrate_tolerances.py [--compile] [--seeds 3] [--device cpu|cuda] [OP ...]

A number is the worst error as a fraction of what is allowed: up to 1 passes. For honest implementations it is the
largest over all input kinds, options, CPU shapes and seeds; for cheats the smallest over the seeds, primary shape.
On a GPU: eager, vendor and compiled, at the GPU shapes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "scripts")]

from op_table import load_ops  # noqa: E402
from tolerance import Tolerance, allowed  # noqa: E402
from tolerance_cases import CHEATS, HONEST, Cheat, cheats_on  # noqa: E402
from tolerance_corpus import Impl  # noqa: E402

from op import DTYPES, Case, Inputs, Op, Shape  # noqa: E402


def exam(
    op: Op, dtype: str, case: Case, kind: str, seed: int, allow_tf32: bool = False, device: str = "cpu"
) -> tuple[Inputs, Tolerance]:
    """One call's inputs and what its output is compared with."""
    generator = torch.Generator(device).manual_seed(seed)
    inputs = op.make_inputs(case.shape, DTYPES[dtype], generator, kind)
    inputs64 = tuple(t.double() if t is not None and t.is_floating_point() else t for t in inputs)
    reference = op.reference(*inputs64, **case.options)
    eager = op.eager(*inputs, **case.options)
    return inputs, allowed(op, case, inputs64, reference, eager, DTYPES[dtype], allow_tf32)


def honest_cases(op: Op, device: str = "cpu") -> Iterator[tuple[Case, str]]:
    """Every kind and option at the primary shape, and the other shapes on normal inputs."""
    primary, others = (op.cpu_primary, (*op.cpu_shapes, *op.cpu_edges))
    if device != "cpu":
        primary, others = (op.primary, (*op.gpu_shapes, *op.gpu_edges))
    for options in ({}, *op.variants):
        for kind in ("normal", *op.stability):
            yield Case(primary, options), kind
    for shape in others:
        yield Case(shape), "normal"


def implementations(op: Op, compiled: bool, device: str) -> dict[str, Impl]:
    found: dict[str, Impl] = {"eager": op.eager, **(HONEST[op.name] if device == "cpu" else {})}
    if op.vendor is not None and op.vendor is not op.eager:
        found["vendor"] = op.vendor
    if compiled:
        torch.compiler.reset()  # else the dtypes before use up dynamo's recompilations, and this one runs eagerly
        found["compiled"] = torch.compile(op.eager, dynamic=True)
    return found


def honest_worst(
    op: Op, dtype: str, cases: Iterable[tuple[Case, str]], seeds: int = 1, compiled: bool = False, device: str = "cpu"
) -> tuple[float, str]:
    """The implementation that comes closest to its tolerance, and how close."""
    worst, who = 0.0, "exact"
    found = implementations(op, compiled, device)
    for case, kind in cases:
        for seed in range(seeds):
            inputs, tolerance = exam(op, dtype, case, kind, seed, device=device)
            for name, run in found.items():
                share = tolerance.judge(run(*inputs, **case.options)).worst
                if share > worst:
                    worst, who = share, f"{name}, {kind} {'x'.join(map(str, case.shape))}"
    return worst, who


def cheats_of(op: Op) -> tuple[Cheat, ...]:
    return (*cheats_on(op.eager), *CHEATS[op.name])


def cheat_share(op: Op, dtype: str, cheat: Cheat, seed: int, shape: Shape | None = None) -> float:
    case = Case(shape or op.cpu_primary)
    inputs, tolerance = exam(op, dtype, case, cheat.kind, seed)
    return tolerance.judge(cheat.run(*inputs, **case.options)).worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ops", nargs="*", metavar="OP")
    parser.add_argument("--compile", action="store_true", help="torch.compile of eager among the honest ones (slow)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    device = arguments.device
    ops = {n: op for n, op in load_ops().items() if not arguments.ops or n in arguments.ops}
    print("| honest | fp16 | bf16 | fp32 | closest to the limit |\n|---|---|---|---|---|")
    for name, op in ops.items():
        cases = list(honest_cases(op, device))
        found = [honest_worst(op, dtype, cases, arguments.seeds, arguments.compile, device) for dtype in DTYPES]
        print(f"| {name} | {' | '.join(f'{share:.2f}' for share, _ in found)} | {max(found)[1]} |", flush=True)
    if device != "cpu":
        return
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
