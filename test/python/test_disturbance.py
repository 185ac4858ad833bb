"""Who else uses the GPU, as nvidia-smi and NVML tell it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "kernels")]

import disturbance  # noqa: E402

QUIET = {"sm_mhz": 1980, "temperature": 41, "throttle": 0, "processes": 3}


@pytest.mark.parametrize(
    ("state", "ours", "verdict"),
    [
        (QUIET, 3, None),
        (QUIET, 2, "1 other processes use the GPU"),
        ({**QUIET, "throttle": 0x4}, 3, None),  # the power cap is everyday life
        ({**QUIET, "throttle": 0x40}, 3, "the GPU throttles (reasons 0x40, 41 C)"),
        ({**QUIET, "processes": None}, 3, None),
        ({}, 3, None),
    ],
)
def test_a_foreign_process_or_a_hot_gpu_spoils_a_round(state: dict[str, Any], ours: int, verdict: str | None) -> None:
    assert disturbance.gpu_verdict(state, ours) == verdict


@pytest.mark.parametrize(("visible", "asked"), [("", "0"), ("2,3", "2"), ("GPU-8c3f,GPU-77", "GPU-8c3f")])
def test_the_gpu_that_is_measured_on_is_the_one_that_is_asked_about(
    visible: str, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = tmp_path / "nvidia-smi"  # answers in the real one's form, as it would when heat slows the GPU down
    smi.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho "1395, 83, 0x0000000000000020"\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    state = disturbance.gpu_state()
    assert f"--id={asked} " in (tmp_path / "asked").read_text()
    assert state == {"sm_mhz": 1395, "temperature": 83, "throttle": 0x20, "processes": None}
    assert disturbance.gpu_verdict(state, 1) == "the GPU throttles (reasons 0x20, 83 C)"


def test_a_machine_that_tells_nothing_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert disturbance.gpu_state() == {}
