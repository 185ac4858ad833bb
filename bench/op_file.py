"""A user's own operation from one Python file: an Op, a few plain names, or a KernelBench file.

The file defines one of
- `OP`, an `op.Op`;
- `reference(*inputs, **options)`, written so that it can run in float64, with either `shapes` and `make_inputs(shape)`
  (which may also take dtype, generator and kind, in this order) or `get_inputs()`. Optional: `eager`, `vendor`,
  `options`, `variants`, `flops(shape, options)`, `bytes_moved(shape, itemsize, options)`, `stability` (the kinds that
  make_inputs is asked for in stage 3);
- `Model`, `get_inputs()` and optionally `get_init_inputs()`, as KernelBench has them. The kernel is called with the
  inputs, then the model's parameters and buffers in the order of `state_dict()`: `kernel_fn(*inputs, *parameters)`.

Where no kinds are named, stage 3 scales the inputs (not the parameters). Sizes are drawn below those named, too: one at
which the operation cannot be computed (a size that must divide) is left out.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from op import SCALED, Inputs, Op, Shape


class OpFileError(Exception):
    """The user's file is not an operation; the message is one line that says why."""


def load_op_file(path: str | Path) -> Op:
    path = Path(path).resolve()
    if not path.is_file():
        raise OpFileError(f"{path}: no such file")
    try:
        module = import_file(path, f"op_file_{path.stem}")
    except SyntaxError as error:
        raise OpFileError(f"{path.name}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        raise OpFileError(f"{path.name}: {type(error).__name__} while importing it: {first_line(error)}") from error
    given = getattr(module, "OP", None)
    if isinstance(given, Op):
        return given
    try:
        op = _from_names(path, module)
        if op is None:
            raise OpFileError(
                f"{path.name}: expected OP, or reference with make_inputs and shapes (or get_inputs), "
                f"or a KernelBench Model with get_inputs; found {_found(module)}"
            )
        op.bytes_moved(op.primary, torch.float32, op.options)  # calls everything once, on tensors without data
    except OpFileError:
        raise
    except Exception as error:
        raise OpFileError(f"{path.name}: {type(error).__name__} while trying it: {first_line(error)}") from error
    return op


def import_file(path: Path, name: str) -> ModuleType:
    """Runs a Python file as a module under a name of its own, which no other module has."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and inspect look a module up by its name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _found(module: ModuleType) -> str:
    names = [name for name in vars(module) if not name.startswith("_")]
    return ", ".join(names[:8]) or "nothing"


def _from_names(path: Path, module: ModuleType) -> Op | None:
    draw: Callable[..., object] | None = getattr(module, "make_inputs", None) or getattr(module, "get_inputs", None)
    model_class, reference = getattr(module, "Model", None), getattr(module, "reference", None)
    if draw is None or (model_class is None and reference is None):
        return None
    model = None if reference is not None else _model(module, model_class)
    shapes = [tuple(int(n) for n in shape) for shape in getattr(module, "shapes", ())]
    if draw is getattr(module, "make_inputs", None) and not shapes:
        raise OpFileError(f"{path.name}: make_inputs needs shapes = [(...), ...] beside it")
    make_inputs = _input_maker(draw, model)
    if not shapes:
        shapes = [_shape_of(_seeded(draw, 0))]
    run = reference if model is None else _functional(model, len(_tensors(_seeded(draw, 0))))
    assert run is not None
    options = dict(getattr(module, "options", {}))

    @cache
    def measured(shape: Shape) -> tuple[float, float, float]:
        return _costs(run, make_inputs(shape, torch.float32, torch.Generator().manual_seed(0), "normal"), options)

    def bytes_moved(shape: Shape, dtype: torch.dtype, options: object) -> float:
        own = getattr(module, "bytes_moved", None)
        floats, others, _ = measured(tuple(shape))
        return float(own(shape, dtype.itemsize, options)) if own else floats * dtype.itemsize + others

    def flops(shape: Shape, options: object) -> float:
        own = getattr(module, "flops", None)
        return float(own(shape, options)) if own else measured(tuple(shape))[2]

    def scale(*inputs: torch.Tensor | None, **options: object) -> torch.Tensor:
        """Without knowing how terms cancel inside: an element's own size, and that of its row."""
        out = run(*inputs, **options)
        return out.abs() + (out.square().mean(-1, keepdim=True).sqrt() if out.dim() else 0.0)

    count = len(make_inputs(shapes[0], torch.float32, torch.Generator().manual_seed(0), "normal"))
    return Op(
        name=re.sub(r"[^a-z0-9_]+", "_", path.stem.lower()).lstrip("_0123456789").rstrip("_") or "custom",
        arguments=tuple(f"input{i}" for i in range(count)),
        reference=run,
        eager=getattr(module, "eager", run),
        vendor=getattr(module, "vendor", None),
        make_inputs=make_inputs,
        dims=tuple(f"n{i}" for i in range(len(shapes[0]))),
        primary=shapes[0],
        gpu_shapes=tuple(shapes),
        gpu_edges=(),
        cpu_primary=shapes[0],
        cpu_shapes=tuple(shapes),
        cpu_edges=(),
        flops=flops,
        bytes_moved=bytes_moved,
        depth=lambda shape: max(shape, default=1),
        stability=tuple(getattr(module, "stability", SCALED)),
        options=options,
        variants=tuple(getattr(module, "variants", ())),
        roundings=scale,
        guessed=True,
        matmul_like=True,
    )


def _model(module: ModuleType, model_class: Callable[..., torch.nn.Module] | None) -> torch.nn.Module:
    assert model_class is not None
    arguments = getattr(module, "get_init_inputs", list)()
    with _rng(0):
        return model_class(*arguments).eval()


def _functional(model: torch.nn.Module, inputs: int) -> Callable[..., torch.Tensor]:
    names = list(model.state_dict())
    return lambda *tensors: functional_call(model, dict(zip(names, tensors[inputs:], strict=True)), tensors[:inputs])


def _input_maker(draw: Callable[..., object], model: torch.nn.Module | None) -> Callable[..., Inputs]:
    takes = len(inspect.signature(draw).parameters)

    def make_inputs(shape: Shape, dtype: torch.dtype, g: torch.Generator, kind: str) -> Inputs:
        seed = int(torch.randint(0, 2**31, (1,), generator=g, device=g.device))
        drawn = _tensors(_seeded(draw, seed, *(shape, dtype, g, "normal" if kind in SCALED else kind)[:takes]))
        drawn = [t * SCALED.get(kind, 1.0) if t is not None and t.is_floating_point() else t for t in drawn]
        if model is not None:
            with _rng(seed + 1):  # moved off their initial values: a weight of 1 and a bias of 0 could be ignored
                state = model.state_dict().values()
                drawn += [t * (1 + 0.2 * torch.rand_like(t)) + _noise(t) if t.is_floating_point() else t for t in state]
        return tuple(t.to(dtype) if t is not None and t.is_floating_point() else t for t in drawn)

    return make_inputs


def _noise(t: torch.Tensor) -> torch.Tensor:
    size = float(t.square().mean().sqrt()) if t.numel() else 0.0
    return (size or 1.0) * 0.2 * torch.rand_like(t)  # never negative: a running variance stays one


def _tensors(drawn: object) -> list[torch.Tensor | None]:
    values: Sequence[object] = drawn if isinstance(drawn, (list, tuple)) else [drawn]
    wrong = [type(v).__name__ for v in values if v is not None and not isinstance(v, torch.Tensor)]
    if wrong:
        raise OpFileError(f"inputs must be tensors or None, got {wrong[0]}; constants belong in `options`")
    return [v for v in values if v is None or isinstance(v, torch.Tensor)]


def _shape_of(drawn: object) -> Shape:
    first = next((t for t in _tensors(drawn) if t is not None), None)
    return tuple(first.shape) if first is not None else ()


def _seeded(draw: Callable[..., object], seed: int, *arguments: object) -> object:
    with _rng(seed):
        return draw(*arguments)


@contextmanager
def _rng(seed: int) -> Iterator[None]:
    """User files draw from torch's global generator; it is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _costs(run: Callable[..., torch.Tensor], inputs: Inputs, options: dict) -> tuple[float, float, float]:
    """Floating-point elements in and out, bytes of the other inputs, and FLOPs: products as torch counts them."""
    meta = [None if t is None else t.to("meta") for t in inputs]
    counter = FlopCounterMode(display=False)
    with counter:
        try:
            out = run(*meta, **options)
        except (RuntimeError, NotImplementedError):  # what looks at its data cannot run without
            out = run(*inputs, **options)
    if not isinstance(out, torch.Tensor):
        raise OpFileError(f"the operation must return one tensor, got {type(out).__name__}")
    tensors = [t for t in inputs if t is not None]
    floats = sum(t.numel() for t in tensors if t.is_floating_point()) + out.numel()
    others = sum(t.numel() * t.element_size() for t in tensors if not t.is_floating_point())
    return float(floats), float(others), float(max(counter.get_total_flops(), out.numel()))
