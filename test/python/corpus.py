"""The corpora: kernels that cheat or harm, with what must come of each, and honest ones that must pass. No pytest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
EXPECT = re.compile(r'^expect: (check|large|time) (\S+)(?: "(.*)")?$', re.MULTILINE)
SMALL = [{"shape": [64, 1024], "options": {}, "weight": 1.0}]  # where a CPU times cheats of rmsnorm
NO_GAIN = 3.0  # a cheat that worked would be ten to thirty times faster than the honest path it pretends to take


class Judging(Protocol):
    """judge_client.Client, or a judge in this process."""

    def check(self, path: Path | str, op: str, dtype: str = "fp32", **more: Any) -> dict[str, Any]: ...
    def time(
        self, sides: dict[str, str], op: str, dtype: str = "fp32", rounds: int = 1, **more: Any
    ) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Kernel:
    path: Path
    op: str
    device: str  # 'cpu', 'cuda', or 'any'
    slow: bool  # longer to build than the corpus waits for the others
    # phase, verdict and words of the detail, where it must be turned away; `large` is a check beyond 2^31 elements
    expect: tuple[str, str, str] | None


def listed(folder: str) -> list[Kernel]:
    return [_read(path, folder != "honest") for path in sorted((FIXTURES / folder).glob("*.py"))]


def runs_on(kernel: Kernel, device: str) -> bool:
    return kernel.device in ("any", device)


def _read(path: Path, bad: bool) -> Kernel:
    text = path.read_text()
    named = {name: re.search(rf'^{name} = "?(\w+)"?', text, re.MULTILINE) for name in ("KERNEL_TYPE", "DEVICE", "SLOW")}
    op, device = named["KERNEL_TYPE"], named["DEVICE"]
    expect = EXPECT.search(text)
    if op is None or (bad and expect is None):
        raise ValueError(
            f"{path.name}: expected a KERNEL_TYPE, and of a bad one a line 'expect: check|large|time verdict'"
        )
    said = (expect.group(1), expect.group(2), expect.group(3) or "") if bad and expect else None
    return Kernel(path, op.group(1), device.group(1) if device else "any", named["SLOW"] is not None, said)


def turned_away(judge: Judging, kernel: Kernel, on_gpu: bool = False) -> str:
    """'' where a cheat is turned away for the right reason, else what happened instead."""
    assert kernel.expect is not None
    phase, kind, words = kernel.expect
    check = judge.check(kernel.path, kernel.op, large=phase == "large")
    said = f"{check['verdict']}: {check['detail'][:300] or check['stages'][-1]['detail']}"
    if phase != "time":
        if re.fullmatch(kind, check["verdict"]) and re.search(words, check["detail"], re.IGNORECASE):
            return ""
        # what was written for a CPU fails on a GPU in its own ways
        return "" if on_gpu and kernel.device != "cuda" and check["verdict"] != "pass" else f"check: {said}"
    if check["verdict"] != "pass":
        return "" if on_gpu and kernel.device != "cuda" else f"check: {said}"
    shapes = SMALL if kernel.op == "rmsnorm" and not on_gpu else []
    timing = judge.time({"cheat": str(kernel.path), "eager": "eager"}, kernel.op, rounds=2, shapes=shapes)
    failure = timing["failure"]
    if failure:
        right = failure["side"] == "cheat" and re.fullmatch(kind, failure["kind"])
        return "" if right and re.search(words, failure["detail"], re.IGNORECASE) else f"time: {failure}"
    counted = [r for r in timing["rounds"] if r["disturbed"] is None]  # the others are thrown away, nothing is kept
    if counted and "no-gain" not in kind:
        return "time: nothing was noticed"
    for r in counted:
        cheat, eager = (min(r["us"][side][0]) for side in ("cheat", "eager"))
        if cheat <= NO_GAIN * eager:
            return f"time: {cheat:.1f} us against eager's {eager:.1f}, the cheat paid off"
    return ""


def passes(judge: Judging, kernel: Kernel, dtype: str = "fp32", large: bool = False) -> str:
    """'' where an honest kernel passes and can be timed, else what was held against it.

    `large`: also beyond 2^31 elements, and a stage that was skipped there is no pass.
    """
    check = judge.check(kernel.path, kernel.op, dtype, large=large)
    if check["verdict"] != "pass":
        return f"check: {check['verdict']}: {check['detail'][:300]}"
    beyond = next((stage for stage in check["stages"] if large and stage["name"] == "large"), None)
    if beyond and beyond["status"] != "pass":
        return f"large: {beyond['status']}: {beyond['detail'][:300]}"
    if check["held"]:
        return f"a win would be held: {check['held']}"
    failure = judge.time({"it": str(kernel.path)}, kernel.op, dtype)["failure"]
    return "" if failure is None else f"time: {failure}"
