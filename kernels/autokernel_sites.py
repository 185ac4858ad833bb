"""Finds where a model does one of the operations: modules and functions, known by what they compute, not by name.

An outer site hides those inside it (a gated MLP its three linear layers), so that nothing is found twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import autokernel_calls as calls
import torch
from autokernel_calls import Call, Match
from autokernel_kinds import (
    arity,
    is_hooked,
    is_plain,
    known_function,
    known_module,
    match_function,
    match_module,
    may_have,
    signature,
)
from autokernel_probe import recognise_function, recognise_module
from autokernel_rebind import InnerSlot, Rebinder, Slot, is_helper, is_pure, methods_of, references
from autokernel_trial import Found
from torch import nn

Make = Callable[[Callable[..., Any]], Callable[..., Any]]

# These compute with their children's weights without calling the children.
CLOSED = (nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer, torch.jit.ScriptModule)


@dataclass
class Site:
    """One callable of a model that does an operation. `path` is its module's, then ":function" if it is one inside."""

    op: str
    path: str
    slot: Slot | InnerSlot
    match: Match
    calm: Callable[[], bool] = lambda: True  # whether the module is as it was when it was recognised
    fits: Callable[[tuple[int, ...]], bool] = lambda shape: True  # whether calls may have this shape, by the weights
    current: Callable[..., Any] | None = field(default=None, repr=False)

    def wrap(self, make: Make) -> None:
        """Replaces the callable by make(callable). May be done again; undo() takes all back."""
        self.current = make(self.current or self.slot.original)
        self.slot.put(self.current)

    def undo(self) -> None:
        self.current = None
        self.slot.put(None)

    def call(self, *args: Any, **kwargs: Any) -> Call | None:
        """The operation's call for a call of the original, or None where the operation is not what it asks for."""
        try:
            call = self.match(*args, **kwargs) if self.calm() else None
        except (TypeError, AttributeError, IndexError):
            return None  # not the arguments that the match takes; the original will say what it thinks of them
        return call if call is not None and calls.sound(call) else None

    def describe_call(self, *args: Any, **kwargs: Any) -> tuple[tuple[int, ...], dict[str, object], str] | None:
        call = self.call(*args, **kwargs)
        return None if call is None else (call.shape, call.options, call.dtype)

    def to_op_call(self, *args: Any, **kwargs: Any) -> Call | None:
        """As `call`, but None when a gradient is wanted: kernels have no backward."""
        call = self.call(*args, **kwargs)
        return None if call is None or calls.wants_grad(call) or calls.in_autocast(call) else call


def find_sites(model: nn.Module, ops: Collection[str] | None = None) -> list[Site]:
    """All sites, or those of some operations: what an outer one hides stays hidden either way."""
    search = _Search(model)
    devices = [search.device] if search.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        sites = list(search.walk(model, ""))
    return [site for site in sites if ops is None or site.op in ops]


class _Search:
    """One pass over a model. Every kind of module, and every function, is tried out once."""

    def __init__(self, model: nn.Module) -> None:
        floats = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
        self.dtype = floats[0].dtype if floats else torch.float32
        self.device = floats[0].device if floats else torch.device("cpu")
        self.seen: set[int] = set()
        self.modules: dict[object, Found | None] = {}
        self.functions: dict[FunctionType, Found | None] = {}

    def walk(self, module: nn.Module, path: str) -> Iterator[Site]:
        if id(module) in self.seen or isinstance(module, CLOSED):
            return
        self.seen.add(id(module))
        found = self._module(module)
        if found is not None:
            was = module.training
            match = match_module(found, module)
            yield Site(
                found.op,
                path or "(model)",
                Slot(module, "forward"),
                match,
                calm=lambda: module.training == was,
                fits=lambda shape: may_have(shape, found, module),
            )
            return
        if is_plain(module):
            yield from self._inside(module, path or "(model)")
        for name, child in module.named_children():
            yield from self.walk(child, f"{path}.{name}" if path else name)

    def _module(self, module: nn.Module) -> Found | None:
        if not is_plain(module) or any(is_hooked(m) for m in module.modules()):
            return None
        known = known_module(module)
        if known is not None or type(module).__module__.startswith("torch."):
            return known
        own = [m for m in module.modules() if not type(m).__module__.startswith("torch.")]
        forwards = [type(m).forward for m in own]
        if len(own) > 4 or not all(isinstance(f, FunctionType) and is_pure(f) for f in forwards):
            return None
        if any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p and m.training for m in module.modules()):
            return None
        key = signature(module)
        if key not in self.modules:
            self.modules[key] = self._try(module, forwards[0])
            if signature(module) != key:  # calling it left traces, so it is more than its output
                self.modules[key] = None
        return self.modules[key]

    def _try(self, module: nn.Module, forward: FunctionType) -> Found | None:
        required, accepted = arity(forward)
        if required == 2:  # self and one input
            return recognise_module(module, self.dtype, self.device)
        if not any(True for _ in module.parameters()) and not any(True for _ in module.buffers()):
            return recognise_function(module.forward, required - 1, accepted - 1)
        return None

    def _inside(self, module: nn.Module, path: str) -> Iterator[Site]:
        rebinder = Rebinder(module, methods_of(module))
        for name, method in rebinder.methods.items():
            prefix = "" if name == "forward" else f"{name}."
            yield from self._calls(rebinder, method, f"{path}:{prefix}", 0)

    def _calls(self, rebinder: Rebinder, function: FunctionType, prefix: str, depth: int) -> Iterator[Site]:
        done = set()
        for chain, value in references(function):
            known = known_function(value, function)
            found = None if known or not is_helper(value, function) else self._function(value)
            if chain in done or not (known or found or is_helper(value, function)):
                continue
            done.add(chain)
            name = f"{prefix}{getattr(value, '__name__', chain[-1])}"
            if known:
                yield Site(known[0], name, InnerSlot(rebinder, (function, chain), value), known[1])
            elif found:
                slot = InnerSlot(rebinder, (function, chain), value)
                yield Site(found.op, name, slot, match_function(found, value))
            elif depth < 3:
                yield from self._calls(rebinder, value, f"{name}.", depth + 1)

    def _function(self, function: FunctionType) -> Found | None:
        if function not in self.functions:
            required, accepted = arity(function)
            tried = is_pure(function) and 0 < required <= 4
            self.functions[function] = recognise_function(function, required, accepted) if tried else None
        return self.functions[function]
