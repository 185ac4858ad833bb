"""Datasheet numbers are found by whole device names, and unknown devices are estimated."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "models"))

import device_peaks


@pytest.mark.parametrize(
    ("reported", "name", "gbps"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM", 3352),
        ("NVIDIA H100 PCIe", "H100 PCIe", 2039),
        ("NVIDIA H100 NVL", "H100 NVL", 3938),
        ("NVIDIA H200", "H200", 4800),
        ("NVIDIA B200", "B200", 8000),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM", 2039),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM 40GB", 1555),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe", 1935),
        ("NVIDIA A100-PCIE-40GB", "A100 PCIe 40GB", 1555),
        ("NVIDIA L4", "L4", 300),
        ("NVIDIA L40", "L40", 864),
        ("NVIDIA L40S", "L40S", 864),
        ("NVIDIA A10", "A10", 600),
        ("NVIDIA A10G", "A10G", 600),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", 1008),
        ("Tesla T4", "T4", 320),
        ("AMD Instinct MI300X", "MI300X", 5300),
        ("AMD Instinct MI325X OAM", "MI325X", 6000),
    ],
)
def test_a_device_is_found_by_the_name_its_driver_reports(reported: str, name: str, gbps: float) -> None:
    peaks = device_peaks.lookup(reported, None)
    assert peaks is not None
    assert (peaks.name, peaks.gbps) == (name, gbps)


@pytest.mark.parametrize(
    "reported",
    ["", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA A1000", "Intel Xeon"],
)
def test_a_name_that_only_contains_a_known_one_is_unknown(reported: str) -> None:
    assert device_peaks.lookup(reported, None) is None


@pytest.mark.parametrize(("arch", "name"), [("gfx942:sramecc+:xnack-", "MI300X"), ("gfx950", "MI350X")])
def test_amd_is_found_by_its_architecture_when_the_name_is_empty(arch: str, name: str) -> None:
    peaks = device_peaks.lookup("", arch)
    assert peaks is not None and peaks.name == name


def test_the_name_decides_where_several_devices_share_an_architecture() -> None:
    peaks = device_peaks.lookup("AMD Instinct MI325X", "gfx942")
    assert peaks is not None and peaks.gbps == 6000


@pytest.mark.parametrize(
    ("sms", "mhz", "capability", "tflops", "gbps"),
    [(132, 1830, (9, 0), 989.5, 3352), (108, 1410, (8, 0), 312, 2039), (82, 1695, (8, 6), 142, 936)],
)
def test_the_estimate_reproduces_known_devices(
    sms: int, mhz: float, capability: tuple[int, int], tflops: float, gbps: float
) -> None:
    guess = device_peaks.estimate("unnamed", sms, mhz, capability)
    assert guess.estimated
    assert guess.tflops == pytest.approx(tflops, rel=0.03)
    assert guess.gbps == pytest.approx(gbps, rel=0.03)


def test_the_estimate_takes_the_last_generation_it_knows_for_a_newer_device() -> None:
    assert device_peaks.estimate("next", 100, 1000, (10, 3)).tflops == pytest.approx(819.2)


def test_measuring_the_cpu_gives_finite_rates_of_every_dtype() -> None:
    start = time.perf_counter()
    measured = device_peaks.measure("cpu")
    assert time.perf_counter() - start < 20  # about half a second alone on the machine
    assert set(measured["tflops"]) == {"fp32", "bf16", "fp16"}
    assert 0.1 < measured["gbps"] < 5000
    assert all(0 < rate < 1000 for rate in measured["tflops"].values())
