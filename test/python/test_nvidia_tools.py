"""What is read from ncu and compute-sanitizer. Neither runs here: their words are given as the tools print them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from judge_client import ROOT

sys.path.insert(0, str(ROOT / "bench"))

import nvidia_tools
import workers

TIME, DRAM = "gpu__time_duration.sum", "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed"
STALLS = [f"smsp__average_warps_issue_stalled_{name}_per_issue_active.ratio" for name in ("barrier", "long_scoreboard")]
HEADER = ["ID", "Process ID", "Kernel Name", TIME, DRAM, *STALLS]
UNITS = ["", "", "", "us", "%", "inst", "inst"]


def line(*cells: str) -> str:
    return ",".join(f'"{cell}"' for cell in cells)


PAGE = "\n".join(
    [
        "==PROF== Connected to process 4304",
        "confined: namespaces net, landlock abi 7",
        line(*HEADER),
        line(*UNITS),
        line("0", "4304", "first(float *)", "3.5", "12.25", "0.50", "1.50"),
        line("1", "4304", "second", "1,016.8", "56", "3", "1"),
        "==PROF== Disconnected from process 4304",
    ]
)


def test_launches_are_read_longest_first_with_what_warps_wait_for() -> None:
    second, first = nvidia_tools.parse(PAGE)
    assert (second["name"], second["us"], second["memory"], second["units"]) == ("second", 1016.8, 0.56, None)
    assert first["stalls"] == [["long_scoreboard", 0.75], ["barrier", 0.25]]
    said = nvidia_tools.words({"counters": {"kernels": [first], "detail": ""}})
    assert said == ["counters     first(float *): 3.5 us, memory 12%; warps wait for long_scoreboard 75%, barrier 25%"]


@pytest.mark.parametrize("text", ["", "==ERROR== ERR_NVGPUCTRPERM", '"ID"', line(*HEADER) + "\n" + line(*UNITS)])
def test_nothing_counted_is_nothing(text: str) -> None:
    assert nvidia_tools.parse(text) == []


@pytest.mark.parametrize(
    ("words", "errors"),
    [
        ("watched to the end\n========= ERROR SUMMARY: 0 errors", 0),
        ("========= ERROR SUMMARY: 3 errors", 3),
        ("========= ERROR SUMMARY: 0 errors", None),  # the kernel was never called
        ("ERROR SUMMARY: 0 errors\nwatched to the end\n========= ERROR SUMMARY: 2 errors", 2),  # it said the first
        ("Device not supported", None),
    ],
)
def test_only_a_call_that_was_watched_to_the_end_is_clean(words: str, errors: int | None) -> None:
    assert nvidia_tools._errors(words) == errors


def test_a_tool_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    pool = workers.Pool(False, "auto", tmp_path)
    try:
        request = {"path": str(ROOT / "kernels" / "rmsnorm" / "starter_cpp.py")}
        counted = nvidia_tools.measure(request, {}, pool)
        looked = nvidia_tools.sanitize(request, {}, pool)
    finally:
        pool.close()
    assert counted == {"kernels": [], "detail": "ncu counted nothing: ncu is not on the PATH"}
    assert looked["errors"] is None and "compute-sanitizer is not on the PATH" in looked["detail"]


def test_what_a_kernel_prints_without_end_or_leaves_behind_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the tool that floods its output, leaves a process of another session behind and never ends."""
    marker = f"leftover-{tmp_path.name}"
    leaves = f"setsid sh -c 'sleep 300; : {marker}' &"
    floods = "head -c 9000000 /dev/zero | tr '\\0' x; echo; echo the last words"
    fake = tmp_path / "ncu"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    pool = workers.Pool(False, "auto", tmp_path)
    try:
        request = {"path": str(ROOT / "kernels" / "rmsnorm" / "starter_cpp.py")}
        for ending, words in (("exit 0", "the last words"), ("sleep 300", "no answer within 1 s")):
            fake.write_text(f"#!/bin/sh\n{leaves}\n{floods}\n{ending}\n")
            fake.chmod(0o755)
            monkeypatch.setattr(nvidia_tools, "TIMEOUT_S", 60.0 if ending == "exit 0" else 1.0)
            counted = nvidia_tools.measure(request, {}, pool)
            assert counted["kernels"] == [] and counted["detail"].endswith(words)
            running = [_command(p) for p in Path("/proc").glob("[0-9]*/cmdline")]
            assert not any(marker.encode() in command for command in running)
    finally:
        pool.close()


def _command(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it has just ended


FAKE_NCU = f"""#!{sys.executable}
import os, pathlib, sys
there = pathlib.Path("kernel.py").exists() and "SECRET_KEY" not in os.environ
print({PAGE!r} if there and "--profile-from-start" in sys.argv else "ERROR: not as expected")
"""


def test_the_tool_runs_in_a_folder_of_its_own_without_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ncu"
    fake.write_text(FAKE_NCU)
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SECRET_KEY", "sk-1")
    pool = workers.Pool(False, "auto", tmp_path)
    try:
        counted = nvidia_tools.measure({"path": str(ROOT / "kernels" / "rmsnorm" / "starter_cpp.py")}, {}, pool)
        assert [kernel["name"] for kernel in counted["kernels"]] == ["second", "first(float *)"]
        assert counted["detail"] == "namespaces net, landlock abi 7"
        assert list(pool.scratch.iterdir()) == []
    finally:
        pool.close()
