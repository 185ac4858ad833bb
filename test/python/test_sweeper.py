"""What a candidate starts is ended whenever it is stopped, however fast it forks anew."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "kernels")]

import descendants  # noqa: E402
from arena import Arena  # noqa: E402
from worker import Worker, WorkerFailed, load_order  # noqa: E402
from workers import Pool  # noqa: E402

FORKS = """
import os, subprocess, sys, time

KERNEL_TYPE = "rmsnorm"
SOURCE = r'''
#include <signal.h>
#include <time.h>
#include <unistd.h>
static double now() { timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
int main() {
  setsid();
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    const double until = now() + 150e-6;
    while (now() < until) {}
    if (fork() > 0) _exit(0);
  }
}
'''
subprocess.run(["g++", "-O1", "-x", "c++", "-", "-o", "forks"], input=SOURCE, text=True, check=True)
subprocess.Popen(["./forks"])
time.sleep(0.1)

def kernel_fn(x, weight, eps=1e-6):
    return x
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    pool, block = Pool(False, "auto", tmp_path), Arena(torch.device("cpu"), 1 << 20)
    one = pool.spawn(block, "key")
    one.await_ready(60)
    if "pid" not in one.sandbox:
        pytest.skip("this machine gives no PID namespaces")
    yield one
    one.kill()
    pool.close()
    block.close()


def load(worker: Worker, source: str) -> None:
    assert not worker.ask(load_order(worker, source.encode(), False), 60).get("problem")


def forks() -> int:
    """That the machine sees in a third of a second."""

    def so_far() -> int:
        return int(Path("/proc/stat").read_text().partition("\nprocesses ")[2].split()[0])

    before = so_far()
    time.sleep(0.3)
    return so_far() - before


def sweeper_of(worker: Worker) -> int:
    """The other process in the candidate's PID namespace."""
    space, keeper = Path(f"/proc/{worker.pid}/ns/pid").readlink(), _parent(worker.pid)
    children = [pid for pid in descendants.below(keeper) if pid != worker.pid]
    found = [pid for pid in children if Path(f"/proc/{pid}/ns/pid").readlink() == space]
    assert len(found) == 1
    return found[0]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_helper_that_forks_itself_anew_all_the_time_is_gone_once_the_candidate_is_stopped(worker: Worker) -> None:
    load(worker, FORKS)
    running = forks()
    assert running > 100
    worker.stop()
    assert forks() < running / 5
    worker.resume()
    assert forks() < running / 5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_where_the_process_that_sees_to_it_is_ended_or_stopped_the_candidate_ends(worker: Worker, number: int) -> None:
    worker.stop()  # by then it is there
    worker.resume()
    os.kill(sweeper_of(worker), number)
    with pytest.raises(WorkerFailed, match="left processes behind that cannot be ended, or ended the judge's own"):
        worker.stop()


def test_a_candidate_with_nothing_beside_it_stops_and_goes_on(worker: Worker) -> None:
    load(worker, "def kernel_fn(x, weight, eps=1e-6):\n    return x\n")
    for _ in range(3):
        worker.stop()
        assert Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        assert descendants.below(worker.pid) == []
        worker.resume()
    assert worker.ask({"do": "memory"}, 10)["peak_mb"] > 0
