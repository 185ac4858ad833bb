"""The figures the judge is held to, measured in a reduced form, and put to the daemon's own rule."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from judge_client import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from daemon_rule import DaemonRule


def test_the_figures_can_be_measured_and_the_rule_asked_about_them(tmp_path: Path) -> None:
    out = tmp_path / "samples.json"
    parts = ["--part", "refusals", "--part", "samples", "--rounds", "3"]
    command = [sys.executable, "scripts/judge_numbers.py", "--device", "cpu", "--small", "--out", str(out), *parts]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert [row["verdict"] for row in document["refusals"]] == ["invalid", "wrong"]
    (occasion,) = document["samples"]
    assert [len(kernel["rounds"]) for kernel in occasion] == [3, 3]
    assert "does not parse (invalid) | median" in done.stdout

    tsx = ROOT / "node_modules" / ".bin" / "tsx"
    if not tsx.exists() or not shutil.which("node"):
        pytest.skip("needs node and tsx to ask the rule")
    for kernel in occasion:  # on a machine that others use every pair is disturbed, and none would be drawn
        for one in kernel["rounds"]:
            one["disturbed"] = None
    out.write_text(json.dumps(document))
    asked = subprocess.run([tsx, "scripts/judge-power.ts", out, "100"], cwd=ROOT, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.count("100 resamplings: nothing kept in") == 2


def test_the_daemons_rule_answers_as_often_as_it_is_asked() -> None:
    if not (ROOT / "dist" / "core" / "judge.js").exists() or not shutil.which("node"):
        pytest.skip("needs node and npm run build")
    pair = {"order": [], "us": {"incumbent": [[10.0, 10.0]], "candidate": [[11.0, 11.0]]}, "disturbed": None}
    rule = DaemonRule()
    try:
        assert rule.decide([]) == {"kind": "more", "rounds": 1}
        assert rule.decide([pair])["verdict"]["why"] == "slower"
    finally:
        rule.close()
