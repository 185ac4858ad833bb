"""The real judge with a recorded clock, behind a socket, so that many short runs share one: for kill tests only.

.venv/bin/python test/kill/recorded_judge.py SOCKET

Correctness is checked for real, once per source. Times come from a table: what a kernel takes follows from the hash of
its source, so a run has the same verdicts every time. The file that is timed is read and hashed each time.

SOCKET.times has a line for each answer: which connection, what was asked, and from when to when it took, in ns.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "kernels")]

from correctness import Limits  # noqa: E402
from service import Judge  # noqa: E402

import bench  # noqa: E402

A_CHECK_S = 0.03  # how long a remembered check still takes, as a real one takes longer than asking for an idea
BUILTINS = {"eager": 8.0, "vendor": 7.5, "compile": 7.0}


class RecordedJudge(Judge):
    def __init__(self) -> None:
        super().__init__("cpu", "none", Limits(180.0, 30.0))
        self.lock = threading.Lock()
        self.known: dict[str, Any] = {}

    def once(self, key: str, work: Any) -> Any:
        with self.lock:
            if key not in self.known:
                self.known[key] = work()
            return self.known[key]

    def hello(self, _request: dict[str, Any]) -> dict[str, Any]:
        return self.once("hello", lambda: super(RecordedJudge, self).hello({}))

    def check(self, request: dict[str, Any], progress: Any = None) -> dict[str, Any]:
        key = "check " + file_hash(request["path"])
        time.sleep(A_CHECK_S)
        return self.once(key, lambda: super(RecordedJudge, self).check(request, progress))

    def time(self, request: dict[str, Any]) -> dict[str, Any]:
        shapes = max(1, len(request["shapes"]))
        rounds = [self.round(request["sides"], shapes, number) for number in range(request["rounds"])]
        roofline = {"bound": "memory", "bytes": 131072, "flops": 49152, "limit_us": 0.5}
        limits = [0.5] * shapes
        return {
            "rounds": rounds,
            "roofline": roofline,
            "limit_us": limits,
            "clocks": None,
            "failure": None,
            "wall_s": 0.01,
        }

    def round(self, sides: list[dict[str, Any]], shapes: int, number: int) -> dict[str, Any]:
        us = {}
        for side in sides:
            table = random.Random(side["which"] if side["kind"] == "builtin" else file_hash(side["path"]))
            base = BUILTINS[side["which"]] if side["kind"] == "builtin" else 3.0 + 3.0 * table.random()
            noise = random.Random(f"{side['name']} {base} {number}").uniform(-0.004, 0.004)
            us[side["name"]] = [[base * (1 + noise), base * (1 + noise / 2)] for _ in range(shapes)]
        return {"order": list(us), "us": us, "disturbed": None}

    def verify(self, request: dict[str, Any]) -> dict[str, Any]:
        kernels = sorted(Path(request["optimized"], "optimized").rglob("*.py"))
        files = [*kernels, Path(request["optimized"], "optimized", "manifest.json")]
        key = f"verify {[file_hash(str(path)) for path in files]} {request['only']} {request['compile']}"
        real = self.once(key, lambda: super(RecordedJudge, self).verify({**request, "compile": False, "rounds": 1}))
        pair = {"order": ["original", "optimized"], "ms": {"original": [2.0, 2.01], "optimized": [1.5, 1.51]}}
        return {**real, "rounds": [{**real["rounds"][0], **pair} for _ in range(request["rounds"])]}


def file_hash(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def serve(judge: RecordedJudge, connection: socket.socket, number: int, times: Path) -> None:
    with connection, connection.makefile("rw", encoding="utf-8") as stream:
        try:
            for line in stream:
                began = time.monotonic_ns()
                answer = json.dumps(bench._finite(bench._answer(judge, line)))
                with times.open("a") as file:
                    file.write(f"{number} {json.loads(line)['type']} {began} {time.monotonic_ns()}\n")
                stream.write(answer + "\n")
                stream.flush()
        except (BrokenPipeError, ConnectionResetError):
            return  # the daemon was killed


def main() -> None:
    judge = RecordedJudge()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(sys.argv[1])
    listening.listen(64)
    print("listening", flush=True)
    threading.Thread(target=end_with_stdin, args=(judge,), daemon=True).start()
    times = Path(sys.argv[1] + ".times")
    for number in itertools.count(1):
        connection, _ = listening.accept()
        threading.Thread(target=serve, args=(judge, connection, number, times), daemon=True).start()


def end_with_stdin(judge: RecordedJudge) -> None:
    sys.stdin.read()
    judge.close()
    os._exit(0)


if __name__ == "__main__":
    main()
