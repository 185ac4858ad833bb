"""Calls made, or recorded and replayed, for the judge's clock: the candidate's side of clock.py.

As in candidate.py, everything is bound here before a candidate is imported.
"""

from __future__ import annotations

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

perf_counter = time.perf_counter
data_of = getattr_static(torch.Tensor, "data").__get__
as_strided, index_select, tensor_of, prod = torch.as_strided, torch.index_select, torch.tensor, math.prod
copy_, index_copy_, unbind = torch.Tensor.copy_, torch.Tensor.index_copy_, torch.Tensor.unbind
synchronize, Event = torch.cuda.synchronize, torch.cuda.Event
record_event, elapsed_ms = Event.record, Event.elapsed_time
CUDAGraph, on_stream, empty_cache = torch.cuda.CUDAGraph, torch.cuda.stream, torch.cuda.empty_cache
replay_graph = CUDAGraph.replay


@dataclass
class Spikes:
    """Elements of one call's input that are other than in its pool while the call runs."""

    pool: torch.Tensor  # flat
    places: torch.Tensor
    values: tuple[torch.Tensor, torch.Tensor] | None  # before and meanwhile, where the pool stays as it is until then


@dataclass
class Batch:
    """Calls to be timed, and where what they compute must lie when the clock stops."""

    fn: Callable[..., torch.Tensor]
    calls: list[list[torch.Tensor | None]]
    options: dict[str, Any]
    delivered: set[int]  # the calls whose outputs the judge gets: a few, in an audit all
    spikes: dict[int, Spikes]
    rows: Sequence[torch.Tensor]  # the judge's memory, a row an output
    audit: bool
    outs: list[torch.Tensor] = field(default_factory=list)  # delivered ones; in an audit the last

    def run(self) -> None:
        fn, options, rows, outs = self.fn, self.options, self.rows, list[torch.Tensor]()
        for at, args in enumerate(self.calls):
            spikes = self.spikes.get(at)
            if spikes is None:
                out = fn(*args, **options)
            else:
                before, meanwhile = spikes.values or _values(spikes.pool, spikes.places)
                index_copy_(spikes.pool, 0, spikes.places, meanwhile)
                out = fn(*args, **options)
                index_copy_(spikes.pool, 0, spikes.places, before)
            if self.audit:
                copy_(rows[at], out)
            elif at in self.delivered:
                outs.append(out)  # delivered last, so that a buffer shared between calls is overwritten by then
        for row, delivered in zip(rows, outs, strict=False):
            copy_(row, delivered)
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
        delivered = set(range(count) if audit else kept_at)
        spikes = self._spikes(plan, secret, calls, delivered)
        return Batch(fn, calls, plan["options"], delivered, spikes, rows, audit)

    def _spikes(
        self, plan: dict[str, Any], secret: str, calls: list[list[torch.Tensor | None]], delivered: set[int]
    ) -> dict[int, Spikes]:
        """On a CPU every call is spiked: the time between two calls would tell which are. On a GPU only those that are
        delivered: its pools are rolled after recording, so that what lies there is gathered while the clock runs."""
        spiked = plan["spiked"]
        if spiked is None:
            return {}
        pool = arena.view(self.flat, plan["inputs"][spiked]["pool"])
        windows = [args[spiked] for args in calls]
        starts = tensor_of([w.storage_offset() - pool.storage_offset() for w in windows if w is not None])
        numel = prod(plan["inputs"][spiked]["shape"])
        places = (arena.spikes(secret, len(calls), numel) + starts.unsqueeze(1)).to(pool.device)
        if self.gpu:
            return {at: Spikes(pool, places[at], None) for at in delivered}
        values = [unbind(part.view(places.shape)) for part in _values(pool, places.view(-1))]
        return {
            at: Spikes(pool, *rest)
            for at, rest in enumerate(zip(unbind(places), zip(*values, strict=True), strict=True))
        }

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


def _values(pool: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What lies there, and what does while the call runs."""
    before = index_select(pool, 0, places)
    return before, arena.raised(before)


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
