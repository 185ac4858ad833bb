"""Puts the kernels of this folder into a model: `from optimized import apply; report = apply(model)`.

Kernels run without gradients, on the device and dtype that they were made for; every other call goes to the model's own
code, as does everything after `report.undo()`. Undo before copying or pickling a model: copies would share its weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from torch import nn

# An export: this file as __init__.py, beside it the other autokernel_*.py, manifest.json, and a kernel.py per kernel.
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Kernel:
    name: str
    op: str
    dtype: str
    backend: str
    shapes: frozenset[tuple[int, ...]] | None  # None is any; one of several kernels of an operation has its own
    function: Callable[..., Any]

    def takes(self, shape: tuple[int, ...], dtype: str, device: str) -> bool:
        return dtype == self.dtype and runs_on(self.backend, device) and (self.shapes is None or shape in self.shapes)


@dataclass
class Report:
    """What was replaced. `calls` counts how often each kernel has run since."""

    replaced: dict[str, int] = field(default_factory=dict)
    sites: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)  # kernel -> why it replaces nothing
    calls: dict[str, int] = field(default_factory=dict)
    _wrapped: list[Any] = field(default_factory=list, repr=False)

    def undo(self) -> None:
        """Gives the model its own code back."""
        while self._wrapped:
            self._wrapped.pop().undo()

    def __enter__(self) -> Report:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.undo()


def apply(model: nn.Module, only: str | Iterable[str] | None = None) -> Report:
    """Replaces what the active kernels replace, or those named in `only`, active or not."""
    chosen = _choose(_manifest(), [only] if isinstance(only, str) else only)
    report = Report({k["kernel"]: 0 for k in chosen}, {k["kernel"]: [] for k in chosen})
    held = _held_by(model)
    with _own_modules() as ours:
        kernels = []
        for entry in chosen:
            if why := _misfit(entry, held):
                report.skipped[entry["kernel"]] = why
            else:
                kernels.append(_load(entry))
        sites = ours["autokernel_sites"].find_sites(model, {k.op for k in kernels}) if kernels else []
    report.calls = {k.name: 0 for k in kernels}
    for site in sites:
        fitting = [k for k in kernels if k.op == site.op and (k.shapes is None or any(map(site.fits, k.shapes)))]
        if fitting:
            site.wrap(lambda original, s=site, k=fitting: _replacement(original, s, k, report.calls))
            report._wrapped.append(site)
        for kernel in fitting:
            report.replaced[kernel.name] += 1
            report.sites[kernel.name].append(site.path)
    for kernel in kernels:
        if not report.replaced[kernel.name]:
            report.skipped[kernel.name] = f"the model has no {kernel.op} that it fits"
    return report


def runs_on(backend: str, device: str) -> bool:
    if backend == "cpp":
        return device == "cpu"
    return device == "cuda" or (backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1")


def _replacement(
    original: Callable[..., Any], site: Any, kernels: Sequence[Kernel], calls: dict[str, int]
) -> Callable[..., Any]:
    def replaced(*args: Any, **kwargs: Any) -> Any:
        call = site.to_op_call(*args, **kwargs)
        if call is not None:
            for kernel in kernels:
                if kernel.takes(call.shape, call.dtype, call.device):
                    calls[kernel.name] += 1
                    return call.finish(kernel.function(*call.inputs, **call.options))
        return original(*args, **kwargs)

    return replaced


def _manifest() -> list[dict[str, Any]]:
    path = HERE / "manifest.json"
    manifest = json.loads(path.read_text())
    if manifest.get("format") != 1:
        raise ValueError(
            f"{path}: expected format 1, found {manifest.get('format')!r}; it comes from another autokernel"
        )
    return manifest["kernels"]


def _choose(kernels: list[dict[str, Any]], only: Iterable[str] | None) -> list[dict[str, Any]]:
    if only is None:
        return [k for k in kernels if k["active"]]
    names, known = list(only), [k["kernel"] for k in kernels]
    for name in names:
        if name not in known:
            raise ValueError(f"there is no kernel {name!r} in {HERE}; it has {', '.join(known) or 'none'}")
    return [k for k in kernels if k["kernel"] in names]


def _held_by(model: nn.Module) -> tuple[set[str], set[str]]:
    """The dtypes and devices of the model's numbers, as the manifest names them."""
    names = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    dtypes = {str(t.dtype).removeprefix("torch.") for t in tensors}
    return {names.get(name, name) for name in dtypes}, {t.device.type for t in tensors}


def _misfit(entry: dict[str, Any], held: tuple[set[str], set[str]]) -> str | None:
    """Why a kernel can have no call in a model that holds these; a model that holds nothing says nothing."""
    dtypes, devices = held
    if dtypes and entry["dtype"] not in dtypes:
        return f"it is made for {entry['dtype']}, and the model is in {', '.join(sorted(dtypes))}"
    if devices and not any(runs_on(entry["backend"], device) for device in devices):
        return f"it is made with {entry['backend']}, and the model is on {', '.join(sorted(devices))}"
    return None


def _load(entry: dict[str, Any]) -> Kernel:
    name = entry["kernel"]
    module = _import(
        f"autokernel_{hashlib.sha256(str(HERE).encode()).hexdigest()[:8]}_{name}", HERE / name / "kernel.py"
    )
    split = name != entry["op"]  # matmul-1: tuned for some shapes of the operation, and only those are its own
    shapes = frozenset(tuple(case["shape"] if isinstance(case, dict) else case) for case in entry["shapes"])
    return Kernel(name, entry["op"], entry["dtype"], entry["backend"], shapes if split else None, module.kernel_fn)


def _import(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"{path}: the manifest names this kernel, but its file is missing")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Triton looks its source up there
    spec.loader.exec_module(module)
    return module


@contextmanager
def _own_modules() -> Iterator[dict[str, ModuleType]]:
    """This folder's autokernel_* modules under their plain names, in place of another export's, while kernels load."""
    names = [file.stem for file in sorted(HERE.glob("autokernel_*.py"))]
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.modules.update(_OWN)
    sys.path.insert(0, str(HERE))
    try:
        for name in names:
            _OWN[name] = importlib.import_module(name)
        yield _OWN
    finally:
        sys.path.remove(str(HERE))
        sys.modules.update(others)


_OWN: dict[str, ModuleType] = {}
