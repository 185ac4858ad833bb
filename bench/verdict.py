"""What an evaluation came to: a line a stage, the first thing that is wrong, the largest errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tolerance import Outcome
from worker import WorkerFailed

LARGE = "large"  # the last, on request: large.py
STAGES = ("build", "smoke", "shapes", "stability", "determinism", "edges", LARGE)

Progress = Callable[[dict[str, Any]], None]  # told each stage as it ends


class Wrong(Exception):
    """The candidate answered, and the answer is wrong."""


@dataclass
class Verdict:
    kind: str = "pass"
    detail: str = ""
    stages: list[dict[str, Any]] = field(default_factory=list)
    worst: float | None = None
    max_abs_err: float | None = None  # on usual inputs of the dtype that is asked for
    build_s: float = 0.0

    def fail(self, stage: str, error: Wrong | WorkerFailed) -> str:
        """What a stage found decides. Returns the words for it."""
        wrong = "invalid" if stage == "build" else "wrong"
        self.kind = error.kind if isinstance(error, WorkerFailed) else wrong
        self.detail = f"{stage}: {error}"
        return str(error)

    def measure(self, outcome: Outcome, usual: bool = True) -> None:
        self.worst = max(self.worst or 0.0, min(outcome.worst, 1e30))
        if usual:
            self.max_abs_err = max(self.max_abs_err or 0.0, min(outcome.max_abs_err, 1e30))

    def note(self, stage: str, status: str, cases: int = 0, seconds: float = 0.0, detail: str = "") -> dict[str, Any]:
        line = {"name": stage, "status": status, "cases": cases, "seconds": round(seconds, 4), "detail": detail}
        self.stages.append(line)
        return line
