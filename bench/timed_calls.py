"""Calls made, or recorded and replayed, for the judge's clock: the candidate's side of clock.py.

As in candidate.py, everything is bound here before a candidate is imported.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from inspect import getattr_static
from typing import Any

import arena
import torch
from output_contract import problem_with

perf_counter, memmove = time.perf_counter, ctypes.memmove
data_of = getattr_static(torch.Tensor, "data").__get__
as_strided, index_select, tensor_of, prod = torch.as_strided, torch.index_select, torch.tensor, math.prod
Tensor, copy_, index_copy_, unbind = torch.Tensor, torch.Tensor.copy_, torch.Tensor.index_copy_, torch.Tensor.unbind
synchronize, Event = torch.cuda.synchronize, torch.cuda.Event
record_event, elapsed_ms = Event.record, Event.elapsed_time
CUDAGraph, on_stream, empty_cache = torch.cuda.CUDAGraph, torch.cuda.stream, torch.cuda.empty_cache
replay_graph = CUDAGraph.replay


@dataclass
class Spikes:
    """Elements of every call's input that are other than in its pool while the call runs."""

    pool: torch.Tensor  # flat
    places: torch.Tensor  # int64 [calls, elements]

    def values(self) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        """Call by call, what lies there before and after, and what meanwhile."""
        before = index_select(self.pool, 0, self.places.view(-1)).view(self.places.shape)
        return unbind(before), unbind(arena.raised(before))


@dataclass
class Batch:
    """Calls to be timed, and where what they compute must lie when the clock stops."""

    fn: Callable[..., torch.Tensor]
    calls: list[list[torch.Tensor | None]]
    options: dict[str, Any]
    delivered: set[int]  # the calls whose outputs the judge gets; in an audit it gets all
    spikes: Spikes | None
    rows: Sequence[torch.Tensor]  # the judge's memory, a row an output
    audit: bool
    outs: list[torch.Tensor] = field(default_factory=list)  # delivered ones; in an audit the last

    def run(self) -> None:
        fn, options, rows, outs, spikes = self.fn, self.options, self.rows, list[torch.Tensor](), self.spikes
        if spikes:  # recorded, this is done at each replay, since other data lies in the pool by then
            pool, places, (before, meanwhile) = spikes.pool, unbind(spikes.places), spikes.values()
        for at, args in enumerate(self.calls):
            if spikes:
                index_copy_(pool, 0, places[at], meanwhile[at])
                out = fn(*args, **options)
                index_copy_(pool, 0, places[at], before[at])
            else:
                out = fn(*args, **options)
            if self.audit:
                _deliver(rows[at], out)
            elif at in self.delivered:
                outs.append(out)  # delivered last, so that a buffer shared between calls is overwritten by then
        for row, delivered in zip(rows, outs, strict=False):
            _deliver(row, delivered)
        self.outs = outs or [out]


class TimedCalls:
    """What a process keeps between the orders of a timing request."""

    def __init__(self, flat: torch.Tensor) -> None:
        self.flat = flat
        self.gpu = flat.device.type == "cuda"
        self.fn: Callable[..., Any] = lambda *_: None
        self.kept: dict[str, torch.Tensor] = {}
        self.plans: dict[str, dict[str, Any]] = {}
        self.empty = False  # the side that calibrates the clock: a kernel that takes no time
        self.nothing: dict[str, torch.Tensor] = {}
        self.recorded: tuple[Batch, Any] | None = None
        self.side = torch.cuda.Stream() if self.gpu else None  # where calls are recorded

    def plan(self, m: dict[str, Any]) -> dict[str, Any]:
        self.plans[m["name"]] = m
        if not self.gpu:  # a page that this process never read costs its first reader more than the read itself
            for part in (*(p["pool"] for p in m["inputs"] if p is not None), m["outputs"]):
                arena.view(self.flat, part).view(-1).view(torch.uint8)[:: mmap.PAGESIZE].sum()
        if self.empty:
            self.nothing[m["name"]] = torch.zeros_like(arena.view(self.flat, m["outputs"])[0])
        return {}

    def batch(self, m: dict[str, Any]) -> dict[str, Any]:
        """Calls made one by one while the clock runs; the order that starts it holds the secret."""
        return self._timed(self._prepare(m))

    def record(self, m: dict[str, Any]) -> dict[str, Any]:
        """The same calls, recorded in a graph for `replay`, so that a launch from Python costs the clock nothing."""
        # Where in memory the results lie makes a kernel faster or slower by per cents: every recording gets new places,
        # so that the median over a few tells of the kernel and not of its luck.
        self.recorded = None
        empty_cache()
        batch, graph = self._prepare(m), CUDAGraph()
        self._sync()
        try:
            with on_stream(self.side):
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    batch.run()
                finally:
                    graph.capture_end()
        except Exception:  # it waits for the device, or works where a graph cannot follow: that is its right
            return {"recorded": False}
        self.recorded = (batch, graph)
        return {"recorded": True}

    def replay(self, _m: dict[str, Any]) -> dict[str, Any]:
        assert self.recorded is not None
        batch, graph = self.recorded
        return self._timed(batch, lambda: replay_graph(graph))

    def _prepare(self, m: dict[str, Any]) -> Batch:
        """`count` calls, each on windows of the pools that only the secret tells."""
        plan, count, secret = self.plans[m["name"]], m["count"], m["secret"]
        pools, whole = plan["inputs"], [None if p is None else arena.view(self.flat, p["pool"]) for p in plan["inputs"]]
        offsets, kept_at = arena.schedule(secret, count, [p["starts"] for p in pools if p is not None], plan["keep"])
        calls = []
        for row in offsets:
            at, args = iter(row), []
            for pool, tensor in zip(pools, whole, strict=True):
                if tensor is None:
                    args.append(None)
                else:
                    base = tensor.storage_offset() + next(at) * pool["step"]
                    # with a version counter of its own: the pool's would tell which calls are spiked
                    args.append(data_of(as_strided(tensor, pool["shape"], pool["strides"], base)))
            calls.append(args)
        fn = self.fn
        if self.empty:
            fn = _least_work(self.nothing[m["name"]]) if m.get("reads") else _returns(self.nothing[m["name"]])
        audit = bool(m.get("audit"))
        rows = unbind(arena.view(self.flat, plan["outputs"]))
        return Batch(fn, calls, plan["options"], set(kept_at), self._spikes(plan, secret, calls), rows, audit)

    def _spikes(self, plan: dict[str, Any], secret: str, calls: list[list[torch.Tensor | None]]) -> Spikes | None:
        """Every call is spiked: the time between two calls, or a counter, would tell which are."""
        spiked = plan["spiked"]
        if spiked is None:
            return None
        pool = arena.view(self.flat, plan["inputs"][spiked]["pool"])
        starts = tensor_of(
            [w.storage_offset() - pool.storage_offset() for w in (c[spiked] for c in calls) if w is not None]
        )
        places = arena.spikes(secret, len(calls), prod(plan["inputs"][spiked]["shape"])) + starts.unsqueeze(1)
        return Spikes(pool, places.to(pool.device))

    def _timed(self, batch: Batch, replay: Callable[[], None] | None = None) -> dict[str, Any]:
        self._sync()
        began, events = perf_counter(), None
        if self.gpu:
            events = (Event(enable_timing=True), Event(enable_timing=True))
            record_event(events[0])
        (replay or batch.run)()
        if events:
            record_event(events[1])
        self._sync()
        seconds = elapsed_ms(*events) / 1e3 if events else perf_counter() - began
        for result in batch.outs:
            problem = problem_with(result, batch.rows[0], self.flat)
            if problem:
                return {"problem": problem}
        return {"seconds": seconds}

    def _sync(self) -> None:
        if self.gpu:
            synchronize()


def _deliver(row: torch.Tensor, out: torch.Tensor) -> None:
    """Into the judge's memory. On a CPU by this thread alone: a kernel's own threads may still be polling for work, and
    a copy that waits for its share of the processors would look like calls that are not made."""
    plain = type(out) is Tensor and out.device == row.device and out.dtype == row.dtype and out.shape == row.shape
    if row.is_cuda or not plain or not out.is_contiguous():
        copy_(row, out)
    else:
        memmove(row.data_ptr(), out.data_ptr(), row.nbytes)


def _returns(nothing: torch.Tensor) -> Callable[..., torch.Tensor]:
    return lambda *_inputs, **_options: nothing


def _least_work(nothing: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Reads every input and writes a new output, as every honest kernel must: what an audit costs it, all may cost."""

    def fn(*inputs: torch.Tensor | None, **_options: Any) -> torch.Tensor:
        for x in inputs:
            if x is not None:
                x.sum()
        return torch.full_like(nothing, 1.0)

    return fn
