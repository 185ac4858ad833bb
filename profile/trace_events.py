"""A profiler's trace as plain events, who called whom in it, and where the time was spent."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch._C._autograd import DeviceType


@dataclass(frozen=True)
class Event:
    """One line of a trace, whatever recorded it. Times in ns."""

    kind: str  # 'op', 'range', 'launch' (a call into the GPU's runtime) or 'device' (a kernel, a copy, a fill)
    name: str
    start: int
    end: int
    thread: int = 0
    id: int = 0  # an op's own; a launch shares its id with the device event it started
    link: int = 0  # of launches and device events: the op they belong to, 0 when there is none
    shapes: Sequence[Sequence[int]] = ()
    dtypes: Sequence[str] = ()
    values: Sequence[object] = ()  # plain arguments; None where a tensor stands


@dataclass(eq=False)
class Node:
    """An operator or a range, and where it was called from."""

    event: Event
    parent: Node | None
    inner: int = 0  # ns spent in what it called

    @property
    def own_ns(self) -> int:
        return max(0, self.event.end - self.event.start - self.inner)

    def path(self) -> list[Node]:
        """From the outermost caller to this node."""
        inward: list[Node] = []
        node: Node | None = self
        while node:
            inward.append(node)
            node = node.parent
        return inward[::-1]


_RUNTIME = re.compile(r"(cuda|cu|hip)[A-Z]\w*")  # cudaLaunchKernel, cuLaunchKernelEx, hipModuleLaunchKernel


def read_kineto(raw: Iterable[Any]) -> list[Event]:
    """The events of torch.profiler's own record; its `events()` costs minutes on a large model for the same content."""
    events = []
    for e in raw:
        kind = _kind(e)
        if kind is None or e.is_async():
            continue
        described = (e.shapes(), e.dtypes(), e.concrete_inputs()) if kind == "op" else ((), (), ())
        start = e.start_ns()
        thread, link = e.start_thread_id(), e.linked_correlation_id()
        events.append(
            Event(kind, e.name(), start, start + e.duration_ns(), thread, e.correlation_id(), link, *described)
        )
    return events


def _kind(e: Any) -> str | None:
    """What an event is; torch 2.11 does not say it outright. None: the profiler's own, or what would count twice."""
    if e.device_type() != DeviceType.CPU:
        return None if e.is_user_annotation() else "device"  # a range appears once more in the GPU's own row
    if e.is_user_annotation():
        return "range"
    if _RUNTIME.fullmatch(e.name()):
        return "launch"
    return "op" if "::" in e.name() else None  # [memory], Activity Buffer Request


def nest(events: Iterable[Event]) -> list[Node]:
    """The operators and ranges of each thread as trees: an event's parent is the innermost that encloses it in time."""
    nodes: list[Node] = []
    open_on: dict[int, list[Node]] = defaultdict(list)
    called = (e for e in events if e.kind in ("op", "range"))
    for event in sorted(called, key=lambda e: (e.start, -e.end, e.id)):
        stack = open_on[event.thread]
        while stack and stack[-1].event.end < event.end:
            stack.pop()
        node = Node(event, stack[-1] if stack else None)
        if node.parent:
            node.parent.inner += event.end - event.start
        stack.append(node)
        nodes.append(node)
    return nodes


def spent_on_cpu(nodes: Iterable[Node]) -> Iterator[tuple[Node, None, int]]:
    """(operator, no kernel, ns of its own). What ranges and Python take between operators is no operator's."""
    return ((n, None, n.own_ns) for n in nodes if n.event.kind == "op")


def spent_on_gpu(events: Sequence[Event], nodes: Sequence[Node]) -> Iterator[tuple[Node | None, str, int]]:
    """(what launched it, kernel, ns) for each kernel, copy and fill."""
    ops = {n.event.id: n for n in nodes if n.event.kind == "op"}
    launches = {e.id: e for e in events if e.kind == "launch"}
    enclosing = _Enclosing(nodes)
    for event in events:
        if event.kind != "device":
            continue
        launch = launches.get(event.id)
        node = ops.get(event.link) or (ops.get(launch.link) or enclosing.at(launch.start) if launch else None)
        yield node, event.name, event.end - event.start


class _Enclosing:
    """What was running at a time, for kernels launched without an operator, as Triton does. The GPU runtime's
    thread ids are not the profiler's, so among threads the latest start decides."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        threads: dict[int, list[Node]] = defaultdict(list)
        for node in nodes:
            threads[node.event.thread].append(node)
        self._threads = [([n.event.start for n in each], each) for each in threads.values()]

    def at(self, time: int) -> Node | None:
        found = [node for starts, nodes in self._threads if (node := self._on(starts, nodes, time))]
        return max(found, key=lambda n: n.event.start, default=None)

    @staticmethod
    def _on(starts: list[int], nodes: list[Node], time: int) -> Node | None:
        at = bisect_right(starts, time) - 1
        node = nodes[at] if at >= 0 else None
        while node and node.event.end < time:
            node = node.parent
        return node
