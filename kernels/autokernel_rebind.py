"""Replaces a function that a module's methods call, for that one module: its methods are copied to read other globals.

Nothing shared is patched: another module of the same class, and everybody else's torch, stay as they are.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

Chain = tuple[str, ...]  # ("F", "softmax"): the name of a global or a closure's cell, and the attributes read from it
Place = tuple[FunctionType, Chain]  # the function in whose code the chain stands

# What makes a function more than its value: calling it once more, or not at all, would be noticed.
EFFECTS = {"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR"}
EFFECTFUL = {"print", "open", "input", "exec", "eval", "setattr", "delattr"}
DEPTH = 4  # of helpers that call helpers


class Slot:
    """A method of one module, `forward` above all, as something that can be exchanged."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self.name = module, name
        self.original = getattr(module, name)

    def put(self, replacement: Callable[..., Any] | None) -> None:
        if replacement is None:
            vars(self.module).pop(self.name, None)  # the class's own shows again
        else:
            vars(self.module)[self.name] = replacement


class Rebinder:
    """All replacements inside one module's methods; they come and go in any order."""

    def __init__(self, module: nn.Module, methods: dict[str, FunctionType]) -> None:
        self.module, self.methods = module, methods
        self.active: dict[Place, Callable[..., Any]] = {}

    def refresh(self) -> None:
        for name, function in self.methods.items():
            copy = self._copy(function, DEPTH)
            if copy is function:
                vars(self.module).pop(name, None)
            else:
                vars(self.module)[name] = MethodType(copy, self.module)

    def _copy(self, function: FunctionType, depth: int) -> FunctionType:
        """The function itself when nothing in it or below it is replaced."""
        swaps: dict[Chain, Any] = {}
        for chain, value in references(function):
            if (function, chain) in self.active:
                swaps[chain] = self.active[function, chain]
            elif depth and is_helper(value, function) and (copy := self._copy(value, depth - 1)) is not value:
                swaps[chain] = copy
        return overlay(function, swaps) if swaps else function


class InnerSlot:
    """A function called inside a module's methods."""

    def __init__(self, rebinder: Rebinder, place: Place, original: Callable[..., Any]) -> None:
        self.rebinder, self.place, self.original = rebinder, place, original

    def put(self, replacement: Callable[..., Any] | None) -> None:
        if replacement is None:
            self.rebinder.active.pop(self.place, None)
        else:
            self.rebinder.active[self.place] = replacement
        self.rebinder.refresh()


class LiveGlobals(dict[str, Any]):
    """A module's globals with some exchanged; the others are looked up when read, for somebody may set them later."""

    def __init__(self, origin: dict[str, Any], exchanged: dict[str, Any]) -> None:
        super().__init__(exchanged, __builtins__=origin["__builtins__"])  # not __name__: torch.compile would read there
        self.origin = origin

    def __missing__(self, name: str) -> Any:
        return self.origin[name]


def overlay(function: FunctionType, swaps: dict[Chain, Any]) -> FunctionType:
    """A copy of the function that finds other values where the chains lead."""
    roots: dict[str, dict[Chain, Any]] = {}
    for chain, value in swaps.items():
        roots.setdefault(chain[0], {})[chain[1:]] = value
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    values = {
        name: _exchange(cells[name].cell_contents if name in cells else function.__globals__[name], inner)
        for name, inner in roots.items()
    }
    scope = LiveGlobals(function.__globals__, {k: v for k, v in values.items() if k not in cells})
    closure = tuple(CellType(values[name]) if name in values else cell for name, cell in cells.items())
    copy = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, closure)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    copy.__dict__.update(function.__dict__)
    return copy


def _exchange(value: Any, swaps: dict[Chain, Any]) -> Any:
    """The value, or a view of it (it is a module then) with some attributes exchanged."""
    if () in swaps:
        return swaps[()]
    view = ModuleType(getattr(value, "__name__", "view"))
    heads: dict[str, dict[Chain, Any]] = {}
    for chain, swap in swaps.items():
        heads.setdefault(chain[0], {})[chain[1:]] = swap
    for name, inner in heads.items():
        setattr(view, name, _exchange(getattr(value, name), inner))
    vars(view)["__getattr__"] = lambda name: getattr(value, name)
    return view


def references(function: FunctionType) -> Iterator[tuple[Chain, Any]]:
    """What the function's code reads from globals and closure, and what stands there now."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    for kind, chain in _chains(function.__code__):
        if kind == "cell" and chain[0] in cells:
            try:
                value = cells[chain[0]].cell_contents
            except ValueError:
                continue  # an empty cell
        elif kind == "global" and chain[0] in function.__globals__:
            value = function.__globals__[chain[0]]
        else:
            continue
        length = 1
        while length < len(chain) and isinstance(value, ModuleType) and hasattr(value, chain[length]):
            value = getattr(value, chain[length])
            length += 1
        yield chain[:length], value


def methods_of(module: nn.Module) -> dict[str, FunctionType]:
    """`forward` and the methods it reaches through self: those that are plain functions of the class."""
    found: dict[str, FunctionType] = {}
    waiting = ["forward"]
    while waiting:
        name = waiting.pop()
        function = getattr(type(module), name, None)
        if name in found or name in vars(module) or not isinstance(function, FunctionType):
            continue
        if function.__code__.co_argcount and not is_library(function):
            found[name] = function
            waiting += [chain[1] for kind, chain in _chains(function.__code__) if kind == "self" and len(chain) > 1]
    return found


def names_in(function: FunctionType) -> set[str]:
    """Keywords and other strings that the code holds."""
    return {text for code in _codes(function.__code__) for text in _strings(code.co_consts)}


def is_pure(function: FunctionType, depth: int = DEPTH) -> bool:
    """Whether nothing in the function's code, or in its helpers' code, acts on the world outside."""
    for code in _codes(function.__code__):
        for i in dis.get_instructions(code):
            outer = i.opname == "STORE_DEREF" and i.argval in function.__code__.co_freevars
            if outer or i.opname in EFFECTS or (i.opname == "LOAD_GLOBAL" and i.argval in EFFECTFUL):
                return False
    helpers = [value for _, value in references(function) if is_helper(value, function)]
    return not depth or all(is_pure(helper, depth - 1) for helper in helpers)


def is_helper(value: Any, caller: FunctionType) -> bool:
    """A function of the same program as its caller, so that looking inside does not wander through libraries."""
    if not isinstance(value, FunctionType) or is_library(value) or value is caller:
        return False
    same_package = value.__module__.split(".")[0] == caller.__module__.split(".")[0]
    return same_package or Path(caller.__code__.co_filename).parent in Path(value.__code__.co_filename).parents


def is_library(function: FunctionType) -> bool:
    return (function.__module__ or "").split(".")[0] == "torch"


@lru_cache(maxsize=4096)
def _chains(code: CodeType) -> tuple[tuple[str, Chain], ...]:
    """("global" | "cell" | "self", names) of every read in a function's code and in the functions written inside it."""
    me = code.co_varnames[0] if code.co_argcount else None
    found: dict[tuple[str, Chain], None] = {}
    for inner in _codes(code):
        kind, chain = "", ()
        for i in dis.get_instructions(inner):
            if i.opname in ("LOAD_ATTR", "LOAD_METHOD") and chain:
                chain = (*chain, i.argval)
                continue
            if chain:
                found[kind, chain] = None
            last = i.argval[-1] if isinstance(i.argval, tuple) and i.argval else i.argval
            kind, chain = "", ()
            if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                kind, chain = "global", (i.argval,)
            elif last == me and i.opname.startswith(("LOAD_FAST", "LOAD_DEREF")) and me is not None:
                kind, chain = "self", (me,)
            elif i.opname.startswith("LOAD_DEREF"):
                kind, chain = "cell", (i.argval,)
        if chain:
            found[kind, chain] = None
    return tuple(found)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _strings(part)
