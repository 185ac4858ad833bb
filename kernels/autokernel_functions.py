"""torch's own functions as operations: their arguments as torch names them, and the operation's call that they are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import torch
import torch.nn.functional as F
from autokernel_calls import Call, Match, flatten, layernorm, linear, rmsnorm, same, softmax
from torch import Tensor


def attention(gqa: bool) -> Match:
    """F.scaled_dot_product_attention as flash_attention, or as flash_attention_gqa where the code asks for grouping."""

    def match(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Call | None:
        if attn_mask is not None or dropout_p or query.dim() != 4 or key.shape != value.shape or key.dim() != 4:
            return None
        (batch, heads, sq, dim), (kv_batch, kv_heads, skv, kv_dim) = query.shape, key.shape
        if skv == 0:
            return None
        grouped = gqa and enable_gqa and heads % max(kv_heads, 1) == 0
        if batch != kv_batch or dim != kv_dim or (heads != kv_heads and not grouped):
            return None
        options: dict[str, object] = {"causal": bool(is_causal)}
        if scale is not None:
            options["sm_scale"] = float(scale)
        shape = (batch, heads, sq, dim) if sq == skv else (batch, heads, sq, skv, dim)
        return Call((query, key, value), options, (batch, heads, kv_heads, sq, skv, dim) if gqa else shape, same)

    return match


def _functional_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Call | None:
    return softmax_over(input, dim, dtype)


def softmax_over(input: Tensor, dim: int | None, dtype: torch.dtype | None = None) -> Call | None:
    if dim not in (-1, input.dim() - 1) or dtype not in (None, input.dtype):
        return None
    return softmax(input)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Call | None:
    if tuple(input.shape[-len(normalized_shape) :]) != tuple(normalized_shape):
        return None
    return layernorm(input, weight, bias, eps=eps, cols=prod(normalized_shape))


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Call | None:
    if len(normalized_shape) != 1 or input.shape[-1] != normalized_shape[0]:
        return None
    return rmsnorm(input, weight, eps=_default_eps(input.dtype, input.device) if eps is None else eps)


@lru_cache
def _default_eps(dtype: torch.dtype, device: torch.device) -> float:
    """torch takes it from the input's dtype or from fp32, which differs by version and device; its output tells."""
    out = float(F.rms_norm(torch.full((1, 1), 0.01, dtype=dtype, device=device), (1,)))
    return torch.finfo(torch.float32 if out > 0.5 else dtype).eps


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Call | None:
    return linear(input, weight, bias)


def _matmul(input: Tensor, other: Tensor) -> Call | None:
    if input.dim() != 2 or other.dim() != 2 or input.shape[1] != other.shape[0]:
        return None
    return Call((input, other), {}, (input.shape[0], other.shape[1], input.shape[1]), same)


def _mm(input: Tensor, mat2: Tensor) -> Call | None:
    return _matmul(input, mat2)


def _amax(input: Tensor, dim: int, keepdim: bool = False) -> Call | None:
    return _reduce(input, dim, keepdim)


def _sum(input: Tensor, dim: int, keepdim: bool = False, dtype: torch.dtype | None = None) -> Call | None:
    return None if dtype not in (None, input.dtype) else _reduce(input, dim, keepdim)


def _reduce(x: Tensor, dim: int, keepdim: bool) -> Call | None:
    if not isinstance(dim, int) or x.dim() == 0 or x.shape[-1] == 0 or dim not in (-1, x.dim() - 1):
        return None
    cols, leading = x.shape[-1], x.shape[:-1]
    flat = flatten(x, cols)
    shape = (*leading, 1) if keepdim else leading
    return Call((flat,), {"dim": -1}, tuple(flat.shape), lambda out: out.reshape(shape))


# what a forward may call, and the operation it then is; attention is apart, for it is one of two
FUNCTIONS: dict[object, tuple[str, Match]] = {
    F.softmax: ("softmax", _functional_softmax),
    torch.softmax: ("softmax", softmax_over),
    F.layer_norm: ("layernorm", layer_norm),
    torch.layer_norm: ("layernorm", layer_norm),
    F.rms_norm: ("rmsnorm", rms_norm),
    torch.rms_norm: ("rmsnorm", rms_norm),
    F.linear: ("linear", _linear),
    torch.matmul: ("matmul", _matmul),
    torch.mm: ("matmul", _mm),
    torch.sum: ("reduce", _sum),
    torch.amax: ("reduce_max", _amax),
}
