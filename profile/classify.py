"""What kind of work an event is: by the operator that launched it, then by its kernel's name, then by its module.

The ways agree on the names of the twelve operations; what is none of them has a kind that says what it is
(elementwise, copy, index, ...), and "other" is left for what nobody recognises.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

Sizes = Sequence[int]

OPERATIONS = frozenset(
    {
        *("matmul", "linear", "softmax", "layernorm", "rmsnorm", "flash_attention", "flash_attention_gqa"),
        *("fused_mlp", "cross_entropy", "rotary_embedding", "reduce", "reduce_max"),
    }
)

DTYPE_OF = {
    "float": "fp32",
    "c10::BFloat16": "bf16",
    "c10::Half": "fp16",
    "double": "fp64",
    "long int": "int64",
    "long": "int64",
    "int": "int32",
    "bool": "bool",
    "signed char": "int8",
    "unsigned char": "uint8",
    "c10::complex<float>": "complex64",
    "c10::Float8_e4m3fn": "fp8_e4m3",
    "c10::Float8_e5m2": "fp8_e5m2",
}


@dataclass(frozen=True)
class Work:
    """One call of an operation: its sizes in the operation's convention; `batch` products of that size in a bmm."""

    op: str
    shape: tuple[int, ...]
    options: dict[str, object] = field(default_factory=dict)
    batch: int = 1


def classify_op(name: str, shapes: Sequence[Sizes], values: Sequence[object]) -> Work | None:
    """The operation that an ATen call computes, or None: it is none of ours, or not in the form ours is defined for.

    `shapes` are the arguments' sizes, [] for what is no tensor; `values` its plain arguments, None for tensors.
    """
    base = name.removeprefix("aten::").split(".")[0]
    if name == base:
        return None
    if base in _PRODUCTS:
        return _product(*(tuple(s) for s in shapes[_PRODUCTS[base] :][:2]))
    for prefix, read in _READERS:
        if base in prefix:
            return read(base, shapes, values)
    return None


def classify_kernel(name: str) -> str:
    """The kind of a device kernel by its name: one of the twelve operations, a kind of plumbing, or 'other'."""
    lowered = name.lower()
    return next((kind for kind, pattern in _KERNELS if pattern.search(lowered)), "other")


def classify_module(class_name: str) -> str | None:
    """What a module's class claims to compute. A claim only: it names time that nothing else explains."""
    return next((op for op, pattern in _MODULES if pattern.search(class_name)), None)


def short_name(kernel: str) -> str:
    """A kernel's name without return type, arguments and template arguments; of CUTLASS's wrapper, what it wraps."""
    wrapped = re.search(r"(?:cutlass|ck)::\w*[Kk]ernel\w*<\s*([\w:]+)", kernel)
    text = wrapped.group(1) if wrapped else kernel.replace("(anonymous namespace)::", "")
    while (bare := re.sub(r"<[^<>]*>", "", text)) != text:  # from the innermost outward
        text = bare
    text = re.split(r"[<(]", text)[0].strip()
    if "::" not in text and not text.startswith("void "):
        return text or kernel[:60]
    *spaces, name = text.split()[-1].split("::")
    return f"{spaces[-1]}::{name}" if spaces and name.lower() in ("kernel", "run") else name


def dtype_of(dtypes: Sequence[str]) -> str:
    """The number format of the first tensor argument."""
    named = [DTYPE_OF[d] for d in dtypes if d in DTYPE_OF]
    return named[0] if named else "-"


def first_shape(shapes: Sequence[Sizes]) -> tuple[int, ...]:
    return next((tuple(s) for s in shapes if len(s)), ())


# Where in the arguments the two matrices stand.
_PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "_addmm_activation": 1, "baddbmm": 1, "_scaled_mm": 0, "_int_mm": 0}


def _product(a: tuple[int, ...], b: tuple[int, ...]) -> Work | None:
    if len(a) != len(b) or len(a) not in (2, 3):
        return None
    return Work("matmul", (a[-2], b[-1], a[-1]), batch=a[0] if len(a) == 3 else 1)


def _linear(_: str, shapes: Sequence[Sizes], __: Sequence[object]) -> Work | None:
    x, weight, bias = shapes[0], shapes[1], shapes[2] if len(shapes) > 2 else []
    if len(weight) != 2 or not x:
        return None
    return Work("linear", (prod(x[:-1]), weight[0], weight[1], int(len(bias) == 1)))


def _attention(base: str, shapes: Sequence[Sizes], values: Sequence[object]) -> Work | None:
    q, k = shapes[0], shapes[1]
    if len(q) != 4 or len(k) != 4:
        return None
    at = 5 if base in _CAUSAL_IS_SIXTH else 4
    causal = len(values) > at and values[at] is True
    (batch, heads, rows, dim), (kv_heads, columns) = q, k[1:3]
    if heads != kv_heads:
        return Work("flash_attention_gqa", (batch, heads, kv_heads, rows, columns, dim), {"causal": causal})
    lengths = (rows,) if rows == columns else (rows, columns)
    return Work("flash_attention", (batch, heads, *lengths, dim), {"causal": causal})


def _softmax(_: str, shapes: Sequence[Sizes], values: Sequence[object]) -> Work | None:
    x = shapes[0]
    if not x or len(values) < 2 or values[1] not in (-1, len(x) - 1):
        return None
    return Work("softmax", (prod(x[:-1]), x[-1]))


def _norm(base: str, shapes: Sequence[Sizes], values: Sequence[object]) -> Work | None:
    over = values[1] if len(values) > 1 else None
    if not shapes[0] or not isinstance(over, (list, tuple)) or len(over) != 1:
        return None
    op = "rmsnorm" if "rms" in base else "layernorm"
    return Work(op, (prod(shapes[0][:-1]), shapes[0][-1]))


def _cross_entropy(_: str, shapes: Sequence[Sizes], __: Sequence[object]) -> Work | None:
    logits, targets = shapes[0], shapes[1]
    return Work("cross_entropy", tuple(logits)) if len(logits) == 2 and len(targets) == 1 else None


def _reduction(base: str, shapes: Sequence[Sizes], values: Sequence[object]) -> Work | None:
    x, dim = shapes[0], values[1] if len(values) > 1 else None
    last = dim[0] if isinstance(dim, (list, tuple)) and len(dim) == 1 else dim
    if not x or isinstance(last, bool) or last not in (-1, len(x) - 1):
        return None
    return Work("reduce" if base == "sum" else "reduce_max", (prod(x[:-1]), x[-1]))


_CAUSAL_IS_SIXTH = {
    "scaled_dot_product_attention",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
}
_READERS = (
    ({"linear"}, _linear),
    (
        _CAUSAL_IS_SIXTH | {"_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu"},
        _attention,
    ),
    ({"softmax", "_softmax", "special_softmax", "_safe_softmax"}, _softmax),
    ({"layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"}, _norm),
    ({"cross_entropy_loss"}, _cross_entropy),
    ({"sum", "amax", "max"}, _reduction),
)

# In order: a fused attention kernel's name also says gemm and softmax, an Inductor kernel's lists all that it fused.
_KERNELS = [
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("memcpy", r"^memcpy|copybuffer|^__amd_rocclr_copy"),
        ("memset", r"^memset|fillbuffer|^__amd_rocclr_fill"),
        ("communication", r"nccl|rccl|all_?reduce_kernel|all_?gather|reduce_?scatter|symm_mem"),
        ("flash_attention", r"flash_?(fwd|attn|attention)|fmha|attention|attn_fwd|flash::|mha_fwd|sdpa"),
        ("rotary_embedding", r"rotary|rope(_|\b)|_rope"),
        ("cross_entropy", r"cross_?entropy|nll_loss"),
        ("rmsnorm", r"rms_?norm"),
        ("layernorm", r"layer_?norm|vectorized_layer_norm|rowwisemoments|\bln_(fwd|fwd_kernel)"),
        ("log_softmax", r"log_?soft_?max"),
        ("softmax", r"soft_?max"),
        ("fused_mlp", r"swiglu|geglu|fused_mlp"),
        ("convolution", r"conv|implicit_gemm|winograd|wgrad|dgrad|fprop|nchwtonhwc|nhwctonchw"),
        (
            "matmul",
            r"gemm|nvjet|cijk_|gemv|cublaslt|cublas.*split|splitkreduce|matmul|_mm_kernel|triton_tem_fused.*mm|xmma",
        ),
        ("normalization", r"batch_?norm|bn_fw|group_?norm|instance_?norm"),
        ("pooling", r"pool"),
        ("embedding", r"embedding"),
        ("index", r"index|gather|scatter|take_|masked_"),
        ("sort", r"sort|topk|radix|bitonic"),
        ("scan", r"scan|cumsum|cumprod"),
        ("random", r"distribution|philox|dropout|random"),
        ("copy", r"catarray|copy_kernel|direct_copy|transpose|permute|cat_batched|bfloat16_copy|float_copy"),
        ("reduce_max", r"reduce_kernel.*maxops|triton_(red|per)_fused_amax_\d+$"),
        ("reduce", r"reduce_kernel.*sum_functor|triton_(red|per)_fused_sum_\d+$"),
        ("reduction", r"reduce_\w*kernel|triton_(red|per)_|devicereduce"),
        ("elementwise", r"elementwise|triton_poi_|pointwise|unrolled_|fill|vectorized"),
    )
]

_MODULES = [
    (op, re.compile(pattern, re.IGNORECASE))
    for op, pattern in (
        ("rmsnorm", r"rms_?norm"),
        ("layernorm", r"layer_?norm"),
        ("softmax", r"soft_?max"),
        ("rotary_embedding", r"rotary|rope"),
        ("fused_mlp", r"swiglu|geglu|gated_?mlp"),
        ("cross_entropy", r"cross_?entropy"),
        ("flash_attention", r"attention|attn"),
        ("linear", r"linear"),
    )
]
