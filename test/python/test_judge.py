"""The judge as the daemon meets it: what it answers, what it survives, and what a candidate cannot reach."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from judge_client import ROOT, Client

SMALL = [
    {"shape": [64, 512], "options": {"eps": 1e-5}, "weight": 0.75},
    {"shape": [8, 256], "options": {}, "weight": 0.25},
]
HONEST = "return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)"


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(tmp_path_factory.mktemp("cache"), "--call-timeout", "6", "--build-timeout", "12")
    yield client
    client.close()


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_kernel(body: str, before: str = "", name: str = "kernel.py") -> Path:
        path = tmp_path / name
        header = f"import torch\n{before}\n\ndef kernel_fn(x, weight, eps=1e-6):\n"
        path.write_text(header + textwrap.indent(textwrap.dedent(body), "    ") + "\n")
        return path

    return write_kernel


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    """The JSON Schemas of src/schema.ts, the one source of the protocol."""
    tsx = ROOT / "node_modules" / ".bin" / "tsx"
    if not tsx.exists() or not shutil.which("node"):
        pytest.skip("needs node and tsx to turn src/schema.ts into JSON Schema")
    script = (
        "import { z } from 'zod'; import * as s from './src/schema.ts';"
        "const names = ['Hello', 'Check', 'Timing', 'Verification'];"
        "console.log(JSON.stringify(Object.fromEntries(names.map((n) => [n, z.toJSONSchema(s[n])]))))"
    )
    done = subprocess.run([tsx, "--input-type=module", "-e", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def valid(schemas: dict[str, Any], name: str, document: Any) -> None:
    errors = [
        f"{'/'.join(map(str, e.path))}: {e.message}" for e in Draft202012Validator(schemas[name]).iter_errors(document)
    ]
    assert not errors, errors


def test_its_answers_match_the_schemas_of_the_daemon(judge: Client, write: Any, schemas: dict[str, Any]) -> None:
    hello = judge.ask("hello")["result"]
    valid(schemas, "Hello", hello)
    assert hello["device"]["measured"]["gbps"] > 0 and "rmsnorm" in hello["ops"]
    path = write(HONEST)
    valid(schemas, "Check", judge.check(path, "rmsnorm", shapes=SMALL))
    valid(schemas, "Check", judge.check(write("return x * float('nan')", name="nan.py"), "rmsnorm"))
    timing = judge.time({"it": str(path), "eager": "eager"}, "rmsnorm", shapes=SMALL)
    valid(schemas, "Timing", timing)
    assert timing["failure"] is None
    (first,) = timing["rounds"]
    assert sorted(first["order"]) == ["eager", "eager", "it", "it"] and first["order"] == first["order"][::-1]
    assert [[len(visits) for visits in first["us"][side]] for side in ("it", "eager")] == [[2, 2], [2, 2]]


def test_a_right_kernel_passes_every_stage_and_quick_says_what_it_left_out(judge: Client, write: Any) -> None:
    path = write(HONEST)
    whole = judge.check(path, "rmsnorm", shapes=SMALL)
    assert [s["status"] for s in whole["stages"]] == [*["pass"] * 6, "skipped"], whole["detail"]
    assert 0 < whole["worst_of_tolerance"] < 1
    assert [s["cases"] for s in whole["stages"]] == [1, 1, 13, 12, 4, 14, 0]  # none of them silently left out
    quick = judge.check(path, "rmsnorm", shapes=SMALL, quick=True)
    assert quick["quick"] and [s["status"] for s in quick["stages"]] == ["pass"] * 3 + ["skipped"] * 4
    assert "quick" in quick["stages"][3]["detail"]


def test_a_wrong_kernel_is_told_where_by_how_much_and_what_was_allowed(judge: Client, write: Any) -> None:
    found = judge.check(write("return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps) * 1.01"), "rmsnorm")
    assert found["verdict"] == "wrong"
    for word in ("rmsnorm", "32x128", "fp32", "expected", "got", "allowed", "elements are wrong"):
        assert word in found["detail"]
    assert [s["status"] for s in found["stages"]] == ["pass", "fail", *["skipped"] * 5]


def test_the_words_of_a_failing_kernel_name_its_own_line(judge: Client, write: Any) -> None:
    found = judge.check(write("raise ValueError('no such block size')"), "rmsnorm")
    assert found["verdict"] == "crash"
    assert "ValueError: no such block size" in found["detail"] and "kernel.py:5" in found["detail"]


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("import ctypes; ctypes.string_at(8)", "crash", "SIGSEGV"),
        ("import time; time.sleep(100)", "timeout", "no answer"),
        ("raise MemoryError()", "crash", "out of memory"),
    ],
)
def test_after_a_candidate_that_ended_badly_the_next_is_judged_normally(
    judge: Client, write: Any, body: str, kind: str, words: str
) -> None:
    found = judge.check(write(body, name="bad.py"), "rmsnorm")
    assert (found["verdict"], words in found["detail"]) == (kind, True), found["detail"]
    assert judge.check(write(HONEST), "rmsnorm", quick=True)["verdict"] == "pass"


def test_a_candidate_sees_no_network_no_other_process_no_key_and_writes_nowhere_else(
    judge: Client, write: Any, tmp_path: Path
) -> None:
    if "landlock" not in judge.ask("hello")["result"]["sandbox"]:
        pytest.skip("this machine confines candidates less")
    body = f"""
    import os, subprocess
    reached = []
    def attempt(what, action):
        try:
            if action() is not False:
                reached.append(what)
        except BaseException:
            pass
    attempt("write beside the kernel", lambda: open({str(tmp_path / "stolen")!r}, "w"))
    attempt("write to /tmp", lambda: open("/tmp/autokernel-stolen", "w"))
    attempt("write to the judge", lambda: open({str(ROOT / "bench" / "op.py")!r}, "a"))
    attempt("read the judge", lambda: open({str(ROOT / "bench" / "service.py")!r}).read())
    attempt("read a key", lambda: any("API_KEY" in name for name in os.environ))
    attempt("see other processes", lambda: len([p for p in os.listdir("/proc") if p.isdigit()]) > 3)
    attempt("signal the judge", lambda: getattr(os, "kil" + "l")({judge.process.pid}, 0))
    interfaces = lambda: open("/proc/net/dev").read().splitlines()[2:]
    attempt("find an interface", lambda: any("lo:" not in line for line in interfaces()))
    dial = ["bash", "-c", "echo > /dev/tcp/1.1.1.1/53"]
    attempt("connect", lambda: subprocess.run(dial, stderr=-3, timeout=5).returncode == 0)
    raise RuntimeError("reached: " + (", ".join(reached) or "nothing"))
    """
    found = judge.check(write(body), "rmsnorm")
    assert "RuntimeError: reached: nothing" in found["detail"], found["detail"]


def test_a_candidate_leaves_no_process_behind(judge: Client, write: Any) -> None:
    mark = f"sleep 98{os.getpid()}"
    before = f"import subprocess\nsubprocess.Popen({mark.split()!r}, start_new_session=True)"
    assert judge.check(write(HONEST, before), "rmsnorm", quick=True)["verdict"] == "pass"
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert mark not in listed


def test_a_dead_zygote_is_replaced(judge: Client, write: Any) -> None:
    children = subprocess.run(
        ["ps", "--ppid", str(judge.process.pid), "-o", "pid="], capture_output=True, text=True, check=True
    ).stdout.split()
    assert children
    for pid in children:
        os.kill(int(pid), 9)
    assert judge.check(write(HONEST), "rmsnorm", quick=True)["verdict"] == "pass"


def test_a_seed_repeats_the_exam_and_without_one_it_differs(judge: Client, write: Any) -> None:
    path = write(HONEST)
    errors = [judge.check(path, "rmsnorm", quick=True, seed=seed)["max_abs_err"] for seed in (7, 7, None)]
    assert errors[0] == errors[1] != errors[2]


def test_what_the_judge_cannot_do_is_an_error_and_not_a_verdict(judge: Client, write: Any) -> None:
    reply = judge.ask("check", path=str(write(HONEST)), op="no_such_op", op_file=None, dtype="fp32", shapes=[])
    assert reply["ok"] is False and "no_such_op" in reply["error"]
    assert judge.ask("dance")["ok"] is False
    assert judge.ask("hello")["ok"] is True


def test_a_broken_file_is_invalid_and_never_run(judge: Client, tmp_path: Path) -> None:
    for name, text, words in (
        ("syntax.py", "def kernel_fn(:\n", "kernel.py:1"),
        ("empty.py", "KERNEL_TYPE = 'rmsnorm'\n", "kernel_fn"),
        ("huge.py", "def kernel_fn(): pass\n" + "#" * (300 << 10), "bytes"),
    ):
        (tmp_path / name).write_text(text)
        found = judge.check(tmp_path / name, "rmsnorm")
        assert found["verdict"] == "invalid" and words in found["detail"], found["detail"]


def test_by_hand_it_prints_a_line_a_stage_and_its_exit_code_is_the_verdict(write: Any, tmp_path: Path) -> None:
    environment = {**os.environ, "AUTOKERNEL_CACHE": str(tmp_path / "cache")}
    for body, code in ((HONEST, 0), ("return torch.zeros_like(x)", 5)):
        command = [
            sys.executable,
            ROOT / "bench" / "bench.py",
            write(body),
            "--op",
            "rmsnorm",
            "--quick",
            "--device",
            "cpu",
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == code, done.stderr
        assert done.stdout.splitlines()[0].startswith("build        pass")


def test_a_report_says_what_the_compiler_made_of_a_cpp_kernel_and_nothing_where_there_is_none(
    judge: Client, write: Any
) -> None:
    compiler = judge.check(ROOT / "kernels" / "softmax" / "starter_cpp.py", "softmax", quick=True)["compiler"]
    if shutil.which("objdump"):
        assert compiler["vector_width"] in (128, 256, 512) and compiler["spills"] >= 0
    assert judge.check(write(HONEST), "rmsnorm", quick=True)["compiler"] is None


def test_what_a_candidate_says_of_its_compiler_is_only_ever_numbers_of_bounded_size(judge: Client, write: Any) -> None:
    lie = """
    import sys
    def lie(self, _m):
        return {"kernels": [{"name": "x" * 9999 + "\\x1b[2J", "registers": "many"}] * 99, "vector_width": 1e99}
    frame = getattr(sys, "_get" + "frame")(0)
    while "harness" not in getattr(frame, "f_" + "locals"):
        frame = getattr(frame, "f_" + "back")
    type(getattr(frame, "f_" + "locals")["harness"]).compiler = lie
    """
    found = judge.check(write(HONEST, before=textwrap.dedent(lie)), "rmsnorm", quick=True)
    assert found["verdict"] == "pass" and len(found["compiler"]["kernels"]) == 8
    assert len(found["compiler"]["kernels"][0]["name"]) == 80 and found["compiler"]["registers"] is None
    assert found["compiler"]["vector_width"] is None
