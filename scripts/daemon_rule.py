"""What the daemon would decide about pairs that were measured without it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

DECIDE = Path(__file__).with_name("decide.mjs")


class DaemonRule:
    """decide.mjs in a process of its own, from the first question on."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def decide(self, rounds: list[dict[str, Any]]) -> dict[str, Any]:
        if self.process is None:
            command = ["node", str(DECIDE)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(rounds) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        if self.process:
            self.process.communicate()
