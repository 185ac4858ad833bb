"""A program that speaks the judge's protocol and misbehaves on request; run by judge.test.ts only."""

import json
import os
import signal
import subprocess
import sys
import time

CHECK = {
    "verdict": "pass", "op": "rmsnorm", "backend": "cpp", "dtype": "fp32", "detail": "", "quick": False, "flags": [],
    "stages": [{"name": "smoke", "status": "pass", "cases": 1, "seconds": 0.1, "detail": ""}],
    "worst_of_tolerance": 0.4, "max_abs_err": 1e-6, "peak_mem_mb": None, "compiler": None,
    "build_s": 0.5, "wall_s": 1.0, "source_sha256": "0", "judge_hash": "0", "sandbox": "none",
}  # fmt: skip
ROOFLINE = {"bound": "memory", "bytes": 1, "flops": 1, "limit_us": 1}
DEVICE = {
    "kind": "cpu", "name": "cpu", "torch": "2.13.0", "triton": None, "runtime": None, "memory_gb": 1, "cache_bytes": 1,
    "measured": {"gbps": 1, "tflops": {}}, "datasheet": None,
}  # fmt: skip


def answer(request: dict) -> object:
    path = request.get("path", "")
    if path == "hang":
        subprocess.Popen(
            ["sleep", "1000"], start_new_session=True
        )  # a child outside the process group, as a compiler may be
        time.sleep(1000)
    if path.startswith("killed "):  # by something else, the first N times
        _, times, tries = path.split()
        if not os.path.exists(tries) or os.path.getsize(tries) < int(times):
            with open(tries, "a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
    if path == "die":
        print("RuntimeError: device lost", file=sys.stderr, flush=True)
        os._exit(1)
    if path == "no-gpu":
        print("expected a CUDA device, found none", file=sys.stderr, flush=True)
        os._exit(3)
    if path == "flood":
        while True:
            sys.stdout.write("x" * (1 << 20))
    if path == "garbage":
        return {"verdict": "excellent"}
    if path == "env":
        return CHECK | {"detail": json.dumps(sorted(os.environ))}
    if path == "args":
        return CHECK | {"detail": json.dumps([sys.argv[1:], request, os.getpid()])}
    if request["type"] == "check":
        return CHECK | {"detail": "ü" * 50_000 if path == "long" else ""}
    if request["type"] == "time":
        rounds = [
            {
                "order": [s["name"] for s in request["sides"]],
                "us": {s["name"]: [[1.5]] for s in request["sides"]},
                "disturbed": None,
            }
        ]
        return {
            "rounds": rounds * request["rounds"],
            "roofline": ROOFLINE,
            "limit_us": [1],
            "clocks": None,
            "failure": None,
            "wall_s": 0.1,
        }
    return {"protocol": 1, "judge_hash": "0", "sandbox": "none", "device": DEVICE, "ops": []}


for line in sys.stdin:
    request = json.loads(line)
    if request.get("path") == "decline":
        reply = {"id": request["id"], "ok": False, "error": "the reference ran out of memory"}
    elif request.get("path") == "no-space":
        reply = {"id": request["id"], "ok": False, "error": "OSError: [Errno 28] No space left on device: '/tmp/x'"}
    else:
        reply = {"id": request["id"], "ok": True, "result": answer(request)}
    print(json.dumps(reply), flush=True)
