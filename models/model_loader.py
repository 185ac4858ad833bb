"""Builds the model in a file: the same seed gives the same weights and inputs. What is wrong with it is one line.

A file follows the KernelBench convention (`Model`, `get_inputs`, `get_init_inputs`), or holds an nn.Module class, of
which no other is made, whose input shape is given.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import itertools
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from model_class import ModelError, choose_class
from torch import Tensor, nn

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
T = TypeVar("T")
_serial = itertools.count()


@dataclass(frozen=True)
class LoadedModel:
    model: nn.Module
    inputs: tuple[Any, ...]
    class_name: str
    module: ModuleType
    input_shape: tuple[int, ...] | None
    dtype: torch.dtype
    device: torch.device

    def draw_inputs(self, seed: int) -> tuple[Any, ...]:
        """Other inputs of the same sizes, for the same weights."""
        return _draw_inputs(self.module, self.model, self.input_shape, self.dtype, self.device, seed)


def load(
    file: str | Path,
    class_name: str | None = None,
    input_shape: Sequence[int] | None = None,
    dtype: str | torch.dtype = "fp32",
    device: str | torch.device = "cpu",
    seed: int = 0,
    try_forward: bool = True,
) -> LoadedModel:
    """The model in eval mode on the device, and inputs for it. Runs it once, so that what cannot run is said here."""
    path = Path(file)
    where = torch.device("cuda" if device == "rocm" else device)
    number = DTYPES[dtype] if isinstance(dtype, str) else dtype
    shape = tuple(input_shape) if input_shape else None

    module = _import(path)
    chosen = choose_class(module, class_name, path)
    model = _guard(path, f"{chosen.__name__}()", lambda: _build(module, chosen, where, seed))
    model = cast(model.eval(), number, where)
    inputs = _guard(path, "its inputs", lambda: _draw_inputs(module, model, shape, number, where, seed))
    loaded = LoadedModel(model, inputs, chosen.__name__, module, shape, number, where)
    if try_forward:
        with torch.no_grad():
            _guard(path, f"{chosen.__name__}.forward({describe(inputs)})", lambda: model(*inputs))
    return loaded


def _build(module: ModuleType, chosen: type[nn.Module], where: torch.device, seed: int) -> nn.Module:
    """A large model is drawn where it will live; one that insists on the CPU (by a generator of its own, say) there."""
    _seed(seed)
    if where.type != "cpu":
        with contextlib.suppress(RuntimeError, NotImplementedError), where:
            return chosen(*_init_inputs(module, chosen))
        _seed(seed)
    with torch.device("cpu"):
        return chosen(*_init_inputs(module, chosen))


def cast(model: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Module.to(dtype) would also cast complex buffers, and with them lose half of a RoPE table."""
    model._apply(lambda t: t.to(device, dtype) if t.is_floating_point() else t.to(device))
    return model


def describe(inputs: Sequence[Any]) -> str:
    return ", ".join(f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else repr(x)[:40] for x in inputs)


def _import(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file")
    name = f"autokernel_model_{path.stem}_{next(_serial)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path}: expected a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    # Its neighbours come first while it is imported, as when Python runs it, and last afterwards: a file of theirs
    # must not shadow one of ours.
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    run = spec.loader.exec_module
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # no __pycache__ in a folder that is the user's
    try:
        _guard(path, "importing it", lambda: run(module))
    finally:
        sys.dont_write_bytecode = written
        sys.path.remove(folder)
        sys.path.append(folder)
    return module


def _init_inputs(module: ModuleType, chosen: type[nn.Module]) -> Sequence[Any]:
    """get_init_inputs() speaks for `Model`; another class of the file is built with its own defaults if it has them."""
    given = getattr(module, "get_init_inputs", None)
    if given is None or (chosen is not getattr(module, "Model", chosen) and _can_call(chosen)):
        return ()
    return given()


def _can_call(function: Any) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    return True


def _draw_inputs(
    module: ModuleType,
    model: nn.Module,
    shape: tuple[int, ...] | None,
    dtype: torch.dtype,
    device: torch.device,
    seed: int,
) -> tuple[Any, ...]:
    _seed(seed)
    given: Callable[..., Any] | None = getattr(module, "get_inputs", None)
    if given is None:
        if shape is None:
            raise ModelError(f"{module.__file__}: it has no get_inputs(); give --input-shape, such as 1,512")
        drawn = [_fit(model, shape, dtype, device)]
    else:
        drawn = list(given(device.type) if "device" in inspect.signature(given).parameters else given())
        drawn = drawn if shape is None else _resize(drawn, shape, model, device)
    return tuple(_move(x, dtype, device) for x in drawn)


def _resize(drawn: list[Any], shape: tuple[int, ...], model: nn.Module, device: torch.device) -> list[Any]:
    """The first tensor gets the shape, and so does every other (a mask, token types) that was as large as it."""
    first = next((x.shape for x in drawn if isinstance(x, Tensor)), None)
    return [_like(x, shape, model, device) if isinstance(x, Tensor) and x.shape == first else x for x in drawn]


def _like(example: Tensor, shape: tuple[int, ...], model: nn.Module, device: torch.device) -> Tensor:
    if example.is_floating_point() or example.is_complex():
        return torch.randn(shape, dtype=example.dtype)
    low, high = int(example.min()), int(example.max())
    if low == high or example.dtype == torch.bool:
        return torch.full(shape, low, dtype=example.dtype)
    return torch.randint(0, _vocabulary(model, shape, device) or high + 1, shape).to(example.dtype)


def _fit(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Token ids if the model looks its input up in an embedding, else numbers."""
    vocabulary = _vocabulary(model, shape, device)
    return torch.randint(0, vocabulary, shape) if vocabulary else torch.randn(shape).to(dtype)


def _vocabulary(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> int | None:
    """Rows of the embedding that reads the input; token 0 is in every vocabulary."""
    tokens = torch.zeros(shape, dtype=torch.long, device=device)
    seen: list[int] = []

    def watch(embedding: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor) and args[0].data_ptr() == tokens.data_ptr():
            seen.append(len(next(embedding.parameters())))

    embeddings = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    hooks = [m.register_forward_pre_hook(watch) for m in embeddings]
    try:
        if hooks:
            with torch.no_grad():
                model(tokens)
    except Exception:
        if not seen:
            return None  # it wants something else; if it wants nothing we can draw, the forward that follows says so
    finally:
        for hook in hooks:
            hook.remove()
    return min(seen, default=None)


def _move(x: Any, dtype: torch.dtype, device: torch.device) -> Any:
    if not isinstance(x, Tensor):
        return x
    return x.to(device, dtype) if x.is_floating_point() else x.to(device)


def _seed(seed: int) -> None:
    torch.manual_seed(seed)


def _guard(path: Path, doing: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except ModelError:
        raise
    except SyntaxError as error:
        raise ModelError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:  # a script without a __main__ guard may end the process
        frames = traceback.extract_tb(error.__traceback__)
        line = next((f.lineno for f in reversed(frames) if f.filename in (str(path), str(path.resolve()))), None)
        said = " ".join(str(error).split())[:300]
        place = f"{path}:{line}" if line else str(path)
        raise ModelError(f"{place}: {doing} raised {type(error).__name__}: {said}") from error
