"""All operations the judge knows: those of bench/ops/ by name, and a user's own from one file."""

from __future__ import annotations

import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent
for folder in (BENCH.parent / "models", BENCH):  # the rows import op_costs and op by their bare names
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from op_file import OpFileError, import_file, load_op_file  # noqa: E402

from op import Op  # noqa: E402

__all__ = ["OpFileError", "load_op_file", "load_ops"]


def load_ops() -> dict[str, Op]:
    """Every operation of bench/ops/, by name, in alphabetical order."""
    ops: dict[str, Op] = {}
    for path in sorted((BENCH / "ops").glob("*.py")):
        op = import_file(path, f"ops_{path.stem}").OP
        if op.name != path.stem:
            raise ValueError(f"{path.name} defines the operation '{op.name}': name the file after it")
        ops[op.name] = op
    return ops
