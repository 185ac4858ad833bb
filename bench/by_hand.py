"""One file judged at the terminal: stage lines as they end, then times; exit 0 passed, 5 any other verdict."""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any, TextIO

import compiled
import nvidia_tools
import source_scan


def judge_file(judge: Any, arguments: argparse.Namespace, out: TextIO) -> int:
    path = Path(arguments.file).resolve()
    op = arguments.op or source_scan.scan(path.read_bytes()).constants.get("KERNEL_TYPE")
    op = op or (Path(arguments.op_file).stem if arguments.op_file else None)
    if not op:
        raise ValueError(f"{path.name} has no KERNEL_TYPE: say which operation it is with --op")
    dtype = arguments.dtype or ("bf16" if judge.gpu else "fp32")
    request = {
        "path": str(path),
        "op": op,
        "op_file": arguments.op_file,
        "dtype": dtype,
        "shapes": [],
        "quick": arguments.quick,
    }
    request |= {"allow_tf32": arguments.allow_tf32, "seed": arguments.seed, "large": judge.gpu or arguments.large}

    def show(stage: dict[str, Any]) -> None:
        if not arguments.json:
            line = f"{stage['name']:<12} {stage['status']:<8} {stage['cases']:>3} calls {stage['seconds']:7.2f} s"
            print(f"{line}  {stage['detail']}", file=out, flush=True)

    check = judge.check(request, show)
    timing = None
    if check["verdict"] == "pass" and not arguments.quick:
        timing = judge.time({**request, "sides": _sides(path, op, arguments), "rounds": arguments.rounds})
    passed = check["verdict"] == "pass"
    tools = {
        name: getattr(judge, name)(request) for name in ("counters", "sanitize") if passed and getattr(arguments, name)
    }
    if arguments.json:
        print(json.dumps({"check": check, "timing": timing, **tools}, allow_nan=False), file=out)
    else:
        for line in nvidia_tools.words(tools):
            print(line, file=out)
        _print(check, timing, out)
    out.flush()
    spoilt = (timing and timing["failure"]) or tools.get("sanitize", {}).get("errors")
    return 0 if passed and not spoilt else 5


def _sides(path: Path, op: str, arguments: argparse.Namespace) -> list[dict[str, str]]:
    from baselines import find_op

    sides = [{"name": "candidate", "kind": "file", "path": str(path)}]
    if arguments.against:
        sides.append({"name": "against", "kind": "file", "path": str(Path(arguments.against).resolve())})
    sides.append({"name": "eager", "kind": "builtin", "which": "eager"})
    if find_op(op, arguments.op_file).vendor is not None:
        sides.append({"name": "vendor", "kind": "builtin", "which": "vendor"})
    return sides


def _print(check: dict[str, Any], timing: dict[str, Any] | None, out: TextIO) -> None:
    for flag in check["flags"]:
        print(f"flag         {flag}", file=out)
    for line in compiled.words(check["compiler"]) if check["compiler"] else []:
        print(f"compiler     {line}", file=out)
    if timing and timing["failure"]:
        print(
            f"timing       {timing['failure']['side']}: {timing['failure']['kind']}: {timing['failure']['detail']}",
            file=out,
        )
    if timing and timing["rounds"]:
        limit = timing["roofline"]["limit_us"]
        names = list(timing["rounds"][0]["us"])
        usual = {name: statistics.median(geometric(r["us"][name][0]) for r in timing["rounds"]) for name in names}
        bound = timing["roofline"]["bound"]
        for name in names:
            ratio = "" if name == "candidate" else f"  candidate is {usual[name] / usual['candidate']:.3f}x"
            print(
                f"{name:<12} {usual[name]:10.1f} us  {limit / usual[name]:6.1%} of the {bound} limit{ratio}", file=out
            )
    quick = " (quick: primary shape only)" if check["quick"] else ""
    worst = (
        "" if check["worst_of_tolerance"] is None else f", worst error {check['worst_of_tolerance']:.2f} of tolerance"
    )
    print(f"{check['verdict']}{quick}: {check['op']} {check['dtype']} in {check['wall_s']:.1f} s{worst}", file=out)


def geometric(values: list[float]) -> float:
    return math.exp(statistics.fmean(math.log(max(v, 1e-9)) for v in values))
