"""Puts a named range around what is replaceable in a model while it is profiled, and notes what the calls computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from attribute import MODULE, SITE, Owner
from classify import classify_module
from torch import Tensor, nn
from torch.profiler import record_function


class SiteRanges:
    """`with` it around forwards: ranges are made all the time, calls are noted between `start` and the end."""

    def __init__(self, model: nn.Module, sites: Sequence[Any]) -> None:
        self._model, self._sites = model, sites
        self._noting = False
        self._calls: dict[str, list[Owner]] = defaultdict(list)
        self._owners: dict[Hashable, Owner | None] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        with ExitStack() as stack:
            for site in self._sites:
                site.wrap(lambda original, site=site: self._ranged(site, original))
                stack.callback(site.undo)
            for path, module in self._model.named_modules():
                if _claims(module):
                    stack.enter_context(_module_range(path, module))
            yield

    def start(self) -> None:
        """From here on every call is noted: the profiler begins to record."""
        self._calls.clear()
        self._noting = True

    def calls(self) -> dict[str, list[Owner]]:
        """What the calls computed, by their range's name, in their order."""
        return dict(self._calls)

    def _ranged(self, site: Any, original: Callable) -> Callable:
        label = f"{SITE}{site.op}::{site.path}"

        def call(*args: Any, **kwargs: Any) -> Any:
            owner = self._owner(site, label, args, kwargs)
            if owner is None:
                return original(*args, **kwargs)  # not in the operation's form: counted as what it consists of
            if self._noting:
                self._calls[label].append(owner)
            with record_function(label):
                return original(*args, **kwargs)

        return call

    def _owner(self, site: Any, label: str, args: tuple, kwargs: dict) -> Owner | None:
        """Asked of the site once per kind of call, in the warm-up: answering may take copies, which would be timed."""
        key = (label, _signature(args), _signature(kwargs))
        if key not in self._owners:
            described = site.describe_call(*args, **kwargs)
            replaceable = described is not None and site.to_op_call(*args, **kwargs) is not None
            self._owners[key] = None if described is None else _owner_of(site, described, replaceable)
        return self._owners[key]


def _owner_of(site: Any, described: tuple, replaceable: bool) -> Owner:
    shape, options, dtype = described
    name, path = (site.op, site.path) if replaceable else (f"{site.op}, not replaceable", "")
    return Owner(site.op, name, tuple(shape), dtype, tuple(sorted(options.items())), site=path)


def _signature(value: Any) -> Hashable:
    """All that a call's shape, options and dtype can depend on."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype, value.device
    if isinstance(value, (list, tuple)):
        return tuple(_signature(v) for v in value)
    if isinstance(value, dict):
        return tuple((name, _signature(v)) for name, v in sorted(value.items()))
    return type(value), value if isinstance(value, Hashable) else None


def _claims(module: nn.Module) -> bool:
    """Only the model's own classes whose name says something: hooks in torch's would switch off its fast paths."""
    kind = type(module)
    return not kind.__module__.startswith("torch.") and classify_module(kind.__name__) is not None


@contextmanager
def _module_range(path: str, module: nn.Module) -> Iterator[None]:
    open_ranges: list[record_function] = []

    def enter(*_: Any) -> None:
        open_ranges.append(record_function(f"{MODULE}{path}::{type(module).__name__}"))
        open_ranges[-1].__enter__()

    def leave(*_: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    hooks = (module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
