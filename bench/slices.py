"""An operation with more rows than would fit in float64: which to judge, what they take, what they may come to."""

from __future__ import annotations

import math
import random
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from correctness import limits_for
from tolerance import Tolerance, label_of
from torch.utils._python_dispatch import TorchDispatchMode

from op import Case, Inputs, Op, Rows, Shape

LEAST_ROWS = 2  # on either side of a place
SPAN_PART = 1 << 15  # and this part of all elements, where rows are short
RANDOM_PLACES = 8
AT_ONCE = {True: 1 << 25, False: 1 << 23}  # elements drawn or judged together, on a GPU and on a CPU
DRAWN_BYTES = 40  # an element's, while make_inputs works in fp32
Span = tuple[int, int]  # rows, from the first to one past the last


@dataclass(frozen=True)
class Like:
    """A tensor that is not there yet."""

    shape: Shape
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.numel * self.dtype.itemsize

    def meta(self) -> torch.Tensor:
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


@dataclass(frozen=True)
class Grown:
    """A case with as many rows as bring its largest tensor over `elements`."""

    op: Op
    rows: Rows
    case: Case
    dtype: torch.dtype
    elements: int
    span: int  # rows on either side of a place
    at_once: int  # rows drawn or judged together
    inputs: tuple[Like | None, ...]
    output: Like

    @property
    def count(self) -> int:
        return self.case.shape[0]

    @property
    def label(self) -> str:
        return label_of(self.op, self.case, self.dtype)

    def with_rows(self) -> list[Like]:
        """The tensors that grow."""
        grown = [like for at, like in enumerate(self.inputs) if like and at in self.rows.arguments]
        return grown if self.rows.mean else [*grown, self.output]

    def case_of(self, count: int) -> Case:
        return Case((count, *self.case.shape[1:]), self.case.options)

    def part(self, inputs: Inputs, first: int, last: int) -> Inputs:
        """The inputs as they are for some rows alone."""
        rows = self.rows.arguments
        return tuple(t[first:last] if t is not None and at in rows else t for at, t in enumerate(inputs))


def grow(op: Op, rows: Rows, case: Case, dtype: torch.dtype, device: torch.device, elements: int) -> Grown:
    """Two rows are drawn to see what a row is."""
    two = Case((2, *case.shape[1:]), case.options)
    drawn = op.make_inputs(two.shape, dtype, torch.Generator(device).manual_seed(0), "normal")
    out = op.eager(*drawn, **case.options)
    growing = [drawn[at] for at in rows.arguments] + ([] if rows.mean else [out])
    a_row = max(t.numel() // 2 for t in growing if t is not None)
    span = max(LEAST_ROWS, elements // SPAN_PART // a_row)
    count = elements // a_row + span

    def like(t: torch.Tensor | None, grows: bool) -> Like | None:
        return None if t is None else Like((count, *t.shape[1:]) if grows else tuple(t.shape), t.dtype)

    inputs = tuple(like(t, at in rows.arguments) for at, t in enumerate(drawn))
    output = like(out, not rows.mean)
    assert output is not None
    whole = Case((count, *case.shape[1:]), case.options)
    at_once = max(1, AT_ONCE[device.type == "cuda"] // a_row)
    return Grown(op, rows, whole, dtype, elements, span, at_once, inputs, output)


def boundaries(grown: Grown) -> list[int]:
    """The rows in which a tensor's offset passes a multiple of `elements`, counted in bytes; so in elements as well."""
    found = set()
    for like in grown.with_rows():
        row = like.bytes // grown.count
        found |= {at // row for at in range(grown.elements, like.bytes, grown.elements)}
    return sorted(found)


def places(grown: Grown, rng: random.Random) -> list[Span]:
    """The rows to be judged: the first and the last, those around each boundary, and some that nobody knows."""
    middles = [0, grown.count, *boundaries(grown), *(rng.randrange(grown.count) for _ in range(RANDOM_PLACES))]
    spans: list[Span] = []
    for middle in sorted(middles):
        first, last = max(0, middle - grown.span), min(grown.count, middle + grown.span)
        if spans and first <= spans[-1][1]:
            spans[-1] = (spans[-1][0], last)
        else:
            spans.append((first, last))
    return [piece for first, last in spans for piece in pieces(first, last, grown.at_once)]


def weighed(grown: Grown) -> list[Span]:
    """The rows that a mean must show: those from each boundary on, and the last."""
    starts = {*boundaries(grown), grown.count - grown.span}
    return [(first, min(grown.count, first + grown.span)) for first in sorted(starts)]


def pieces(first: int, last: int, size: int) -> Iterator[Span]:
    return ((at, min(last, at + size)) for at in range(first, last, size))


def limit_of(grown: Grown, inputs: Inputs, first: int, last: int, allow_tf32: bool) -> Tolerance:
    """What these rows of the output are compared with."""
    op, case, part = grown.op, grown.case_of(last - first), grown.part(inputs, first, last)
    eager = op.eager(*part, **case.options)
    return replace(limits_for(op, case, part, eager, grown.dtype, allow_tf32), label=grown.label, first=first)


def limit_of_mean(grown: Grown, inputs: Inputs, allow_tf32: bool) -> Tolerance:
    """Of all rows, some at a time. Errors of parts are added up as if they all went the same way: an upper bound."""
    parts: list[tuple[float, Tolerance]] = []
    for first, last in pieces(0, grown.count, grown.at_once):
        part = grown.part(inputs, first, last)
        found = limits_for(grown.op, grown.case, part, None, grown.dtype, allow_tf32)
        parts.append(((last - first) / grown.count, found))
    reference, limit = (sum(share * getattr(t, name) for share, t in parts) for name in ("reference", "limit"))
    norm = sum(share * t.norm_limit for share, t in parts)
    assert isinstance(reference, torch.Tensor) and isinstance(limit, torch.Tensor)
    return Tolerance(grown.label, reference, limit, norm, None, grown.dtype)


def judge_bytes(grown: Grown) -> int:
    """Memory that the judge takes beside inputs and output: drawing, or judging, as many rows as it does at once."""
    count = grown.at_once if grown.rows.mean else min(grown.at_once, 2 * grown.span)
    drawing = 0.0
    for at, like in enumerate(grown.inputs):
        part = grown.at_once / grown.count if at in grown.rows.arguments else 1.0
        drawing += 0.0 if like is None else DRAWN_BYTES * part * like.numel
    judging = _Peak()
    with judging:
        whole = tuple(None if like is None else like.meta() for like in grown.inputs)
        part, options = grown.part(whole, 0, count), grown.case.options
        wide = [t.double() if t is not None and t.is_floating_point() else t for t in part]
        results: list[Any] = [grown.op.eager(*part, **options), grown.op.reference(*wide, **options)]
        results += [f(*wide, **options) for f in (grown.op.magnitude, grown.op.roundings) if f is not None]
    return max(int(drawing), judging.bytes - sum(like.bytes for like in grown.inputs if like))


class _Peak(TorchDispatchMode):
    """The most bytes that tensors made under it took at one time; views count as copies, which is on the safe side."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.now = 0, 0

    def __torch_dispatch__(self, func: Any, _types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            size = out.numel() * out.itemsize
            self.now += size
            self.bytes = max(self.bytes, self.now)
            weakref.finalize(out, self._gone, size)
        return out

    def _gone(self, size: int) -> None:
        self.now -= size
