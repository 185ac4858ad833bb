"""Whose time is it? Every nanosecond spent goes to one owner, once.

The owner is, looking from the outside in: the site's range, the first operator that computes one of our operations, a
kernel or module that claims one by its name, and else the outermost operator, under its own name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from classify import (
    OPERATIONS,
    Work,
    classify_kernel,
    classify_module,
    classify_op,
    dtype_of,
    first_shape,
    short_name,
)
from trace_events import Event, Node

SITE = "autokernel::"  # a range's name: autokernel::<op>::<path>
MODULE = "module::"  # module::<path>::<class>
PRODUCTS = ("aten::matmul", "aten::einsum", "aten::tensordot")  # call mm or bmm, and copy what these cannot read


@dataclass(frozen=True)
class Owner:
    """A row in the making: what has the same owner is one row."""

    op: str  # one of the operations, or 'other'
    name: str
    shape: tuple[int, ...] = ()
    dtype: str = "-"
    options: tuple[tuple[str, object], ...] = ()
    batch: int = 1
    site: str = ""  # the module path where it can be replaced, '' outside of sites


@dataclass
class Tally:
    ns: int = 0
    calls: set[int] = field(default_factory=set)  # which calls: ten kernels of one call are one call


def attribute(
    nodes: Sequence[Node], spent: Iterable[tuple[Node | None, str | None, int]], site_owners: dict[int, Owner]
) -> dict[Owner, Tally]:
    """The time and calls of each owner. `site_owners`: by id() of a site's range, what that call computed."""
    tallies: dict[Owner, Tally] = defaultdict(Tally)
    for nth, (node, kernel, ns) in enumerate(spent):
        path = node.path() if node else []
        owner, by = _own(path, kernel, site_owners)
        tallies[owner].ns += ns
        tallies[owner].calls.add(id(by) if by else -nth - 1)
    for node in nodes:  # a call that cost the device nothing is a call all the same
        if id(node) in site_owners and not any(id(n) in site_owners for n in node.path()[:-1]):
            tallies[site_owners[id(node)]].calls.add(id(node))
    return dict(tallies)


def ranges_of_sites(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """The ranges of each site by their name, in the order in which they were entered."""
    found: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        if node.event.kind == "range" and node.event.name.startswith(SITE):
            found[node.event.name].append(node)
    return dict(found)


def _own(path: list[Node], kernel: str | None, site_owners: dict[int, Owner]) -> tuple[Owner, Node | None]:
    for node in path:
        if id(node) in site_owners:
            return site_owners[id(node)], node
    ops = [n for n in path if n.event.kind == "op"]
    for node in ops:
        work = _work(node.event)
        if work:
            return _computed(work, node.event), node
    if not ops:
        return _kernel_alone(kernel or "?", _module(path)), None
    outer, inner = ops[0].event, ops[-1].event
    if outer.name in PRODUCTS and inner.name == "aten::copy_":  # of a matrix: its cost is not the product's
        name = f"{inner.name} in {outer.name}"
        return Owner("other", name, first_shape(inner.shapes), dtype_of(inner.dtypes)), ops[-1]
    op = None if outer.name.startswith("aten::") else _claimed([outer.name, kernel], _module(path))
    return Owner(op or "other", outer.name, () if op else first_shape(outer.shapes), dtype_of(outer.dtypes)), ops[0]


def _kernel_alone(kernel: str, module: str) -> Owner:
    """A kernel that no operator launched: a Triton kernel or a library's, under its own name."""
    kind, name = classify_kernel(kernel), short_name(kernel)
    op = _claimed([kernel], module)
    if op:
        return Owner(op, name)
    return Owner("other", name if kind in ("other", name) else f"{kind}: {name}")


def _claimed(names: Sequence[str | None], module: str) -> str | None:
    """The operation that a name promises where no ATen operator says what is computed."""
    kinds = [classify_kernel(name) for name in names if name]
    for kind in kinds:
        if kind in OPERATIONS:
            return kind
    # A copy or fill is not made more by the module it runs in.
    return classify_module(module) if all(kind == "other" for kind in kinds) else None


def _module(path: Sequence[Node]) -> str:
    names = [n.event.name for n in path if n.event.kind == "range" and n.event.name.startswith(MODULE)]
    return names[-1].split("::")[-1] if names else ""


def _computed(work: Work, event: Event) -> Owner:
    name = event.name if work.batch == 1 else f"{event.name} x{work.batch}"
    options = tuple(sorted(work.options.items()))
    return Owner(work.op, name, work.shape, dtype_of(event.dtypes), options, work.batch)


def _work(event: Event) -> Work | None:
    return _classified(event.name, _frozen(event.shapes), _frozen(event.values))


@lru_cache(maxsize=65536)  # the same few hundred calls come back in every layer and iteration
def _classified(name: str, shapes: tuple, values: tuple) -> Work | None:
    return classify_op(name, shapes, values)


def _frozen(value: Iterable[object]) -> tuple:
    return tuple(_frozen(v) if isinstance(v, (list, tuple)) else v for v in value)
