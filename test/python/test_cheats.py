"""No cheating kernel gets through, each for the right reason; no honest one, however unusual, is turned away.

AUTOKERNEL_CORPUS=all runs all that a CPU can; otherwise a sixth of it, chosen by AUTOKERNEL_CORPUS_SEED. What needs a
GPU is run by scripts/gpu_suite.py.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator

import corpus
import pytest
from corpus import Kernel
from judge_client import Client

EVERYTHING = os.environ.get("AUTOKERNEL_CORPUS") == "all"


def chosen(folder: str) -> list[Kernel]:
    kernels = [k for k in corpus.listed(folder) if corpus.runs_on(k, "cpu")]
    if EVERYTHING:
        return kernels
    quick = [k for k in kernels if not k.slow]
    return random.Random(int(os.environ.get("AUTOKERNEL_CORPUS_SEED", "1"))).sample(quick, math.ceil(len(kernels) / 6))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(tmp_path_factory.mktemp("cache"), "--call-timeout", "6", "--build-timeout", "12")
    yield client
    client.close()


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(tmp_path_factory.mktemp("patient"))
    yield client
    client.close()


@pytest.mark.parametrize("kernel", chosen("cheats"), ids=lambda k: k.path.stem)
def test_a_cheating_kernel_is_turned_away_for_the_right_reason(judge: Client, kernel: Kernel) -> None:
    assert corpus.turned_away(judge, kernel) == ""


@pytest.mark.parametrize("kernel", chosen("honest"), ids=lambda k: k.path.stem)
def test_an_honest_kernel_passes_however_unusual(judge: Client, kernel: Kernel, request: pytest.FixtureRequest) -> None:
    assert corpus.passes(request.getfixturevalue("patient") if kernel.slow else judge, kernel) == ""


def test_the_corpora_are_wide_enough() -> None:
    cheats, honest = corpus.listed("cheats"), corpus.listed("honest")
    assert len(cheats) >= 60 and len(honest) >= 40
    assert len({k.op for k in cheats}) >= 8 and len({k.op for k in honest}) >= 8
    assert len({k.path.read_text().split('"""')[1] for k in cheats}) == len(cheats)  # no mechanism described twice
