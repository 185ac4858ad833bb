"""What a hostile or broken candidate may try, a row each: its verdict, and that the next one is judged normally."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from judge_client import ROOT, Client

sys.path.insert(0, str(ROOT / "bench"))

import bounds

HONEST = "return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)"
PRECIOUS = ROOT / "bench" / "op.py"
# The scan refuses a plain os.kill before anything runs, so these rows spell it as somebody who means it would.
HIDDEN = "def hidden(name):\n    return getattr(os, name)\n"

# name, body of kernel_fn, verdict, words of the detail
ROWS = [
    ("loops for ever", "while True: pass", "timeout", "no answer within 3 s; killed"),
    (
        "waits for a lock that it holds",
        "lock = threading.Lock(); lock.acquire(); lock.acquire()",
        "timeout",
        "no answer",
    ),
    ("loops in C, deaf to signals", "signal.signal(15, signal.SIG_IGN); libc.pause()", "timeout", "no answer"),
    (
        "forks without end",
        "while True: hidden('fork')()",
        "timeout|crash",
        "no answer|processes|SIGKILL|BlockingIOError",
    ),
    ("allocates 64 GB at once", "return torch.ones(16 << 30)", "crash", "out of memory"),
    ("reads address 8", "ctypes.string_at(8)", "crash", "SIGSEGV"),
    ("writes to a constant", "ctypes.memset(libc.getenv, 0, 8)", "crash", "SIGSEGV"),
    ("aborts", "os.abort()", "crash", "SIG(ABRT|SEGV)"),
    ("ends with success", "hidden('_exit')(0)", "crash", "exited with code 0 instead of answering"),
    (
        "closes every descriptor",
        f"os.closerange(0, 65536)\n{HONEST}",
        "crash",
        "exited with code|closed its connection",
    ),
    ("floods its output", f"os.write(1, b'x' * (1 << 26))\n{HONEST}", "pass", ""),
    ("writes to the judge's files", f"open({str(PRECIOUS)!r}, 'a').write('#')", "crash", "PermissionError|Read-only"),
    ("replaces the judge's files", f"os.rename({str(PRECIOUS)!r}, 'mine')", "crash", "PermissionError|OSError"),
    ("writes one endless file", "f = open('f', 'wb')\nwhile True: f.write(bytes(1 << 24))", "crash", "File too large"),
    ("opens a connection", "hidden_socket().create_connection(('127.0.0.1', 22), 3)", "crash", "Error"),
    ("listens on the network", "s = hidden_socket().socket(); s.bind(('0.0.0.0', 0)); s.listen()", "crash|wrong", ""),
]
# Inside a PID namespace these reach nobody, and the answer is as good as any other; elsewhere they end the candidate.
KILLERS = [
    ("kills its parent", f"hidden('kill')(os.getppid(), 9)\n{HONEST}"),
    ("kills its group", f"hidden('killpg')(0, 9)\n{HONEST}"),
    ("kills whatever it can", f"try: hidden('kill')(-1, 9)\nexcept OSError: pass\n{HONEST}"),
]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(tmp_path_factory.mktemp("cache"), "--call-timeout", "3", "--build-timeout", "12")
    yield client
    client.close()


def kernel(folder: Path, body: str) -> Path:
    imports = "import ctypes, importlib, os, signal, threading\nimport torch\nlibc = ctypes.CDLL('libc.so.6')\n"
    sockets = "def hidden_socket():\n    return importlib.import_module('soc' + 'ket')\n"
    path = folder / "kernel.py"
    path.write_text(
        f"{imports}{HIDDEN}{sockets}def kernel_fn(x, weight, eps=1e-6):\n{textwrap.indent(body, '    ')}\n"
        "    return torch.zeros_like(x)\n"
    )
    return path


def expect_normal(judge: Client, folder: Path) -> None:
    found = judge.check(kernel(folder, HONEST), "rmsnorm", quick=True)
    assert found["verdict"] == "pass", found["detail"]


@pytest.mark.parametrize(("name", "body", "verdict", "words"), ROWS, ids=[row[0] for row in ROWS])
def test_a_candidate_that(judge: Client, tmp_path: Path, name: str, body: str, verdict: str, words: str) -> None:
    if "file" in name and "landlock" not in judge.ask("hello")["result"]["sandbox"]:
        pytest.skip("this machine offers no Landlock")
    before = PRECIOUS.read_bytes()
    found = judge.check(kernel(tmp_path, body), "rmsnorm", quick=True)
    assert PRECIOUS.read_bytes() == before
    assert found["verdict"] in verdict.split("|"), found
    assert re.search(words, found["detail"]), found["detail"]
    expect_normal(judge, tmp_path)


@pytest.mark.parametrize(("name", "body"), KILLERS, ids=[row[0] for row in KILLERS])
def test_a_candidate_that_reaches_for_others(judge: Client, tmp_path: Path, name: str, body: str) -> None:
    strong = "pid" in judge.ask("hello")["result"]["sandbox"]
    found = judge.check(kernel(tmp_path, body), "rmsnorm", quick=True)
    assert found["verdict"] in (("pass",) if strong else ("pass", "crash")), (name, found)
    assert judge.process.poll() is None
    expect_normal(judge, tmp_path)


def test_a_candidate_that_fills_its_scratch_folder_is_ended_and_the_space_is_free_again(
    judge: Client, tmp_path: Path
) -> None:
    file = "  with open(f'f{i}', 'wb') as f: os.posix_fallocate(f.fileno(), 0, 1 << 29)"
    body = f"for i in range(12):\n{file}\nsignal.pause()"
    free = os.statvfs("/tmp").f_bavail * os.statvfs("/tmp").f_frsize
    if free < 40 << 30:
        pytest.skip("needs 40 GB of free space in /tmp, to be sure that it is not filled")
    found = judge.check(kernel(tmp_path, body), "rmsnorm", quick=True)
    assert found["verdict"] == "crash" and "wrote more than 2 GiB" in found["detail"], found
    assert os.statvfs("/tmp").f_bavail * os.statvfs("/tmp").f_frsize > free - (8 << 30)
    expect_normal(judge, tmp_path)


def test_a_candidate_is_the_first_to_end_where_the_machine_runs_out_of_memory(judge: Client, tmp_path: Path) -> None:
    body = "raise RuntimeError('adjusted ' + open('/proc/self/oom_score_adj').read())"
    assert "adjusted 1000" in judge.check(kernel(tmp_path, body), "rmsnorm", quick=True)["detail"]


def test_processes_are_counted_only_when_the_machine_has_many_more_than_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = 1000
    monkeypatch.setattr(bounds, "_tasks", lambda: tasks)
    counted = []
    watch = bounds.Bounds([], lambda: counted.append(1) or bounds.PROCESSES + 1)
    assert watch.broken() == "" and not counted
    tasks += bounds.PROCESSES
    assert watch.broken() == f"it had more than {bounds.PROCESSES} processes at once"
    assert bounds.Bounds([], lambda: 0).broken() == ""


def test_what_others_write_to_the_same_disk_is_not_held_against_a_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").write_bytes(bytes(1 << 20))
    free = 100 << 30
    monkeypatch.setattr(bounds, "_free", lambda _: free)
    watch = bounds.Bounds([str(tmp_path)], lambda: 0)
    free -= 50 << 30
    assert watch.broken() == ""
    monkeypatch.setattr(bounds, "DISK_BYTES", 1 << 16)
    assert "scratch folder" in watch.broken()
