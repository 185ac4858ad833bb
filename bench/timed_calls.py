"""Calls made, or recorded and replayed, for the judge's clock: the candidate's side of clock.py.

As in candidate.py, everything is bound here before a candidate is imported.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import arena
import torch
from output_contract import problem_with

perf_counter = time.perf_counter
as_strided, index_select = torch.as_strided, torch.index_select
synchronize, Event = torch.cuda.synchronize, torch.cuda.Event
CUDAGraph, on_stream, empty_cache = torch.cuda.CUDAGraph, torch.cuda.stream, torch.cuda.empty_cache


@dataclass
class Batch:
    """Calls to be timed, and what shows that they were made."""

    fn: Callable[..., torch.Tensor]
    calls: list[list[torch.Tensor | None]]
    options: dict[str, Any]
    kept_at: set[int]
    slot: torch.Tensor  # an output must look like it
    index: torch.Tensor  # int64: the elements that must come with the answer
    made: torch.Tensor  # [calls, elements]: those of every output, in an audit
    audit: bool
    outs: list[torch.Tensor] = field(default_factory=list)  # the kept ones; in an audit the last

    def run(self) -> None:
        fn, options, kept_at, outs = self.fn, self.options, self.kept_at, list[torch.Tensor]()
        if self.audit:
            for args, mark in zip(self.calls, self.made.unbind(), strict=True):
                out = fn(*args, **options)
                index_select(out.reshape(-1), 0, self.index, out=mark)
            outs.append(out)
        else:
            for at, args in enumerate(self.calls):
                out = fn(*args, **options)
                if at in kept_at:
                    outs.append(out)
        self.outs = outs


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
            for pool in (p["pool"] for p in m["inputs"] if p is not None):
                arena.view(self.flat, pool).view(torch.uint8)[:: mmap.PAGESIZE].sum()
        if self.empty:
            self.nothing[m["name"]] = torch.zeros_like(arena.view(self.flat, m["outputs"][0]))
        return {}

    def batch(self, m: dict[str, Any]) -> dict[str, Any]:
        """Calls made one by one while the clock runs; the order that starts it holds the secret."""
        return self._timed(self._prepare(m))

    def record(self, m: dict[str, Any]) -> dict[str, Any]:
        """The same calls, recorded in a graph for `replay`, so that a launch from Python costs the clock nothing."""
        # Where in memory the results lie makes a kernel faster or slower by per cents: every recording gets new places,
        # so that the median over a few tells of the kernel and not of its luck.
        self.recorded, self.kept = None, {}
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
        return self._timed(batch, graph.replay)

    def _prepare(self, m: dict[str, Any]) -> Batch:
        """`count` calls, each on windows of the pools that only the secret tells.

        An audit asks for elements of every call's output, so that skipped calls show.
        """
        plan, count = self.plans[m["name"]], m["count"]
        pools, whole = plan["inputs"], [None if p is None else arena.view(self.flat, p["pool"]) for p in plan["inputs"]]
        starts = [p["starts"] for p in pools if p is not None]
        offsets, kept_at, probes = arena.schedule(
            m["secret"], count, starts, plan["keep"], plan["probes"], plan["numel"]
        )
        calls = []
        for row in offsets:
            at, args = iter(row), []
            for pool, tensor in zip(pools, whole, strict=True):
                if tensor is None:
                    args.append(None)
                else:
                    base = tensor.storage_offset() + next(at) * pool["step"]
                    args.append(as_strided(tensor, pool["shape"], pool["strides"], base))
            calls.append(args)
        fn = self.fn
        if self.empty:
            nothing = self.nothing[m["name"]]
            fn = lambda *_inputs, **_options: nothing  # noqa: E731
        slot = arena.view(self.flat, plan["outputs"][0])
        index = torch.tensor(probes, dtype=torch.int64, device=self.flat.device)
        # made beforehand: small results left between large ones would keep the allocator from using those again
        made = torch.empty(count, len(probes), dtype=slot.dtype, device=slot.device)
        return Batch(fn, calls, plan["options"], set(kept_at), slot, index, made, bool(m.get("audit")))

    def _timed(self, batch: Batch, replay: Callable[[], None] | None = None) -> dict[str, Any]:
        self._sync()
        began, events = perf_counter(), None
        if self.gpu:
            events = (Event(enable_timing=True), Event(enable_timing=True))
            events[0].record()
        (replay or batch.run)()
        if events:
            events[1].record()
        self._sync()
        seconds = events[0].elapsed_time(events[1]) / 1e3 if events else perf_counter() - began
        for result in batch.outs:
            problem = problem_with(result, batch.slot, self.flat)
            if problem:
                return {"problem": problem}
        self.kept = {str(at): out for at, out in enumerate(batch.outs)}
        found = batch.made.reshape(-1)
        if not batch.audit and len(batch.index):
            found = torch.cat([out.reshape(-1)[batch.index] for out in batch.outs])
        return {"seconds": seconds, "receipt": found.cpu().view(torch.uint8).numpy().tobytes().hex()}

    def deliver(self, m: dict[str, Any]) -> dict[str, Any]:
        for at, buffer in enumerate(self.plans[m["name"]]["outputs"][: len(self.kept)]):
            arena.view(self.flat, buffer).copy_(self.kept[str(at)])
        self._sync()
        return {}

    def _sync(self) -> None:
        if self.gpu:
            synchronize()
