"""A Python for tests of the daemon: a profile and a judge that answer at once, with times from a table. Needs no torch.

table_python.py PACE_FILE bench.py --serve ... | table_python.py PACE_FILE profile_model.py --out FILE ...

What a kernel takes, and whether it is right, follow from the hash of its source: every run has the same verdicts. The
starting kernel is the slowest. PACE_FILE holds how many seconds a question takes. While there is a file `device` beside
it the device has failed, as that file says: `gone` (off the bus: the judge dies of it, and no other finds a device),
`poisoned` (each question is answered with an error of the driver, as after an Xid) or `dies under it` (only over a
check, of which then nobody knows that it was the device).
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

BUILTINS = {"eager": 8.0, "vendor": 7.5, "compile": 7.0}
DEVICE = {
    "kind": "cpu", "name": "table", "torch": "2.13.0", "triton": None, "runtime": None, "memory_gb": 1,
    "cache_bytes": 1, "measured": {"gbps": 10, "tflops": {"fp32": 0.1}}, "datasheet": None,
}  # fmt: skip
HELLO = {"protocol": 1, "judge_hash": "table", "sandbox": "none: nothing is run", "device": DEVICE, "ops": ["rmsnorm"]}
ROW = {
    "op": "rmsnorm", "name": "rmsnorm", "shape": [64, 256], "options": {"eps": 1e-6}, "dtype": "fp32", "calls": 2,
    "time_us": 16.0, "share": 1, "bound": "memory", "limit_us": 2, "amdahl": {"2": 2}, "sites": ["first", "second"],
}  # fmt: skip
CHECK = {
    "op": "rmsnorm", "backend": "cpp", "dtype": "fp32", "stages": [], "quick": False, "flags": [], "max_abs_err": 1e-6,
    "worst_of_tolerance": 0.2, "peak_mem_mb": 1, "compiler": None, "build_s": 0, "wall_s": 0, "judge_hash": "table",
    "sandbox": "none",
}  # fmt: skip
ROOFLINE = {"bound": "memory", "bytes": 131072, "flops": 49152, "limit_us": 1}


def source_of(side: dict[str, Any]) -> str:
    return side["which"] if side["kind"] == "builtin" else hashlib.sha256(Path(side["path"]).read_bytes()).hexdigest()


def check(request: dict[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(Path(request["path"]).read_bytes()).hexdigest()
    right = "# tune:" in Path(request["path"]).read_text() and int(digest[:4], 16) % 7 != 0
    verdict = "pass" if right else "wrong"
    return {
        **CHECK,
        "verdict": verdict,
        "detail": "" if right else "smoke: wrong by the table",
        "source_sha256": digest,
    }


def time_sides(request: dict[str, Any], start: Path) -> dict[str, Any]:
    for side in request["sides"]:
        if side["name"] == "start":
            start.write_text(source_of(side))
    rounds = []
    for number in range(request["rounds"]):
        us = {}
        for side in request["sides"]:
            source = source_of(side)
            base = BUILTINS.get(source) or (
                6.0 if source == start.read_text() else 4.0 + 2.0 * random.Random(source).random()
            )
            noise = random.Random(f"{source} {number}").uniform(-0.004, 0.004)
            us[side["name"]] = [[base * (1 + noise), base * (1 + noise / 2)] for _ in request["shapes"]]
        rounds.append({"order": list(us), "us": us, "disturbed": None})
    limits = [1.0] * len(request["shapes"])
    return {"rounds": rounds, "roofline": ROOFLINE, "limit_us": limits, "clocks": None, "failure": None, "wall_s": 0}


def verify(request: dict[str, Any]) -> dict[str, Any]:
    pair = {"original": [2.0, 2.01], "optimized": [1.5, 1.51]}
    rounds = [{"order": list(pair), "ms": pair, "disturbed": None} for _ in range(request["rounds"])]
    kernels = [{"kernel": "rmsnorm", "sites": 2, "used": True, "detail": ""}]
    error = {"max_abs": 0, "normwise": 0, "allowed_normwise": 1e-6}
    return {"verdict": "pass", "detail": "", "kernels": kernels, "error": error, "rounds": rounds, "wall_s": 0}


class Device:
    """One that fails in the ways in which the driver says so, in the words of bench.py."""

    def __init__(self, state: Path) -> None:
        self.state = state

    @property
    def failure(self) -> str:
        return self.state.read_text() if self.state.exists() else ""

    def open(self) -> None:
        if self.failure == "gone":
            print("bench: --device cuda: torch 2.13.0 finds no such device here", file=sys.stderr)
            raise SystemExit(3)

    def use(self, request: dict[str, Any]) -> dict[str, Any] | None:
        if self.failure == "gone":
            raise RuntimeError("CUDA error: GPU is lost; run nvidia-smi")
        if self.failure == "poisoned":
            what = "JudgeError: rmsnorm at (64, 256) cannot be computed here"
            return {"ok": False, "error": f"{what}: CUDA error: unspecified launch failure"}
        if self.failure == "dies under it" and request["type"] == "check" and not request["quick"]:
            self.state.write_text("gone")
            words = "smoke: RuntimeError: CUDA error: no CUDA-capable device is detected"
            return {"ok": True, "result": {**check(request), "verdict": "crash", "detail": words}}
        return None


def main() -> None:
    pace, program, arguments = Path(sys.argv[1]), Path(sys.argv[2]).name, sys.argv[3:]
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    if program == "profile_model.py":
        model = {"file": given["--model"], "class_name": None, "input_shape": None, "dtype": "fp32", "device": "cpu"}
        facts = {"model_class": "Model", "parameters": 512, "device_name": "table", "torch": "2.13.0"}
        rows = {"total_us": 16.0, "wall_us": 16.0, "rows": [ROW]}
        Path(given["--out"]).write_text(json.dumps({"format": 1, "model": {**model, "seed": 0}, **facts, **rows}))
        return
    answers = {
        "hello": lambda _: HELLO,
        "check": check,
        "time": lambda asked: time_sides(asked, pace.with_name("table-start")),
        "verify": verify,
    }
    device = Device(pace.with_name("device"))
    device.open()
    for line in sys.stdin:
        request = json.loads(line)
        time.sleep(0 if request["type"] == "hello" else float(pace.read_text()))
        failure = device.use(request)
        if failure is not None:
            print(json.dumps({"id": request["id"], **failure}), flush=True)
            continue
        print(json.dumps({"id": request["id"], "ok": True, "result": answers[request["type"]](request)}), flush=True)


if __name__ == "__main__":
    main()
