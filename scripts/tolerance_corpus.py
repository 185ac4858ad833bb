"""Honest implementations and cheats of each operation, in plain PyTorch: what the tolerances must accept and refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

Tensor = torch.Tensor
Impl = Callable[..., Tensor]
HALF = ("fp16", "bf16")
ALL = ("fp16", "bf16", "fp32")


def blocks(length: int, size: int) -> list[slice]:
    return [slice(i, min(i + size, length)) for i in range(0, length, size)]


def most(length: int) -> int:
    """The first nine tenths."""
    return max(1, int(length * 0.9))


def tf32(x: Tensor) -> Tensor:
    """fp32 rounded to TF32's 11 significant bits."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def product(a: Tensor, b: Tensor, block: int, keep: torch.dtype) -> Tensor:
    """a @ b over blocks of K, the running sum kept in `keep`."""
    total = torch.zeros(*a.shape[:-1], b.shape[-1], dtype=keep)
    for k in blocks(a.shape[-1], block):
        total = (total.float() + a[..., k].float() @ b[..., k, :].float()).to(keep)
    return total.to(a.dtype)


def online_softmax(x: Tensor, block: int = 96) -> Tensor:
    wide, top = x.float() * math.log2(math.e), torch.full((*x.shape[:-1], 1), float("-inf"))
    total = torch.zeros_like(top)
    for c in blocks(x.shape[-1], block):
        new = torch.maximum(top, wide[..., c].amax(-1, keepdim=True))
        safe = new.clamp_min(-1e38)  # a block may be masked whole
        total = total * torch.exp2(top - safe) + torch.exp2(wide[..., c] - safe).sum(-1, keepdim=True)
        top = new
    return (torch.exp2(wide - top) / total).to(x.dtype)


def rms(x: Tensor, weight: Tensor, eps: float = 1e-6, terms: int | None = None) -> Tensor:
    wide = x.float()
    mean = wide[:, :terms].square().mean(-1, keepdim=True)
    return (wide / (mean + eps).sqrt() * weight.float()).to(x.dtype)


def layer(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, terms: int | None = None) -> Tensor:
    wide = x.float()
    var, mean = torch.var_mean(wide[:, :terms], -1, keepdim=True, correction=0)
    return ((wide - mean) * torch.rsqrt(var + eps) * weight.float() + bias.float()).to(x.dtype)


def layer_rounded(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Rounds to the dtype after each of its steps but the statistics."""
    var, mean = torch.var_mean(x.float(), -1, keepdim=True, correction=0)
    return ((x.float() - mean) * torch.rsqrt(var + eps)).to(x.dtype) * weight + bias


def layer_one_pass(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    wide = x.float()
    mean = wide.mean(-1, keepdim=True)
    var = wide.square().mean(-1, keepdim=True) - mean.square()
    return ((wide - mean) * torch.rsqrt(var + eps) * weight.float() + bias.float()).to(x.dtype)


def attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool = True, sm_scale: float | None = None, *,
    keys: float = 1.0, shift: bool = True, narrow: Callable[[Tensor], Tensor] | None = None, block: int = 48,
) -> Tensor:  # fmt: skip
    """Online softmax over blocks of keys with probabilities in the inputs' dtype, as fused kernels do it."""
    groups, skv = q.shape[1] // k.shape[1], max(1, int(k.shape[2] * keys))
    scale = (q.shape[-1] ** -0.5 if sm_scale is None else sm_scale) * math.log2(math.e)
    narrow = narrow or (lambda t: t.to(q.dtype).float())
    q32, k32, v32 = narrow(q.float()), narrow(k.float()), narrow(v.float())
    k32, v32 = (t.repeat_interleave(groups, 1) for t in (k32, v32))
    top = torch.full((*q.shape[:-1], 1), float("-inf") if shift else 0.0)
    total, out = torch.zeros_like(top), torch.zeros(q.shape)
    rows = torch.arange(q.shape[2]).unsqueeze(1)
    for c in blocks(skv, block):
        s = q32 @ k32[:, :, c].transpose(-2, -1) * scale
        if causal:
            s = s.masked_fill(torch.arange(c.start, c.stop) > rows, float("-inf"))
        new = torch.maximum(top, s.amax(-1, keepdim=True)) if shift else top
        p, fade = torch.exp2(s - new), torch.exp2(top - new)
        total, out, top = total * fade + p.sum(-1, keepdim=True), out * fade + narrow(p) @ v32[:, :, c], new
    return (out / total).to(q.dtype)


def mlp(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor, activation: str = "silu", *, hidden: float = 1.0,
        narrow: Callable[[Tensor], Tensor] = lambda t: t, keep: torch.dtype = torch.float32) -> Tensor:  # fmt: skip
    acts = {"silu": F.silu, "gelu": lambda t: F.gelu(t, approximate="tanh"), "relu": F.relu}
    h = max(1, int(w_gate.shape[0] * hidden))
    x32, gate, up, down = (narrow(t.float()) for t in (x, w_gate[:h], w_up[:h], w_down[:, :h]))
    inner = (acts[activation](x32 @ gate.T) * (x32 @ up.T)).to(keep).float()
    return (narrow(inner) @ down.T).to(x.dtype)


def entropy(logits: Tensor, targets: Tensor, *, columns: float = 1.0, rows: float = 1.0, shift: bool = True,
            keep: torch.dtype = torch.float32) -> Tensor:  # fmt: skip
    n, c = max(1, int(logits.shape[0] * rows)), max(1, int(logits.shape[1] * columns))
    wide = logits[:n].float()
    top = wide.amax(1, keepdim=True) if shift else torch.zeros(n, 1)
    lse = (wide[:, :c] - top).exp().sum(1).log() + top.squeeze(1)
    losses = (lse - wide.gather(1, targets[:n].unsqueeze(1)).squeeze(1)).to(keep)
    return losses.float().mean().to(logits.dtype)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd, c, s = x[..., ::2].float(), x[..., 1::2].float(), cos.float(), sin.float()
    return torch.stack((even * c - odd * s, even * s + odd * c), -1).flatten(-2).to(x.dtype)


def summed(x: Tensor, dim: int = -1, *, block: int = 64, keep: torch.dtype = torch.float32) -> Tensor:
    """Adds blocks of terms to a running sum kept in `keep`."""
    terms = x.movedim(dim, -1).float()
    total = torch.zeros(terms.shape[:-1], dtype=keep)
    for c in blocks(terms.shape[-1], block):
        total = (total.float() + terms[..., c].sum(-1)).to(keep)
    return total.to(x.dtype)


def first_terms(fn: Impl) -> Impl:
    return lambda x, dim=-1: fn(x.narrow(dim, 0, most(x.shape[dim])), dim)


def in_order(x: Tensor, dim: int = -1) -> Tensor:
    """One fp32 addition after another."""
    return x.float().cumsum(dim).select(dim, -1).to(x.dtype)
