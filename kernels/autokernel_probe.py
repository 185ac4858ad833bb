"""What a module or function computes, by what comes out of it; recognises norms and softmax itself.

Names mean nothing here, and an exception means 'not this operation'.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from autokernel_products import recognise_linear, recognise_mlp, recognise_rotary
from autokernel_trial import Found, Run, Source, Weight, attempt, close, ranks_where, stand_ins, with_tensors
from torch import Tensor, nn

# One row of zeros, then from where only eps matters to where it does not.
SCALES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 1.0, 3.0, 10.0, 100.0)
LEADING = ((12,), (3, 4), (2, 3, 2))  # the same twelve rows as inputs of rank 2, 3 and 4
EXACT = 2e-5  # of a row's largest number, in fp32; variance by n-1 is off by more up to rows of 25,000
HALF = 3e-2  # a module in bf16 or fp16 may round at every step
WIDTH = 24  # of rows where no parameter says it


def recognise_module(module: nn.Module, dtype: torch.dtype, device: torch.device) -> Found | None:
    """The operation that a module of one argument is, if it is one; `dtype` is what the model runs in."""
    params = dict(module.named_parameters())
    vectors = [name for name, p in params.items() if p.dim() == 1]
    matrices = [name for name, p in params.items() if p.dim() == 2]
    source = Source(device)
    if len(vectors) + len(matrices) != len(params):
        return None
    if not matrices and len(vectors) <= 2:
        return _recognise_rows(module, vectors, dtype, source)
    if len(matrices) == 1 and len(vectors) <= 1:
        return recognise_linear(module, matrices[0], next(iter(vectors), None), source)
    if len(matrices) in (2, 3) and not vectors:
        return recognise_mlp(module, matrices, source)
    return None


def recognise_function(function: Callable[..., object], required: int, accepted: int) -> Found | None:
    """The operation that a function of tensors is: rotary(x, cos, sin), softmax(x), or a norm of x and its weights."""
    source = Source(torch.device("cpu"))
    weight, bias = source.weight(torch.empty(WIDTH)), 0.01 * source.normal(WIDTH)
    if required <= 3 <= accepted and (found := recognise_rotary(function, source)):
        return found
    for given in ((), (weight,), (weight, bias)):
        w, b = [*given, None, None][:2]

        def norm(
            *eps: float, given: tuple[Tensor, ...] = given, w: Tensor | None = w, b: Tensor | None = b
        ) -> Found | None:
            return _rows(lambda x: function(x, *given, *eps), WIDTH, w, b, (), source)

        count, named = 1 + len(given), (Weight("argument"),) * len(given)
        if required <= count + 1 <= accepted and given:  # what follows must be the eps, whatever its value
            found, other = norm(1e-3), norm(1e-5)
            if found and other and (found.options["eps"], other.options["eps"]) == (1e-3, 1e-5):
                return Found(found.op, named, {}, found.ranks, arguments=True, eps_argument=True)
        if required <= count <= accepted and (found := norm()):
            return Found(found.op, named, found.options, found.ranks, arguments=True)
    return None


def _recognise_rows(module: nn.Module, vectors: list[str], dtype: torch.dtype, source: Source) -> Found | None:
    tensors = stand_ins(module, source)
    widths = {tensors[name].numel() for name in vectors} or {WIDTH}
    if len(widths) != 1 or (width := widths.pop()) < 2:
        return None
    floats = [value for m in module.modules() for value in vars(m).values() if isinstance(value, float)]
    for names in itertools.permutations(vectors):
        drawn = dict(tensors)
        for name in names[1:]:  # a bias; a large one would drown the rows where eps matters
            drawn[name] = 0.01 * source.normal(width)
        weight, bias = [*(drawn[name] for name in names), None, None][:2]
        found = _rows(with_tensors(module, drawn), width, weight, bias, floats, source)
        if found and _holds_in(dtype, found, module, drawn, weight, bias, source):
            return Found(found.op, tuple(Weight(name) for name in names), found.options, found.ranks)
    return None


def _rows(
    run: Run, width: int, weight: Tensor | None, bias: Tensor | None, floats: Sequence[float], source: Source
) -> Found | None:
    """The operation on rows of `width` numbers that `run` is, with which eps, and for inputs of which ranks."""
    rows = torch.tensor(SCALES, device=source.device)[:, None] * (source.normal(len(SCALES), width) + 0.5)
    for lead in LEADING:
        out = attempt(run, rows.reshape(*lead, width))
        if out is None or out.numel() != rows.numel():
            continue
        for op, options, expected in _explanations(out.reshape(rows.shape), rows, weight, bias, floats):
            if ranks := ranks_where(run, rows, expected, LEADING, EXACT):
                return Found(op, (), options, ranks)
    return None


def _explanations(
    out: Tensor, rows: Tensor, weight: Tensor | None, bias: Tensor | None, floats: Sequence[float]
) -> list[tuple[str, dict[str, object], Tensor]]:
    """What the output might be: softmax has no weight, rmsnorm no bias, layernorm may have neither."""
    found: list[tuple[str, dict[str, object], Tensor]] = []
    if weight is None:
        found.append(("softmax", {}, rows.softmax(-1)))
    for op in ("rmsnorm", "layernorm") if bias is None else ("layernorm",):
        eps = _fit_eps(out, rows, weight, bias, op == "layernorm", floats)
        if eps is not None:
            found.append((op, {"eps": eps}, _norm(rows, weight, bias, eps, op == "layernorm")))
    return [(op, options, expected) for op, options, expected in found if close(out, expected, EXACT)]


def _norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, centred: bool) -> Tensor:
    x = x.double()
    x = x - x.mean(-1, keepdim=True) if centred else x
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _fit_eps(
    out: Tensor, rows: Tensor, weight: Tensor | None, bias: Tensor | None, centred: bool, floats: Sequence[float]
) -> float | None:
    """The eps that explains the smallest row, then the nearest number that somebody would have written."""
    x, y = rows[1].double(), out[1].double()
    x = x - x.mean() if centred else x
    y = y if bias is None else y - bias
    factor = float((y / (x if weight is None else x * weight)).median())
    if not 0 < factor < float("inf"):
        return None
    power = float(x.square().mean())
    eps = factor**-2 - power
    if abs(eps) < 1e-3 * power:
        return 0.0
    if not 0 < eps < 1:
        return None
    likely = (*floats, float(f"{eps:.1g}"), float(f"{eps:.2g}"))
    return next((number for number in likely if abs(number - eps) < 1e-2 * eps), eps)


def _holds_in(
    dtype: torch.dtype,
    found: Found,
    module: nn.Module,
    tensors: dict[str, Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    source: Source,
) -> bool:
    """An eps taken from finfo(x.dtype) is another one in half precision, so a model that runs in it is tried in it."""
    if dtype not in (torch.float16, torch.bfloat16):
        return True
    width = WIDTH if weight is None else weight.numel()
    x = torch.tensor([0.1, 1.0, 1.0], device=source.device)[:, None] * (source.normal(3, width) + 0.5)
    lead = {2: (3,), 3: (1, 3), 4: (1, 1, 3)}[min(found.ranks or {2})]
    halves = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    out = attempt(with_tensors(module, halves), x.to(dtype).reshape(*lead, width))
    if out is None or out.dtype is not dtype:
        return False
    eps = found.options.get("eps")
    expected = _norm(x, weight, bias, eps, found.op == "layernorm") if isinstance(eps, float) else x.softmax(-1)
    return close(out.reshape(x.shape), expected, HALF)
