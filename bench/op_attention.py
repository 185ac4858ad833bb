"""What both attention operations share: the definition, the way models write it, its rounding errors and its inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from op_inputs import cast, log_uniform, normal, signs, uniform, unknown_kind

from op import Inputs

Tensor = torch.Tensor
SCORES_AT_ONCE = 1 << 26  # float64 scores held at a time: half a GiB a matrix
STABILITY = ("large_logits", "identical_keys", "low_logits")


def reference(q: Tensor, k: Tensor, v: Tensor, causal: bool = True, sm_scale: float | None = None) -> Tensor:
    def one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(_scores(q, k, causal, sm_scale), dim=-1) @ v

    return _by_heads(one, q, k, v)


def eager(q: Tensor, k: Tensor, v: Tensor, causal: bool = True, sm_scale: float | None = None) -> Tensor:
    """As models write it: scores and probabilities in the inputs' dtype, softmax in fp32."""
    k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
    return torch.softmax(_scores(q, k, causal, sm_scale).float(), dim=-1).to(q.dtype) @ v


def vendor(q: Tensor, k: Tensor, v: Tensor, causal: bool = True, sm_scale: float | None = None) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=causal, scale=sm_scale, enable_gqa=grouped
    )


def roundings(q: Tensor, k: Tensor, v: Tensor, causal: bool = True, sm_scale: float | None = None) -> Tensor:
    """Independent relative errors of scores and probabilities, carried to the output.

    A score's error shifts weight from the row's other keys: where one key has all the weight, it moves nothing.
    """

    def one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = _scores(q, k, causal, sm_scale)
        p = torch.softmax(scores, dim=-1)
        out = p @ v
        scale = q.shape[-1] ** -0.5 if sm_scale is None else sm_scale
        shift = scores.square().nan_to_num(posinf=0.0) + (q.square() @ k.square().transpose(-2, -1)) * scale**2
        shifted = p.square() * shift
        moved = shifted @ v.square() - 2 * out * (shifted @ v) + out.square() * shifted.sum(-1, keepdim=True)
        return (p.square() @ v.square() + moved.clamp_min(0)).sqrt()

    return _by_heads(one, q, k, v)


def inputs(sizes: tuple[int, int, int, int, int, int], dtype: torch.dtype, g: torch.Generator, kind: str) -> Inputs:
    b, h, hkv, sq, skv, d = sizes
    q, k, v = normal(g, b, h, sq, d), normal(g, b, hkv, skv, d), normal(g, b, hkv, skv, d)
    if kind == "normal":
        q = q * log_uniform(g, 0.5, 3.0, b, h, 1, 1)  # from nearly uniform attention to a few keys
        v = v + 0.5 + 2 * _strong_tenth(g, b, hkv, skv)
    elif kind == "large_logits":  # each query points at one key it may see: exp of its score overflows fp32
        k = k / k.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        seen = torch.arange(sq, device=g.device).clamp_max(max(0, skv - 1)) + 1
        chosen = (uniform(g, 0.0, 1.0, b, h, sq) * seen).long().clamp_max(max(0, skv - 1))
        wide = repeat_heads(k, h)
        q = torch.gather(wide, 2, chosen.unsqueeze(-1).expand(b, h, sq, d)) * (120.0 * d**0.5)
    elif kind == "identical_keys":  # equal scores: the output is the running mean of v
        k = k[:, :, :1].expand_as(k)
    elif kind == "low_logits":  # all scores equal, near -200: every exp underflows without the max-subtraction
        direction = signs(g, 1, 1, 1, d)
        k, q = (direction * 4).expand_as(k), direction * -uniform(g, 45.0, 55.0, b, h, sq, 1) / d**0.5
        v = v + 1.0
    else:
        raise unknown_kind("attention", kind)
    return cast(dtype, q, k, v)


def repeat_heads(x: Tensor, heads: int) -> Tensor:
    """Each key/value head serves a run of consecutive query heads."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _scores(q: Tensor, k: Tensor, causal: bool, sm_scale: float | None) -> Tensor:
    scores = (q @ k.transpose(-2, -1)) * (q.shape[-1] ** -0.5 if sm_scale is None else sm_scale)
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores


def _by_heads(one: Callable[[Tensor, Tensor, Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Some heads at a time: all float64 scores of a long sequence together would not fit beside the model."""
    b, h, sq, d = q.shape
    k, v = repeat_heads(k, h), repeat_heads(v, h)
    flat = [t.reshape(b * h, -1, d) for t in (q, k, v)]
    step = max(1, SCORES_AT_ONCE // max(1, sq * k.shape[2]))
    parts = [one(*(t[i : i + step] for t in flat)) for i in range(0, b * h, step)]
    return torch.cat(parts).reshape(b, h, sq, d) if parts else torch.zeros_like(q)


def _strong_tenth(g: torch.Generator, b: int, h: int, length: int) -> Tensor:
    """1 on a tenth of the keys, elsewhere 0: at a place of each head's own, and at the end in every other head."""
    width = max(1, length // 10)
    start = torch.randint(0, max(1, length), (b * h, 1), generator=g, device=g.device)
    start[::2] = length - width
    inside = (torch.arange(length, device=g.device) - start) % max(1, length) < width
    return inside.float().reshape(b, h, length, 1)
