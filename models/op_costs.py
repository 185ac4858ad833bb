"""What each operation must at least do: its arithmetic, and its bytes with every input read and output written once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Shape = tuple[int, ...]
Options = Mapping[str, object]


def flops(op: str, shape: Shape, options: Options | None = None) -> float:
    """Operations of one call; attention counts only the pairs that a causal mask leaves."""
    return float(_row(op)[0](tuple(shape), options or {}))


def bytes_moved(op: str, shape: Shape, itemsize: int, options: Options | None = None) -> float:
    """Bytes of one call between memory and chip when nothing is read or written twice; `itemsize` is the dtype's."""
    return float(_row(op)[1](tuple(shape), itemsize, options or {}))


def attention_sizes(shape: Shape) -> tuple[int, int, int, int, int, int]:
    """(B, H, Hkv, Sq, Skv, D) of any of the attention shapes: (B,H,S,D), (B,H,Sq,Skv,D), (B,H,Hkv,Sq,Skv,D)."""
    if len(shape) == 4:
        b, h, s, d = shape
        return b, h, h, s, s, d
    if len(shape) == 5:
        b, h, sq, skv, d = shape
        return b, h, h, sq, skv, d
    b, h, hkv, sq, skv, d = shape
    return b, h, hkv, sq, skv, d


def _row(op: str) -> tuple[Callable[..., float], Callable[..., float]]:
    if op not in _COSTS:
        raise KeyError(f"no costs are known for operation '{op}'; known: {', '.join(_COSTS)}")
    return _COSTS[op]


def _attention_flops(shape: Shape, options: Options) -> float:
    b, h, _, sq, skv, d = attention_sizes(shape)
    pairs: float = sq * skv
    if options.get("causal", True):  # aligned top-left: query i sees keys 0..i
        square = min(sq, skv)
        pairs = square * square / 2 + (sq - square) * skv
    return 4.0 * b * h * d * pairs


def _attention_bytes(shape: Shape, item: int, options: Options) -> float:
    b, h, hkv, sq, skv, d = attention_sizes(shape)
    seen = min(sq, skv) if options.get("causal", True) else skv  # keys past the last query are never needed
    return item * b * d * (2 * h * sq + 2 * hkv * seen)


def _linear_bytes(shape: Shape, item: int, _options: Options) -> float:
    m, n, k = shape[:3]
    return item * (m * k + n * k + m * n + (n if shape[3:] == (1,) else 0))


def _linear_flops(shape: Shape, _options: Options) -> float:
    m, n, k = shape[:3]
    return 2 * m * n * k + (m * n if shape[3:] == (1,) else 0)


_COSTS: dict[str, tuple[Callable[..., float], Callable[..., float]]] = {
    "matmul": (
        lambda s, _: 2 * s[0] * s[1] * s[2],
        lambda s, item, _: item * (s[0] * s[2] + s[2] * s[1] + s[0] * s[1]),
    ),
    "linear": (_linear_flops, _linear_bytes),
    "softmax": (lambda s, _: 5 * s[0] * s[1], lambda s, item, _: item * 2 * s[0] * s[1]),
    "layernorm": (lambda s, _: 8 * s[0] * s[1], lambda s, item, _: item * (2 * s[0] * s[1] + 2 * s[1])),
    "rmsnorm": (lambda s, _: 6 * s[0] * s[1], lambda s, item, _: item * (2 * s[0] * s[1] + s[1])),
    "flash_attention": (_attention_flops, _attention_bytes),
    "flash_attention_gqa": (_attention_flops, _attention_bytes),
    "fused_mlp": (
        lambda s, _: 6 * s[0] * s[1] * s[2],
        lambda s, item, _: item * (2 * s[0] * s[1] + 3 * s[1] * s[2]),
    ),
    "cross_entropy": (lambda s, _: 4 * s[0] * s[1], lambda s, item, _: item * (s[0] * s[1] + 1) + 8 * s[0]),
    "rotary_embedding": (
        lambda s, _: 3 * s[0] * s[1] * s[2] * s[3],
        lambda s, item, _: item * (2 * s[0] * s[1] * s[2] * s[3] + s[2] * s[3]),
    ),
    "reduce": (lambda s, _: s[0] * s[1], lambda s, item, o: item * (s[0] * s[1] + _kept(s, o))),
    "reduce_max": (lambda s, _: s[0] * s[1], lambda s, item, o: item * (s[0] * s[1] + _kept(s, o))),
}


def _kept(shape: Shape, options: Options) -> int:
    return shape[1] if options.get("dim", -1) in (0, -2) else shape[0]
