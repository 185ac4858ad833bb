"""NVIDIA's own tools around one call of a kernel: what ncu counts, and whether compute-sanitizer finds a wrong access.

Asked for by whoever writes the next kernel. Counters decide no verdict. The candidate is confined in the process that
the tool watches, as far as the tool survives it. Both must be on the PATH, and the driver must let counters be read.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import workers

HERE = Path(__file__).resolve().parent
SECTIONS = ("SpeedOfLight", "WarpStateStats", "Occupancy")
NCU = ("ncu", "--clock-control", "none", "--profile-from-start", "off", "--csv", "--page", "raw")
SANITIZER = ("compute-sanitizer", "--tool", "memcheck", "--show-backtrace", "no")
DONE = "watched to the end"
LEVELS = ("full", "light")  # light keeps the capabilities that some drivers ask of ncu, and may write to /tmp
MOST_KERNELS, MOST_STALLS, MOST_LINES, MOST_BYTES = 6, 4, 4, 4 << 20
TIMEOUT_S, PATIENCE_S = 120.0, 5.0
TIME = "gpu__time_duration.sum"
SHARES = {
    "memory": "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
    "units": "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "occupancy": "sm__warps_active.avg.pct_of_peak_sustained_active",
}
STALL = "smsp__average_warps_issue_stalled_", "_per_issue_active.ratio"
NO_STALL = {"selected"}
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def measure(request: dict[str, Any], case: dict[str, Any], pool: workers.Pool) -> dict[str, Any]:
    """{'kernels': [...], 'detail': how}, longest kernel first; none and the reason where nothing could be counted."""
    sections = [word for section in SECTIONS for word in ("--section", section)]
    told, text = _watched([*NCU, *sections], request, case, pool, lambda text: bool(parse(text)))
    kernels = parse(text)
    return {"kernels": kernels, "detail": told if kernels else f"ncu counted nothing: {_last_words(text)}"}


def sanitize(request: dict[str, Any], case: dict[str, Any], pool: workers.Pool) -> dict[str, Any]:
    """{'errors': how many wrong accesses compute-sanitizer found, None where it could not look, 'detail'}."""
    told, text = _watched([*SANITIZER], request, case, pool, lambda text: _errors(text) is not None)
    errors = _errors(text)
    if errors is None:
        return {"errors": None, "detail": f"compute-sanitizer saw nothing: {_last_words(text)}"}
    found = [line.removeprefix("=========").strip() for line in text.splitlines() if line.startswith("=========")]
    first = [line for line in found if line and line != "COMPUTE-SANITIZER"][:MOST_LINES]
    return {"errors": errors, "detail": "; ".join(first)[:600] if errors else told}


def _errors(text: str) -> int | None:
    found = re.findall(r"ERROR SUMMARY: (\d+) error", text)
    errors = int(found[-1]) if found else 0
    return errors if errors or (found and DONE in text) else None


def _watched(
    tool: list[str], request: dict[str, Any], case: dict[str, Any], pool: workers.Pool, worked: Callable[[str], bool]
) -> tuple[str, str]:
    """What confined the process, and all that it and the tool printed, at the strongest level at which this worked."""
    if shutil.which(tool[0]) is None:
        return "", f"{tool[0]} is not on the PATH"
    told = text = ""
    for level in ("none",) if pool.mode == "none" else LEVELS:
        told, text = _run(tool, request, case, pool, level)
        if worked(text):
            break
    return told, text


def _run(
    tool: list[str], request: dict[str, Any], case: dict[str, Any], pool: workers.Pool, level: str
) -> tuple[str, str]:
    scratch = Path(tempfile.mkdtemp(prefix="watched-", dir=pool.scratch))
    try:
        (scratch / "tmp").mkdir()
        data = Path(request["path"]).read_bytes()
        (scratch / "kernel.py").write_bytes(data)
        cache = pool.work / "cache" / workers.sha256(data)
        cache.mkdir(parents=True, exist_ok=True)
        order = {key: request.get(key) for key in ("op", "op_file", "dtype", "allow_tf32")} | case
        own_tmp = level == "full"
        writable = [str(scratch), str(cache), *([] if own_tmp else [tempfile.gettempdir()])]
        order |= {"level": level, "kernel": str(scratch / "kernel.py"), "writable": writable}
        order |= {"readable": [str(HERE.parent), *workers.python_folders()]}
        environment = pool.environment(scratch, cache, "kernel")
        if not own_tmp:
            environment["TMPDIR"] = tempfile.gettempdir()
        text = _said([*tool, sys.executable, str(HERE / "watched.py"), json.dumps(order)], scratch, environment)
        told = next((line[10:] for line in text.splitlines() if line.startswith("confined: ")), "not confined")
        return told[:200], text
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _said(command: list[str], scratch: Path, environment: dict[str, str]) -> str:
    """The end of what it printed: into a file, whose size is limited, for a candidate may print without end."""
    output = scratch / "said"
    with output.open("wb") as file:
        keeper = subprocess.Popen(
            [sys.executable, str(HERE / "leave_nothing.py"), *command],
            cwd=scratch, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
        try:
            keeper.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"no answer within {TIMEOUT_S:.0f} s"
        finally:
            keeper.terminate()  # it takes with it whatever is below it
            with contextlib.suppress(subprocess.TimeoutExpired):
                keeper.wait(PATIENCE_S)
            keeper.kill()
            keeper.wait()
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - MOST_BYTES))
        return file.read().decode("utf-8", "replace")


def words(tools: dict[str, dict[str, Any]]) -> list[str]:
    """For a terminal."""
    lines = []
    if counted := tools.get("counters"):
        lines += [f"counters     {said}" for said in map(_words, counted["kernels"])] or [
            f"counters     {counted['detail']}"
        ]
    if looked := tools.get("sanitize"):
        errors = looked["errors"]
        lines.append(f"sanitizer    {'' if errors is None else f'{errors} wrong accesses; '}{looked['detail']}")
    return lines


def _words(kernel: dict[str, Any]) -> str:
    shares = [f"{key} {kernel[key]:.0%}" for key in SHARES if kernel[key] is not None]
    stalls = [f"{name} {share:.0%}" for name, share in kernel["stalls"]]
    waits = ", ".join(stalls) or "nothing told"
    return f"{kernel['name']}: {kernel['us']} us, {', '.join(shares)}; warps wait for {waits}"


def parse(text: str) -> list[dict[str, Any]]:
    """ncu's raw CSV page: a header, a line of units, a line a kernel. The lines around it are other programs' words."""
    lines = text.splitlines()
    start = next((at for at, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        return []
    rows = list(csv.DictReader(line for line in lines[start:] if line.startswith('"')))
    units, kernels = (rows[0], rows[1:]) if rows else ({}, [])
    found = [_kernel(row, units) for row in kernels]
    return sorted((k for k in found if k["us"] is not None), key=lambda k: -k["us"])[:MOST_KERNELS]


def _kernel(row: dict[str, str], units: dict[str, str]) -> dict[str, Any]:
    seconds, scale = _number(row.get(TIME)), SECONDS.get((units.get(TIME) or "ns").replace("second", "s"), 1e-9)
    stalls = {
        name.removeprefix(STALL[0]).removesuffix(STALL[1]): value
        for name, text in row.items()
        if name and name.startswith(STALL[0]) and name.endswith(STALL[1]) and (value := _number(text)) is not None
    }
    total = sum(stalls.values())
    top = sorted(((value, name) for name, value in stalls.items() if name not in NO_STALL), reverse=True)[:MOST_STALLS]
    return {
        "name": (row.get("Kernel Name") or "?")[:80],
        "us": None if seconds is None else round(1e6 * scale * seconds, 2),
        **{key: _share(row.get(metric)) for key, metric in SHARES.items()},
        "stalls": [[name[:40], round(value / total, 3)] for value, name in top if total > 0],
    }


def _share(text: str | None) -> float | None:
    value = _number(text)
    return None if value is None else round(value / 100, 3)


def _number(text: str | None) -> float | None:
    try:
        value = float((text or "").replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _last_words(text: str) -> str:
    said = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in said if "ERROR" in line or "Error" in line]
    return (errors or said or ["it said nothing"])[-1][:300]
