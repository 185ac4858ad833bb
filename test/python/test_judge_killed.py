"""A judge whose daemon, or whose candidate, is killed while it measures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from judge_client import ROOT, Client

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")

SLOW = """
import time
import torch
KERNEL_TYPE = "rmsnorm"
BACKEND = "cpp"
def kernel_fn(x, weight, eps=1e-6):
    time.sleep(25)
    return x
"""
# What a daemon is to the judge: the process that holds the other end of its pipes.
DAEMON = """
import json, subprocess, sys, time
judge = subprocess.Popen(
    [sys.executable, sys.argv[1], "--serve", "--device", "cpu", "--sandbox", "none"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
)
print(judge.pid, flush=True)
judge.stdin.write(sys.argv[2].encode() + b"\\n")
judge.stdin.flush()
time.sleep(600)
"""


def request(path: Path) -> dict[str, object]:
    fields = {"op": "rmsnorm", "op_file": None, "dtype": "fp32", "shapes": [], "quick": True, "allow_tf32": False}
    return {"id": 1, "type": "check", "path": str(path), "seed": None, **fields}


def descendants(root: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = [pid for pid, parent in parents.items() if parent == root]
    return found + [below for pid in found for below in descendants(pid)]


def candidate_of(judge: int) -> int:
    """The process that stays when a candidate has begun: below judge, zygote and keeper."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        family = descendants(judge)
        for pid in family:
            if os.path.realpath(f"/proc/{pid}/cwd") != os.path.realpath(f"/proc/{judge}/cwd") and "python" in name(pid):
                return pid
        time.sleep(0.05)
    raise AssertionError("no candidate came")


def name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except FileNotFoundError:
        return ""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_when_the_daemon_is_killed_the_judge_and_its_candidate_end_at_once_not_when_they_are_done(
    tmp_path: Path,
) -> None:
    kernel = tmp_path / "slow.py"
    kernel.write_text(SLOW)
    command = [sys.executable, "-c", DAEMON, str(ROOT / "bench" / "bench.py"), json.dumps(request(kernel))]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    daemon = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "AUTOKERNEL_SCRATCH": str(scratch)}
    )
    assert daemon.stdout is not None
    judge = int(daemon.stdout.readline())
    candidate = candidate_of(judge)
    family = [judge, candidate, *descendants(judge)]
    assert list(scratch.iterdir()) != []
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    began = time.monotonic()
    while any(alive(pid) for pid in family) and time.monotonic() < began + 10:
        time.sleep(0.02)
    assert [pid for pid in family if alive(pid)] == []
    assert time.monotonic() - began < 8  # the kernel sleeps for 25 s
    assert not scratch.exists()


def test_a_candidate_that_is_killed_is_recorded_as_a_crash_and_the_next_one_is_judged_normally(tmp_path: Path) -> None:
    kernel = tmp_path / "slow.py"
    kernel.write_text(SLOW)
    client = Client(tmp_path / "cache", "--sandbox", "none")
    try:
        assert client.process.stdin is not None
        assert client.process.stdout is not None
        client.process.stdin.write(json.dumps(request(kernel)).encode() + b"\n")
        client.process.stdin.flush()
        os.kill(candidate_of(client.process.pid), signal.SIGKILL)
        reply = json.loads(client.process.stdout.readline())
        assert reply["ok"], reply
        assert reply["result"]["verdict"] == "crash"
        assert "SIGKILL" in reply["result"]["detail"] or "signal 9" in reply["result"]["detail"]
        client.number = 1
        good = ROOT / "kernels" / "rmsnorm" / "starter_cpp.py"
        assert client.check(good, "rmsnorm", quick=True)["verdict"] == "pass"
    finally:
        client.close()
