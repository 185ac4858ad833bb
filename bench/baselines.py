"""The sides that come with an operation: eager, vendor and torch.compile, run in the same harness as a candidate."""

from __future__ import annotations

import functools
from collections.abc import Callable

import op_table
import torch

from op import Op


def find_op(name: str, op_file: str | None) -> Op:
    """The operation of that name, from bench/ops/ or from the user's own file."""
    if op_file:
        return op_table.load_op_file(op_file)
    if name not in _known():
        raise ValueError(f"expected one of the operations {', '.join(_known())}, got '{name}'")
    return _known()[name]


@functools.cache
def _known() -> dict[str, Op]:
    return op_table.load_ops()


def build(which: str, op_name: str, op_file: str | None, gpu: bool) -> Callable[..., torch.Tensor]:
    op = find_op(op_name, op_file)
    if which == "eager":
        return op.eager
    if which == "vendor":
        if op.vendor is None:
            raise ValueError(f"{op.name} has no vendor call besides eager")
        return op.vendor
    if gpu:
        return torch.compile(op.eager, mode="max-autotune-no-cudagraphs", dynamic=False)
    return torch.compile(op.eager, dynamic=False)
