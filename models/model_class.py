"""Which class of a file is the model: the one that is named, `Model`, or the one that no other class is made of."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType

from torch import nn


class ModelError(Exception):
    """The person's mistake, or their model's, in one line."""


def choose_class(module: ModuleType, class_name: str | None, path: Path) -> type[nn.Module]:
    found = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    }
    if class_name is not None:
        named = getattr(module, class_name, None)
        if inspect.isclass(named) and issubclass(named, nn.Module):
            return named
        have = ", ".join(found) or "none"
        raise ModelError(f"{path}: expected an nn.Module class named {class_name}, found {have}")
    model = getattr(module, "Model", None)
    if inspect.isclass(model) and issubclass(model, nn.Module):
        return model
    if not found:
        raise ModelError(f"{path}: expected an nn.Module class in it, found none")
    parts = _parts(path)
    whole = [name for name in found if name not in parts]
    if len(whole) == 1:
        return found[whole[0]]
    raise ModelError(f"{path}: several nn.Module classes ({', '.join(whole or found)}); choose one with --class")


def _parts(path: Path) -> set[str]:
    """Names that stand inside of another class: a Block of a Net. What a class derives from is no part of it."""
    classes = [node for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.ClassDef)]
    return {
        inner.id
        for node in classes
        for statement in node.body
        for inner in ast.walk(statement)
        if isinstance(inner, ast.Name) and inner.id != node.name
    }
