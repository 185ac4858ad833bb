"""Who else was using the machine while we measured: only what is gross enough to spoil a round is reported."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STOLEN_SHARE = 0.30  # of the processors' time during the visits; below that, alternating order evens it out
TICK = 1.0 / os.sysconf("SC_CLK_TCK")
THROTTLED = 0x8 | 0x20 | 0x40 | 0x80  # hardware slowdown, thermal, power brake; the power cap is everyday life


@dataclass
class CpuWatch:
    """Sums, over the visits of one round, the processor time of everybody and ours."""

    wall: float = 0.0
    others: float = 0.0
    spoilt: str = ""

    def begin(self, pid: int) -> None:
        self._began, self._busy, self._ours, self._pid = time.monotonic(), _busy_seconds(), _seconds_of(pid), pid

    def end(self) -> None:
        ours = _seconds_of(self._pid) - self._ours
        self.wall += time.monotonic() - self._began
        self.others += max(0.0, _busy_seconds() - self._busy - ours)

    def spoil(self, why: str) -> None:
        """The round must not count, whatever the totals say."""
        self.spoilt = self.spoilt or why

    def now(self) -> tuple[float, float, float]:
        return time.monotonic(), _busy_seconds(), _seconds_of(self._pid)

    def busy(self, since: tuple[float, float, float]) -> bool:
        """Whether others were on the machine since then, or are right now."""
        if self._others_since(since):
            return True
        since = self.now()
        time.sleep(0.1)
        return self._others_since(since)

    def _others_since(self, since: tuple[float, float, float]) -> bool:
        wall, everybody, ours = (now - then for now, then in zip(self.now(), since, strict=True))
        return everybody - ours > 0.1 * wall + TICK

    def verdict(self) -> str | None:
        if self.spoilt:
            return self.spoilt
        room = self.wall * (os.cpu_count() or 1)
        if room < 20 * TICK:  # too short to be told from the counters' own steps
            return None
        share = self.others / room
        return f"other processes took {share:.0%} of the processor time" if share > STOLEN_SHARE else None


def _busy_seconds() -> float:
    """user + nice + system + irq + softirq + steal of all processors."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = [int(f) for f in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        return (sum(fields[:3]) + sum(fields[5:8])) * TICK
    return 0.0


def _seconds_of(pid: int) -> float:
    own = os.times()
    total = own.user + own.system
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) * TICK
    return total


def gpu_state() -> dict[str, Any]:
    """{'sm_mhz', 'temperature', 'throttle', 'processes'} or {} where nobody tells. A few milliseconds with NVML."""
    with contextlib.suppress(Exception):  # NVML raises its own family of errors, and may be missing
        return _through_nvml()
    return _through_smi()


def _through_nvml() -> dict[str, Any]:
    pynvml = importlib.import_module("pynvml")  # present on most GPU hosts, a dependency on none
    pynvml.nvmlInit()
    first = _first_device()
    by_name = pynvml.nvmlDeviceGetHandleByUUID
    device = pynvml.nvmlDeviceGetHandleByIndex(int(first)) if first.isdigit() else by_name(first)
    return {
        "sm_mhz": pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM),
        "temperature": pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU),
        "throttle": int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(device)),
        "processes": len(pynvml.nvmlDeviceGetComputeRunningProcesses(device)),
    }


def _through_smi() -> dict[str, Any]:
    query = "clocks.sm,temperature.gpu,clocks_throttle_reasons.active"
    command = ["nvidia-smi", f"--id={_first_device()}", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        text = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
        clock, temperature, throttle = (part.strip() for part in text.strip().split(","))
        return {"sm_mhz": int(clock), "temperature": int(temperature), "throttle": int(throttle, 16), "processes": None}
    return {}


def _first_device() -> str:
    """The one that is measured on: its number or its UUID."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"


def gpu_verdict(state: dict[str, Any], ours: int) -> str | None:
    """`ours`: processes of this judge that hold the device."""
    if state.get("throttle", 0) & THROTTLED:
        return f"the GPU throttles (reasons 0x{state['throttle']:x}, {state.get('temperature')} C)"
    processes = state.get("processes")
    if processes is not None and processes > ours:
        return f"{processes - ours} other processes use the GPU"
    return None


def clocks(state: dict[str, Any]) -> str | None:
    return f"SM {state['sm_mhz']} MHz, {state['temperature']} C" if state else None
