"""Which callables are known without trying, which may be touched, and how what was found takes its calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import autokernel_calls as calls
import autokernel_functions as functions
import torch.nn.functional as F
from autokernel_calls import Call, Match
from autokernel_rebind import names_in
from autokernel_trial import Found, Weight
from torch import Tensor, nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
EVERY_MODULE = frozenset(vars(nn.Module()))


def known_module(module: nn.Module) -> Found | None:
    """torch's own modules say what they are. A subclass that keeps their forward is the same."""
    forward = type(module).forward
    weight, bias = (Weight(n) if module._parameters.get(n) is not None else None for n in ("weight", "bias"))
    if isinstance(module, nn.Linear) and forward is nn.Linear.forward and weight:
        return Found("linear", (weight, bias))
    if isinstance(module, nn.LayerNorm) and forward is nn.LayerNorm.forward:
        return Found("layernorm", (weight, bias), {"eps": module.eps, "shape": module.normalized_shape})
    if isinstance(module, nn.RMSNorm) and forward is nn.RMSNorm.forward and len(module.normalized_shape) == 1:
        return Found("rmsnorm", (weight,), {"eps": module.eps, "shape": module.normalized_shape})
    if isinstance(module, nn.Softmax) and forward is nn.Softmax.forward:
        return Found("softmax", (), {"dim": module.dim})
    return None


def known_function(value: object, caller: FunctionType) -> tuple[str, Match] | None:
    """torch's own functions. Attention is grouped where the calling code names `enable_gqa`."""
    if value is F.scaled_dot_product_attention:
        grouped = "enable_gqa" in names_in(caller)
        return ("flash_attention_gqa" if grouped else "flash_attention"), functions.attention(grouped)
    try:
        return functions.FUNCTIONS.get(value)
    except TypeError:
        return None  # unhashable, so none of them


def match_module(found: Found, module: nn.Module) -> Match:
    """The module's call, with its parameters as they are at that moment."""
    if found.arguments:
        return match_function(found, module.forward)
    name = next(iter(inspect.signature(module.forward).parameters), "")
    operate, ranks = _operation(found), found.ranks
    weights = [w and (w.path.split("."), w) for w in found.weights]

    def match(*args: Any, **kwargs: Any) -> Call | None:
        x = args[0] if args else kwargs.get(name)
        if len(args) + len(kwargs) != 1 or x is None or (ranks is not None and x.dim() not in ranks):
            return None
        return operate(x, *[w and w[1].of(_parameter(module, w[0])) for w in weights])

    return match


def match_function(found: Found, function: Callable[..., Any]) -> Match:
    """The call of a function that gets its weights, and perhaps its eps, as arguments."""
    parameters = list(inspect.signature(function).parameters.values())
    tensors = 3 if found.op == "rotary_embedding" else 1 + len(found.weights)
    operate = _operation(found)

    def match(*args: Any, **kwargs: Any) -> Call | None:
        values = list(args)
        for p in parameters[len(values) : tensors + found.eps_argument]:
            values.append(kwargs.pop(p.name, p.default))
        if kwargs or len(values) != tensors + found.eps_argument:
            return None
        eps = {"eps": values.pop()} if found.eps_argument else {}
        if not all(isinstance(v, Tensor) for v in values) or not isinstance(eps.get("eps", 0.0), float | int):
            return None
        if found.ranks is not None and values[0].dim() not in found.ranks:
            return None
        return operate(*values, **eps)

    return match


def may_have(shape: tuple[int, ...], found: Found, module: nn.Module) -> bool:
    """Whether a call of the module may have this shape: its weights fix all but the number of rows."""
    if not found.weights or found.weights[0] is None or found.arguments:
        return True
    first = found.weights[0].of(_parameter(module, found.weights[0].path.split("."))).shape
    if found.op == "linear":
        return shape[1:] == (*first, int(found.weights[1] is not None))
    if found.op == "fused_mlp":
        return shape[1:] == (first[1], first[0])
    return shape[-1] == first.numel()


def _parameter(module: nn.Module, path: list[str]) -> Tensor:
    """Looked up anew each time, for somebody may have put another there."""
    for step in path[:-1]:
        module = module._modules[step]
    return module._parameters[path[-1]]


def _operation(found: Found) -> Match:
    """What makes the operation's call of x and the weights."""
    options = found.options
    if found.op == "softmax":
        return partial(functions.softmax_over, dim=options.get("dim", -1))
    if found.op == "rotary_embedding":
        return partial(calls.rotary, **options)
    if found.op == "linear":
        return calls.linear
    if found.op == "fused_mlp":
        return partial(calls.fused_mlp, **options)
    if shape := options.get("shape"):
        norm = functions.rms_norm if found.op == "rmsnorm" else functions.layer_norm
        return lambda x, *weights: norm(x, shape, *weights, eps=options["eps"])
    return partial(calls.rmsnorm if found.op == "rmsnorm" else calls.layernorm, **options)


def signature(module: nn.Module) -> object:
    """What two modules share when trying one tells about the other; it changes when a call leaves traces."""
    tensors = [
        (name, tuple(t.shape), t.dtype, t.device, None if name in module._parameters else (t.data_ptr(), t._version))
        for name, t in (*module._parameters.items(), *module._buffers.items())
        if t is not None
    ]
    values = [(name, _summary(value)) for name, value in vars(module).items() if name not in EVERY_MODULE]
    children = [(name, signature(child)) for name, child in module.named_children()]
    return (type(module), module.training, tuple(tensors), tuple(values), tuple(children))


def _summary(value: object) -> object:
    if isinstance(value, Tensor):
        return (value.data_ptr(), value._version)
    if value is None or isinstance(value, int | float | str | list | tuple | dict | set):
        return repr(value)[:1000]
    return id(value)


def is_plain(module: nn.Module) -> bool:
    """Whether calling it is calling its class's forward with its own parameters."""
    return (
        "forward" not in vars(module)
        and "parametrizations" not in module._modules
        and type(module).__call__ is nn.Module.__call__
        and isinstance(type(module).forward, FunctionType)
    )


def is_hooked(module: nn.Module) -> bool:
    return any(getattr(module, hooks, None) for hooks in HOOKS)


def arity(function: Callable[..., Any]) -> tuple[int, int]:
    """How many positional arguments a function needs, and how many it takes at most."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    taken = [p for p in parameters if p.kind in positional]
    required = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return len(required), len(taken)
