"""A real judge in a process of its own, spoken to as the daemon does: one JSON request a line, one reply a line."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Client:
    def __init__(self, cache: Path, *flags: str, device: str = "cpu") -> None:
        command = [sys.executable, str(ROOT / "bench" / "bench.py"), "--serve", "--device", device, *flags]
        environment = {**os.environ, "AUTOKERNEL_CACHE": str(cache), "ANTHROPIC_API_KEY": "must-not-be-seen"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self.number = 0

    def ask(self, kind: str, timeout: float = 300, **fields: Any) -> dict[str, Any]:
        """The whole reply."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.number += 1
        self.process.stdin.write(json.dumps({"id": self.number, "type": kind, **fields}).encode() + b"\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        assert ready, f"the judge gave no answer to {kind} within {timeout} s"
        reply = json.loads(self.process.stdout.readline())
        assert reply["id"] == self.number
        return reply

    def check(self, path: Path | str, op: str, dtype: str = "fp32", **more: Any) -> dict[str, Any]:
        fields = {
            "op_file": None,
            "shapes": [],
            "quick": False,
            "large": False,
            "allow_tf32": False,
            "seed": None,
            **more,
        }
        reply = self.ask("check", path=str(path), op=op, dtype=dtype, **fields)
        assert reply["ok"], reply
        return reply["result"]

    def time(self, sides: dict[str, str], op: str, dtype: str = "fp32", rounds: int = 1, **more: Any) -> dict[str, Any]:
        """A side is a path, or the name of a builtin."""
        builtin = ("eager", "vendor", "compile")
        listed = [
            {"name": name, "kind": "builtin", "which": what}
            if what in builtin
            else {"name": name, "kind": "file", "path": str(what)}
            for name, what in sides.items()
        ]
        fields = {"op_file": None, "shapes": [], "allow_tf32": False, **more}
        reply = self.ask("time", sides=listed, op=op, dtype=dtype, rounds=rounds, **fields)
        assert reply["ok"], reply
        return reply["result"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
