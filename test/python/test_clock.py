"""What counts of a visit, and what a judge remembers of its clock."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "kernels")]

import wire  # noqa: E402
from clock import LASTING  # noqa: E402
from correctness import Limits  # noqa: E402
from service import Judge  # noqa: E402
from timing import LIE_SHARE, Visit, counted_us  # noqa: E402

SHAPE = {"shape": [256, 512], "options": {}, "weight": 1.0}


def _counted(rounds: list[list[Visit]], gpu: bool) -> list[list[float]]:
    """What counts of one side's visits at one shape, in each round; another side's are of no account to it."""
    others = [Visit(1e-6, 1e-6)]
    counted = counted_us([{"candidate": [visits], "incumbent": [others]} for visits in rounds], gpu)
    return [[round(us, 6) for us in one["candidate"][0]] for one in counted]


def test_on_a_gpu_its_own_clock_counts_where_only_messages_were_slow() -> None:
    slow, quick = Visit(usual_s=20.0e-6, shortest_s=20.9e-6), Visit(usual_s=20.1e-6, shortest_s=20.05e-6)
    assert _counted([[slow, slow], [slow, quick]], gpu=True) == [[20.0, 20.0], [20.0, 20.1]]


def test_who_lies_with_its_own_clock_gains_next_to_nothing() -> None:
    visits = [Visit(usual_s=5e-6, shortest_s=20.4e-6), Visit(usual_s=5e-6, shortest_s=20e-6)]
    least = round(20.0 * (1 - LIE_SHARE), 6)
    assert _counted([visits, visits], gpu=True) == [[least, least], [least, least]]


def test_on_a_cpu_the_judges_clock_counts_alone() -> None:
    assert _counted([[Visit(20e-6, 18e-6), Visit(10e-6, 9e-6)]], gpu=False) == [[20.0, 10.0]]


def test_what_is_asked_for_without_sleeping_arrives_whole_and_so_does_the_end() -> None:
    ours, theirs = socket.socketpair()
    threading.Timer(0.05, wire.send, (theirs, {"seconds": 1.5})).start()
    assert wire.recv(ours, 10, spin_s=5) == {"seconds": 1.5}
    threading.Timer(0.05, theirs.close).start()
    with pytest.raises(wire.Closed):
        wire.recv(ours, 10, spin_s=5)
    quiet, _other = socket.socketpair()
    with pytest.raises(wire.TimedOut):
        wire.recv(quiet, 0.05, spin_s=0.05)


def test_a_judge_calibrates_its_clock_once_for_each_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOKERNEL_CACHE", str(tmp_path))
    judge = Judge("cpu", "none", Limits())
    side = {"name": "incumbent", "kind": "builtin", "which": "eager"}
    request = {"op": "rmsnorm", "dtype": "fp32", "op_file": None, "sides": [side], "rounds": 1, "shapes": [SHAPE]}
    try:
        assert judge.time(request)["failure"] is None
        (before,) = judge.calibrations.values()
        assert before.count > 1
        assert judge.time(request)["failure"] is None
        (after,) = judge.calibrations.values()
        # a machine that meanwhile became several times slower or faster is a reason to ask again
        assert after is before or not LASTING[0] < before.count / after.count < LASTING[1]
        assert judge.time({**request, "dtype": "bf16"})["failure"] is None
        assert len(judge.calibrations) == 2
    finally:
        judge.close()


def test_what_a_zygote_prepares_leaves_each_child_a_temporary_folder_of_its_own() -> None:
    script = "import zygote, tempfile; zygote._prepare_triton(); assert tempfile.tempdir is None"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "bench")}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
