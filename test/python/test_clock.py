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
from counted import LIE_SHARE, Visit, counted_us  # noqa: E402
from service import Judge  # noqa: E402

SHAPE = {"shape": [256, 512], "options": {}, "weight": 1.0}


CALLS = 300
HONEST = {"usual_s": 6.0e-3, "shortest_s": 6.05e-3, "way_s": 50e-6}


def _visit(**other: float) -> Visit:
    return Visit(CALLS, **{**HONEST, **other})


def _counted(rounds: list[list[Visit]], gpu: bool, beside: Visit | None = None) -> list[list[float]]:
    """Microseconds a batch that count of one side's visits at one shape, in each round, beside an honest side."""
    others = [beside or _visit()]
    counted = counted_us([{"candidate": [visits], "incumbent": [others]} for visits in rounds], gpu)
    return [[round(us * CALLS, 3) for us in one["candidate"][0]] for one in counted]


def test_on_a_gpu_its_own_clock_counts_where_only_messages_were_slow() -> None:
    slow, quick = _visit(shortest_s=6.3e-3, way_s=300e-6), _visit(usual_s=6.03e-3)
    assert _counted([[slow, slow], [slow, quick]], gpu=True) == [[6000, 6000], [6000, 6030]]


def test_a_way_that_is_long_for_all_makes_nobody_slower() -> None:
    """The calibration of a judge is a while old, and its machine has become slower since."""
    late = _visit(shortest_s=6.2e-3, way_s=200e-6)
    assert _counted([[late], [late]], gpu=True, beside=late) == [[6000], [6000]]
    assert _counted([[late], [late]], gpu=True) == [[6119.25], [6119.25]]


def test_who_lies_with_its_own_clock_gains_next_to_nothing() -> None:
    lie = _visit(usual_s=2e-3, way_s=4.05e-3)
    assert _counted([[lie, lie], [lie, lie]], gpu=True) == [[5970, 5970], [5970, 5970]]


def test_a_lie_may_pass_the_screening_pair_but_is_worth_no_more_than_a_message_is_late() -> None:
    lie = _visit(usual_s=2e-3, way_s=4.05e-3)
    assert _counted([[lie, lie]], gpu=True) == [[5721.25, 5721.25]]


def test_an_incumbent_that_lies_lends_the_next_one_no_more_than_its_own_lie() -> None:
    """Else each keep could lie a little more than the one before."""
    lie = _visit(usual_s=5.97e-3, way_s=80e-6)
    deeper = _visit(usual_s=5e-3, way_s=1.05e-3)
    ((counted, *_), *_) = _counted([[deeper], [deeper]], gpu=True, beside=lie)
    assert counted >= 5970 * (1 - LIE_SHARE)


def test_on_a_cpu_the_judges_clock_counts_alone() -> None:
    assert _counted([[_visit(usual_s=20e-3), _visit(usual_s=10e-3)]], gpu=False) == [[20000, 10000]]


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
