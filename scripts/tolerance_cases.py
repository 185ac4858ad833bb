"""Which implementations of tolerance_corpus.py are honest, which cheat, and on what inputs that must show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import tolerance_corpus as c
import torch
import torch.nn.functional as F
from tolerance_corpus import ALL, HALF, Impl, Tensor, most

FP32 = ("fp32",)


@dataclass(frozen=True)
class Cheat:
    name: str
    run: Impl
    kind: str = "normal"
    dtypes: tuple[str, ...] = ALL


def half_of(x: Tensor) -> torch.dtype:
    return torch.bfloat16 if x.dtype == torch.float32 else x.dtype


def transposed(run: Impl) -> Impl:
    """linear's layout of a product."""
    return lambda x, weight, bias=None: (
        run(x, weight.T) if bias is None else (run(x, weight.T).float() + bias.float()).to(x.dtype)
    )


def in_dtype(x: Tensor, w: Tensor, block: int) -> Tensor:
    return c.product(x, w, block, x.dtype)


def with_tf32(a: Tensor, b: Tensor) -> Tensor:
    return c.tf32(a) @ c.tf32(b)


def first_k(a: Tensor, b: Tensor) -> Tensor:
    return a[:, : most(a.shape[1])] @ b[: most(a.shape[1])]


def unshifted_softmax(x: Tensor) -> Tensor:
    e = x.float().exp()
    return (e / e.sum(-1, keepdim=True)).to(x.dtype)


def partial_softmax(x: Tensor) -> Tensor:
    wide = x.float()
    return (wide - torch.logsumexp(wide[:, : most(x.shape[1])], -1, keepdim=True)).exp().to(x.dtype)


def rms_terms(x: Tensor, w: Tensor, eps: float = 1e-6) -> Tensor:
    return c.rms(x, w, eps, most(x.shape[1]))


def layer_terms(x: Tensor, w: Tensor, b: Tensor, eps: float = 1e-5) -> Tensor:
    return c.layer(x, w, b, eps, most(x.shape[1]))


def half_layout(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The other convention, which pairs element i with i + D/2."""
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), -1)


PRODUCT_HONEST = {
    "fp32 sums over blocks of 32": lambda a, b: c.product(a, b, 32, torch.float32),
    "one fp32 addition per term": lambda a, b: c.product(a, b, 1, torch.float32),
    "split-K 4, partial sums in the dtype": lambda a, b: in_dtype(a, b, -(-a.shape[1] // 4)),
}
PRODUCT_CHEATS = (
    ("first 90 % of K", first_k, ALL),
    ("sums kept in the dtype", lambda a, b: in_dtype(a, b, 4), HALF),
    ("operands rounded to TF32", with_tf32, FP32),
    ("operands rounded to bf16", lambda a, b: (a.bfloat16() @ b.bfloat16()).float(), FP32),
)
ATTENTION_HONEST = {
    "online softmax, P in the dtype": c.attention,
    "online softmax, all fp32": partial(c.attention, narrow=lambda t: t),
}
ATTENTION_CHEATS = (
    Cheat("first 90 % of the keys", partial(c.attention, keys=0.9)),
    Cheat("no max-subtraction, overflow", partial(c.attention, shift=False), "large_logits"),
    Cheat("no max-subtraction, underflow", partial(c.attention, shift=False), "low_logits"),
    Cheat("mask ignored", lambda q, k, v, causal=True, sm_scale=None: c.attention(q, k, v, False, sm_scale)),
    Cheat("sm_scale off by 2 %", lambda q, k, v, causal=True, sm_scale=None: c.attention(
        q, k, v, causal, 1.02 * (q.shape[-1] ** -0.5 if sm_scale is None else sm_scale)), dtypes=("fp16", "fp32")),
    Cheat("products in TF32", partial(c.attention, narrow=c.tf32), dtypes=FP32),
)  # fmt: skip

HONEST: dict[str, dict[str, Impl]] = {
    "matmul": PRODUCT_HONEST,
    "linear": {name: transposed(run) for name, run in PRODUCT_HONEST.items()},
    "softmax": {"online over blocks, exp2": c.online_softmax},
    "rmsnorm": {"fp32 throughout": c.rms},
    "layernorm": {"fp32 throughout": c.layer, "rounded after each step": c.layer_rounded},
    "flash_attention": ATTENTION_HONEST,
    "flash_attention_gqa": ATTENTION_HONEST,
    "fused_mlp": {
        "hidden layer in fp32": c.mlp,
        "hidden layer in the dtype": lambda x, *w, **o: c.mlp(x, *w, keep=x.dtype, **o),
    },
    "cross_entropy": {
        "fp32 throughout": c.entropy,
        "losses in the dtype": lambda x, t: c.entropy(x, t, keep=x.dtype),
    },
    "rotary_embedding": {"fp32 throughout": c.rotary},
    "reduce": {"one fp32 addition per term": c.in_order, "fp32 sums over blocks": c.summed},
    "reduce_max": {"through fp32": lambda x, dim=-1: x.float().amax(dim).to(x.dtype)},
}

CHEATS: dict[str, tuple[Cheat, ...]] = {
    "matmul": tuple(Cheat(n, run, "normal", d) for n, run, d in PRODUCT_CHEATS),
    "linear": (
        *(Cheat(n, transposed(run), "normal", d) for n, run, d in PRODUCT_CHEATS),
        Cheat("bias ignored", lambda x, w, b=None: F.linear(x, w)),
    ),
    "softmax": (
        Cheat("no max-subtraction, overflow", unshifted_softmax, "large"),
        Cheat("no max-subtraction, underflow", unshifted_softmax, "large_negative"),
        Cheat("sum over the first 90 %", partial_softmax),
    ),
    "rmsnorm": (
        Cheat("mean over the first 90 %", rms_terms),
        Cheat("eps ignored", lambda x, w, eps=1e-6: c.rms(x, w, 0.0)),
        Cheat("eps of another model", lambda x, w, eps=1e-6: c.rms(x, w, 1e-5)),
        Cheat("weight ignored", lambda x, w, eps=1e-6: c.rms(x, torch.ones_like(w), eps)),
        Cheat("squares in the dtype", lambda x, w, eps=1e-6: (
            x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * w), "large", ("fp16",)),
    ),
    "layernorm": (
        Cheat("statistics of the first 90 %", layer_terms),
        Cheat("mean taken as 0", lambda x, w, b, eps=1e-5: (c.rms(x, w, eps).float() + b.float()).to(x.dtype)),
        Cheat("eps ignored", lambda x, w, b, eps=1e-5: c.layer(x, w, b, 0.0)),
        Cheat("weight ignored", lambda x, w, b, eps=1e-5: c.layer(x, torch.ones_like(w), b, eps)),
        Cheat("bias ignored", lambda x, w, b, eps=1e-5: c.layer(x, w, torch.zeros_like(b), eps)),
        Cheat("E[x^2] - mean^2", c.layer_one_pass, "big_offset", FP32),
    ),
    "flash_attention": ATTENTION_CHEATS,
    "flash_attention_gqa": (
        *ATTENTION_CHEATS,
        Cheat("heads taken round-robin", lambda q, k, v, **o: c.attention(
            q, *(t.repeat(1, q.shape[1] // t.shape[1], 1, 1) for t in (k, v)), **o)),
    ),
    "fused_mlp": (
        Cheat("first 90 % of the hidden layer", partial(c.mlp, hidden=0.9)),
        Cheat("gate without activation", lambda x, g, u, d, activation="silu": ((x @ g.T) * (x @ u.T)) @ d.T),
        Cheat("gelu for silu", lambda x, g, u, d, activation="silu": c.mlp(x, g, u, d, "gelu")),
        Cheat("products in TF32", partial(c.mlp, narrow=c.tf32), dtypes=FP32),
    ),
    "cross_entropy": (
        Cheat("first 90 % of the rows", partial(c.entropy, rows=0.9)),
        Cheat("an eighth of the rows", lambda x, t: c.entropy(x[::8], t[::8])),
        Cheat("first 90 % of the classes", partial(c.entropy, columns=0.9)),
        Cheat("no max-subtraction, overflow", partial(c.entropy, shift=False), "large"),
        Cheat("no max-subtraction, underflow", partial(c.entropy, shift=False), "large_negative"),
    ),
    "rotary_embedding": (
        Cheat("halves instead of pairs", half_layout),
        Cheat("angle's sign", lambda x, cos, sin: c.rotary(x, cos, -sin)),
        Cheat("sin from cos", lambda x, cos, sin: c.rotary(x, cos, (1 - cos.float().square()).clamp_min(0).sqrt())),
    ),
    "reduce": (
        Cheat("first 90 % of the terms", c.first_terms(c.summed)),
        Cheat("sum kept in fp16 or bf16", lambda x, dim=-1: c.summed(x, dim, block=8, keep=half_of(x))),
        Cheat("the same, all terms positive", lambda x, dim=-1: c.summed(x, dim, block=8, keep=half_of(x)), "positive"),
    ),
    "reduce_max": (
        Cheat("first 90 % of the terms", c.first_terms(lambda x, dim: x.amax(dim))),
        Cheat("starts from 0", lambda x, dim=-1: x.amax(dim).clamp_min(0), "all_negative"),
        Cheat("through bf16", lambda x, dim=-1: x.bfloat16().amax(dim).to(x.dtype), dtypes=("fp16", "fp32")),
    ),
}  # fmt: skip


def cheats_on(run: Impl) -> tuple[Cheat, ...]:
    """What can be tried on every operation, given an honest implementation to spoil."""

    def rows(*inputs: Tensor, **options: object) -> Tensor:
        out = run(*inputs, **options).clone()
        flat = out.reshape(-1)
        flat[most(flat.numel()) if flat.numel() > 1 else 0 :] = 0
        return out

    return (
        Cheat("zeros", lambda *inputs, **options: torch.zeros_like(run(*inputs, **options))),
        Cheat("constant", lambda *i, **o: (r := run(*i, **o)).float().mean().expand(r.shape).to(r.dtype) * 0.9),
        Cheat("first 90 % of the output", rows),
        Cheat("off by 5 %", lambda *inputs, **options: run(*inputs, **options) * 1.05),
    )
