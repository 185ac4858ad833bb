"""Reads a kernel.py as text: refuses what can be no honest kernel, and flags what deserves a closer look."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 256 << 10

# Reaching into the harness's frames or objects, other processes, or the interpreter's own memory.
REFUSED_CALLS = {
    "sys._getframe": "reads other functions' frames",
    "sys._current_frames": "reads other functions' frames",
    "sys.settrace": "traces the harness",
    "sys.setprofile": "traces the harness",
    "inspect.currentframe": "reads other functions' frames",
    "inspect.stack": "reads other functions' frames",
    "traceback.walk_stack": "reads other functions' frames",
    "traceback.walk_tb": "reads other functions' frames",
    "gc.get_objects": "looks through the harness's objects",
    "gc.get_referrers": "looks through the harness's objects",
    "gc.get_referents": "looks through the harness's objects",
    "os.fork": "starts another process",
    "os.forkpty": "starts another process",
    "os.kill": "signals processes",
    "os.killpg": "signals processes",
    "os.execv": "replaces the process",
    "os.execve": "replaces the process",
    "os._exit": "ends the process",
    "ctypes.pythonapi": "calls the interpreter's internals",
    "ctypes.PyDLL": "calls the interpreter's internals",
}
# Attributes by which an exception, a generator or a frame leads to its caller's variables.
FRAME_ATTRIBUTES = {"tb_frame", "f_back", "f_locals", "f_globals", "gi_frame", "cr_frame", "ag_frame"}
# The harness's own modules and main module: no kernel needs them, and none can be imported (candidate.py hides them).
HARNESS = {path.stem for path in Path(__file__).parent.glob("*.py")} | {"__main__"}
INTERPRETER = re.compile(r"Python\.h|pybind11/embed|\b_?Py[A-Z][A-Za-z]*_\w*")
REFUSED_IMPORTS = {"socket": "opens connections", "faulthandler": "handles crashes", "ptrace": "traces processes"}
FLAGGED_IMPORTS = {"threading", "multiprocessing", "concurrent", "asyncio", "signal", "mmap", "atexit"}
FLAGGED_CALLS = {"compile", "id"}
FLAGGED_NAMES = {"torch.cuda.Stream", "torch.cuda.stream", "os.environ"}
# Ways to say something without writing it: whoever wins with one of these is looked at by a person first.
HELD_IMPORTS = {"gc", "inspect", "pickle", "marshal", "importlib"}
HELD_CALLS = {"exec", "eval", "__import__", "globals", "vars"}
HELD_NAMES = {"sys.modules", "ctypes.memmove", "ctypes.cast", "ctypes.pythonapi", "torch.library.Library"}
HELD_LIBRARIES = re.compile(r"\blib(c|pthread|dl|python[\d.]*)\.so")
BY_NAME = {"getattr", "setattr", "delattr"}  # attributes as strings, like attrgetter and methodcaller
HELD_ATTRIBUTES = {"from_address", "__globals__", "__closure__", "__subclasses__", "__builtins__", "__code__"}
PATCHED_ROOTS = {"torch", "time", "builtins", "sys", "os", "triton", "json", "random"}
DATA_ATTRIBUTES = {
    "allow_tf32",
    "benchmark",
    "deterministic",
    "dont_write_bytecode",
    "allow_fp16_reduced_precision_reduction",
}


@dataclass(frozen=True)
class Scan:
    refused: str  # '' or why this file is not even run
    flags: list[str]
    held: str | None  # the first flag for which a win is held instead of kept
    constants: dict[str, str]  # KERNEL_TYPE and BACKEND where they are plain strings


def scan(data: bytes) -> Scan:
    if len(data) > MAX_BYTES:
        return _refusal(f"the file has {len(data)} bytes; a kernel.py has at most {MAX_BYTES}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return _refusal(f"not UTF-8: byte {error.start} is 0x{data[error.start]:02x}")
    try:
        tree = ast.parse(text, "kernel.py")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        return _refusal(
            f"kernel.py{f':{line}' if line else ''}: {type(error).__name__}: {getattr(error, 'msg', error)}"
        )
    if not _defines(tree, "kernel_fn"):
        return _refusal("no kernel_fn at the top level of the file; expected e.g. def kernel_fn(x, weight, eps=1e-6)")
    visitor = _Visitor()
    visitor.visit(tree)
    flags = sorted({*visitor.flags, *visitor.held})
    return Scan(visitor.refused, flags, visitor.held[0] if visitor.held else None, _constants(tree))


def _refusal(why: str) -> Scan:
    return Scan(why, [], None, {})


def _defines(tree: ast.Module, name: str) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return True
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store):
            return True
        if isinstance(node, ast.alias) and (node.asname or node.name) == name:
            return True
    return False


def _constants(tree: ast.Module) -> dict[str, str]:
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id in ("KERNEL_TYPE", "BACKEND"):
                    found[target.id] = node.value.value
    return found


class _Visitor(ast.NodeVisitor):
    def __init__(self) -> None:
        self.refused, self.flags, self.held = "", list[str](), list[str]()
        self.aliases: dict[str, str] = {}  # local name -> dotted origin
        self.called = set[ast.AST]()  # what stands before the brackets of a call

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.aliases[alias.asname or alias.name.split(".")[0]] = (
                alias.name if alias.asname else alias.name.split(".")[0]
            )
            self._imported(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        self._imported(module, node.lineno)
        for alias in node.names:
            dotted = f"{module}.{alias.name}"
            self.aliases[alias.asname or alias.name] = dotted
            self._used(dotted, node.lineno)

    def visit_Constant(self, node: ast.Constant) -> None:
        found = INTERPRETER.search(node.value) if isinstance(node.value, str) else None
        if found:
            self._refuse(node.lineno, f"'{found.group()}' in a string: calls the interpreter's internals")
        if isinstance(node.value, str) and HELD_LIBRARIES.search(node.value):
            self.held.append(f"line {node.lineno}: names the system's own library")

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id in HELD_CALLS | BY_NAME and node not in self.called:
            self.held.append(f"line {node.lineno}: hands {node.id} on")

    def visit_Subscript(self, node: ast.Subscript) -> None:
        written = node.value if isinstance(node.ctx, (ast.Store, ast.Del)) else None
        if isinstance(written, ast.Attribute) and written.attr == "__dict__":
            self.held.append(f"line {node.lineno}: writes into a __dict__")
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        dotted = self._dotted(node)
        self._attribute(dotted, node.attr, node.lineno)
        if dotted:
            root = dotted.split(".")[0]
            if (
                isinstance(node.ctx, (ast.Store, ast.Del))
                and root in PATCHED_ROOTS
                and node.attr not in DATA_ATTRIBUTES
            ):
                self._refuse(node.lineno, f"sets {dotted}: patching {root} serves no kernel")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.called.add(node.func)
        name = self._dotted(node.func).removeprefix("builtins.")
        named = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        if name in BY_NAME or name.split(".")[-1] in ("attrgetter", "methodcaller"):
            target = self._dotted(node.args[0]) if name in BY_NAME and node.args else ""
            for attribute in (part for text in named for part in text.split(".")):
                self._attribute(f"{target}.{attribute}" if target else "", attribute, node.lineno)
        if name in FLAGGED_CALLS:
            self.flags.append(f"line {node.lineno}: calls {name}")
        if name == "getattr" and len(node.args) > 1 and not isinstance(node.args[1], ast.Constant):
            self.held.append(f"line {node.lineno}: getattr of a name that is computed")
        if name in HELD_CALLS:
            self.held.append(f"line {node.lineno}: calls {name}")
        if name == "ctypes.CDLL" and (
            not node.args or (isinstance(node.args[0], ast.Constant) and node.args[0].value is None)
        ):
            self._refuse(node.lineno, "ctypes.CDLL(None): calls into the process itself")
        if name in ("setattr", "delattr") and node.args:
            target = self._dotted(node.args[0])
            if target and target.split(".")[0] in PATCHED_ROOTS:
                self._refuse(node.lineno, f"{name} on {target}: patching {target.split('.')[0]} serves no kernel")
        self.generic_visit(node)

    def _attribute(self, dotted: str, attribute: str, line: int) -> None:
        """One that is read or set, written with a dot or as a string; `dotted` where it is known of what."""
        if attribute in FRAME_ATTRIBUTES:
            self._refuse(line, f"{attribute} reads other functions' frames")
        elif f"sys.{attribute}" in REFUSED_CALLS:
            self._refuse(line, f"{attribute} {REFUSED_CALLS[f'sys.{attribute}']}")
        if attribute in HELD_ATTRIBUTES:
            self.held.append(f"line {line}: uses {attribute}")
        if attribute == "__dict__" and dotted.split(".")[0] in PATCHED_ROOTS:
            self.held.append(f"line {line}: uses {dotted}")
        if dotted:
            self._used(dotted, line)

    def _imported(self, module: str, line: int) -> None:
        root = module.split(".")[0]
        if root in REFUSED_IMPORTS:
            self._refuse(line, f"imports {root}: {REFUSED_IMPORTS[root]}")
        if root in HARNESS:
            self._refuse(line, f"imports {root}: the harness is none of a kernel's business")
        if root in FLAGGED_IMPORTS:
            self.flags.append(f"line {line}: imports {root}")
        if root in HELD_IMPORTS:
            self.held.append(f"line {line}: imports {root}")

    def _used(self, dotted: str, line: int) -> None:
        """Also by way of another module that holds it: torch.sys.modules, threading._os.fork."""
        parts = [part.lstrip("_") for part in dotted.split(".")[:-1]] + dotted.split(".")[-1:]
        names = {dotted, ".".join(parts[-2:]), ".".join(parts[-3:])}
        refused = next((REFUSED_CALLS[name] for name in names if name in REFUSED_CALLS), None)
        if refused:
            self._refuse(line, f"{dotted} {refused}")
        if names & FLAGGED_NAMES:
            self.flags.append(f"line {line}: uses {dotted}")
        if names & HELD_NAMES or (len(parts) > 1 and parts[-2] == "builtins" and parts[-1] in HELD_CALLS):
            self.held.append(f"line {line}: uses {dotted}")

    def _refuse(self, line: int, why: str) -> None:
        self.refused = self.refused or f"line {line}: {why}"

    def _dotted(self, node: ast.AST) -> str:
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        origin = self.aliases.get(node.id, node.id)
        return ".".join([origin, *reversed(parts)])
