"""No cheating kernel gets through, each for the right reason; no honest one, however unusual, is turned away.

AUTOKERNEL_CORPUS=all runs the whole corpus; otherwise a sixth of it, chosen by AUTOKERNEL_CORPUS_SEED.
"""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from judge_client import ROOT, Client

FIXTURES = ROOT / "test" / "fixtures"
EXPECT = re.compile(r'^expect: (check|time) (\S+)(?: "(.*)")?$', re.MULTILINE)
TIMED_SHAPE = [{"shape": [64, 1024], "options": {}, "weight": 1.0}]
NO_GAIN = 3.0  # a cheat that worked would be thirty times faster than the honest path it pretends to take


def chosen(folder: str) -> list[Path]:
    paths = sorted((FIXTURES / folder).glob("*.py"))
    if os.environ.get("AUTOKERNEL_CORPUS") == "all":
        return paths
    return sorted(
        random.Random(int(os.environ.get("AUTOKERNEL_CORPUS_SEED", "1"))).sample(paths, math.ceil(len(paths) / 6))
    )


def kernel_type(path: Path) -> str:
    found = re.search(r'^KERNEL_TYPE = "(\w+)"', path.read_text(), re.MULTILINE)
    assert found, f"{path.name} names no operation"
    return found.group(1)


def expectation(path: Path) -> tuple[str, str, str]:
    found = EXPECT.search(path.read_text())
    assert found, f"{path.name} does not say what it expects"
    return found.group(1), found.group(2), found.group(3) or ""


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(tmp_path_factory.mktemp("cache"), "--call-timeout", "6", "--build-timeout", "12")
    yield client
    client.close()


@pytest.mark.parametrize("path", chosen("cheats"), ids=lambda p: p.stem)
def test_a_cheating_kernel_is_turned_away_for_the_right_reason(judge: Client, path: Path) -> None:
    phase, kind, words = expectation(path)
    check = judge.check(path, kernel_type(path))
    if phase == "check":
        assert re.fullmatch(kind, check["verdict"]), check["detail"]
        assert re.search(words, check["detail"], re.IGNORECASE), check["detail"]
        return
    assert check["verdict"] == "pass", check["detail"]
    op = kernel_type(path)
    shapes = TIMED_SHAPE if op == "rmsnorm" else []
    timing = judge.time({"cheat": str(path), "eager": "eager"}, op, rounds=2, shapes=shapes)
    if timing["failure"]:
        assert timing["failure"]["side"] == "cheat" and re.fullmatch(kind, timing["failure"]["kind"]), timing["failure"]
        assert re.search(words, timing["failure"]["detail"], re.IGNORECASE), timing["failure"]["detail"]
        return
    counted = [r for r in timing["rounds"] if r["disturbed"] is None]  # the others are thrown away, and nothing is kept
    assert not counted or "no-gain" in kind, "nothing was noticed while it was timed"
    for r in counted:
        cheat, eager = (min(r["us"][side][0]) for side in ("cheat", "eager"))
        assert cheat > NO_GAIN * eager, f"{cheat:.1f} us against eager's {eager:.1f}: the cheat paid off"


@pytest.mark.parametrize("path", chosen("honest"), ids=lambda p: p.stem)
def test_an_honest_kernel_passes_however_unusual(judge: Client, path: Path) -> None:
    check = judge.check(path, kernel_type(path))
    assert check["verdict"] == "pass", check["detail"]
    timing = judge.time({"it": str(path)}, kernel_type(path))
    assert timing["failure"] is None, timing["failure"]


def test_the_corpus_is_wide_enough() -> None:
    cheats = sorted((FIXTURES / "cheats").glob("*.py"))
    assert len(cheats) >= 60
    assert len({kernel_type(path) for path in cheats}) >= 8
    for path in cheats:
        expectation(path)
