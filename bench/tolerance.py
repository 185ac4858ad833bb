"""How far an output may be from the float64 reference, per element and as a whole; calibrated in docs/tolerances.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from op import Case, Op

C1 = 4.0  # elementwise: multiples of the error scale
C2 = 2.5  # normwise: multiples of eager's error in the same dtype on the same input
FLOOR = 0.5  # normwise: and this much of the error scale's own norm, where eager happens to be nearly exact
SHARE = 0.5  # elementwise: of what is allowed, that eager's own error takes at most where nobody derived a bound
BLOCK = {True: 1 << 26, False: 1 << 16}  # elements looked at together, on a GPU and on a CPU
TF32_ROUNDOFF = 2.0**-10  # some tensor cores truncate fp32 operands to TF32's 11 bits instead of rounding them


@dataclass(frozen=True)
class Outcome:
    ok: bool
    worst: float  # largest error as a fraction of what is allowed; inf when no number can say it
    max_abs_err: float  # inf when the output is not finite where it should be
    detail: str  # '' when ok; else index, expected, got, allowed, and how many elements are wrong


@dataclass(frozen=True)
class Tolerance:
    """What one call's output is compared with."""

    label: str  # operation, shape, options and dtype, for the detail
    reference: torch.Tensor  # float64
    limit: torch.Tensor  # float64, same shape: allowed |error| per element
    norm_limit: float  # allowed ||error|| over the finite elements
    eager_error: float | None  # ||error|| of eager, None when it was not given or is not finite
    dtype: torch.dtype
    widened: float = 1.0  # `limit`, by as much as eager would have been past its share
    first: int = 0  # where the reference is of some rows of a larger output: the number of the first of them

    def judge(self, out: torch.Tensor) -> Outcome:
        """Is this output right? Shape and dtype must be the reference's and the inputs'."""
        if tuple(out.shape) != tuple(self.reference.shape) or out.dtype != self.dtype:
            expected = f"{list(self.reference.shape)} {_short(self.dtype)}"
            return _bad(f"{self.label}: expected an output {expected}, got {list(out.shape)} {_short(out.dtype)}")
        if out.numel() == 0:
            return Outcome(True, 0.0, 0.0, "")
        out = out.detach().to(self.reference.device)
        squares, tops, ratios = list[torch.Tensor](), list[torch.Tensor](), list[torch.Tensor]()
        for got, want, room in _blocks(out, self.reference, self.limit):
            error = got.double().sub_(want).abs_()
            squares.append(torch.dot(error, error))
            tops.append(error.max())
            ratios.append(error.div_(room).max())
        worst, max_abs = (float(torch.stack(parts).max()) for parts in (ratios, tops))
        if worst <= 1:  # the usual case, in few passes; never true with a NaN about
            return self._as_a_whole(worst, float(torch.stack(squares).sum().sqrt()), max_abs)
        return self._element_by_element(out.double())

    def _element_by_element(self, got: torch.Tensor) -> Outcome:
        """The same with care for what is not finite, and with words for what is wrong."""
        finite = self.reference.isfinite()
        error = torch.where(finite, (got - self.reference).abs(), torch.zeros_like(got))
        # an overflow of the dtype itself is right where the reference, within its tolerance, is past the largest number
        past = finite & (self.reference.abs() + self.limit > torch.finfo(self.dtype).max)
        overflow = past & got.isinf() & (got.sign() == self.reference.sign())
        error = torch.where(overflow, torch.zeros_like(error), error)
        same = torch.where(self.reference.isnan(), got.isnan(), got == self.reference)
        odd = torch.where(finite, error.isnan() | error.isinf(), ~same)
        ratio = torch.where(error == 0, torch.zeros_like(error), error / self.limit)
        ratio = torch.where(odd, torch.full_like(ratio, float("inf")), ratio)
        worst = float(ratio.max())
        max_abs = float("inf") if worst == float("inf") else float(error.max())
        if worst > 1:
            flat = int(ratio.argmax())
            index = index_of(flat, self.reference.shape)
            index = (index[0] + self.first, *index[1:]) if index else index
            bad = int((ratio > 1).sum())
            numbers = (self.reference, got, self.limit)
            want, have, room = (float(t.reshape(-1)[flat]) for t in numbers)
            return Outcome(
                False,
                worst,
                max_abs,
                f"{self.label}: worst at {list(index)}: expected {want:.7g}, got {have:.7g}, allowed +-{room:.3g}; "
                f"{bad} of {ratio.numel()} elements are wrong ({100 * bad / ratio.numel():.3g} %)",
            )
        return self._as_a_whole(worst, float(torch.linalg.vector_norm(error)), max_abs)

    def _as_a_whole(self, worst: float, norm: float, max_abs: float) -> Outcome:
        """No element is off by itself; are they together?"""
        share = norm / self.norm_limit if self.norm_limit > 0 else (0.0 if norm == 0 else float("inf"))
        if share > 1:
            size = float(torch.linalg.vector_norm(torch.where(self.reference.isfinite(), self.reference, 0.0))) or 1.0
            eager = "" if self.eager_error is None else f", eager PyTorch has {self.eager_error / size:.3g}"
            return Outcome(
                False,
                share,
                max_abs,
                f"{self.label}: no element is off by itself, but together they are: normwise error {norm / size:.3g}, "
                f"allowed {self.norm_limit / size:.3g}{eager}",
            )
        return Outcome(True, max(worst, share), max_abs, "")


def allowed(
    op: Op,
    case: Case,
    inputs64: Sequence[torch.Tensor | None],
    reference: torch.Tensor,
    eager_out: torch.Tensor | None,
    dtype: torch.dtype,
    allow_tf32: bool = False,
) -> Tolerance:
    """What an honest implementation may be off by: from the dtype, the length of its sums, and eager's own error."""
    scale = error_scale(op, case, inputs64, reference, dtype, allow_tf32)
    scale_norm = float(torch.linalg.vector_norm(scale))
    eager_error = None
    if eager_out is not None and eager_out.shape == reference.shape:
        norm = _distance(eager_out.detach().to(reference.device), reference)
        eager_error = norm if norm < float("inf") else None  # NaN and inf fail this too: no yardstick
    yardstick = scale_norm if eager_error is None else eager_error
    limit, widened = scale.mul_(C1), 1.0
    if op.guessed and eager_out is not None and eager_error is not None:
        widened = max(1.0, _worst(eager_out.detach().to(reference.device), reference, limit) / SHARE)
        limit.mul_(widened)
    # a norm says more than its elements only where there are many; eager may hit a single one by luck
    floor = FLOOR + (C1 - FLOOR) / max(1, reference.numel()) ** 0.5
    return Tolerance(
        label=label_of(op, case, dtype),
        reference=reference,
        limit=limit,
        norm_limit=C2 * yardstick + floor * scale_norm,
        eager_error=eager_error,
        dtype=dtype,
        widened=widened,
    )


def label_of(op: Op, case: Case, dtype: torch.dtype) -> str:
    options = (f"{k}={v}" for k, v in case.options.items())
    return " ".join([op.name, "x".join(map(str, case.shape)), *options, _short(dtype)])


def error_scale(
    op: Op,
    case: Case,
    inputs64: Sequence[torch.Tensor | None],
    reference: torch.Tensor,
    dtype: torch.dtype,
    allow_tf32: bool,
) -> torch.Tensor:
    """One honest error per element: the final rounding, roundings stored on the way, and accumulation in fp32."""
    if op.exact:
        return torch.zeros_like(reference)
    whole = _all_finite(reference)
    size = reference.abs() if whole else reference.nan_to_num(posinf=0.0, neginf=0.0).abs()
    options = {**op.options, **case.options}
    summing = roundoff(torch.float32) * max(1, op.depth(case.shape)) ** 0.5
    scale = size.mul_(roundoff(dtype) + (summing if op.magnitude is None else 0.0)).add_(smallest(dtype))
    if op.magnitude is not None:
        scale.add_(_size(op.magnitude, inputs64, options), alpha=summing)
    if op.roundings is not None:
        tf32 = allow_tf32 and op.matmul_like and dtype == torch.float32
        stored = TF32_ROUNDOFF if tf32 else roundoff(dtype)
        scale.add_(_size(op.roundings, inputs64, options), alpha=stored + summing)
    if not _all_finite(scale):  # no infinite allowance where a neighbour of the element is infinite
        least = reference.nan_to_num(posinf=0.0, neginf=0.0).abs() * roundoff(dtype) + smallest(dtype)
        scale = torch.where(scale.isfinite(), scale, least)
    return scale


def roundoff(dtype: torch.dtype) -> float:
    """Largest relative error of rounding to the dtype."""
    return torch.finfo(dtype).eps / 2


def smallest(dtype: torch.dtype) -> float:
    """Results below this may be flushed to zero; fp16's subnormals are part of its everyday range and may not."""
    return torch.finfo(dtype).smallest_normal * (torch.finfo(dtype).eps if dtype == torch.float16 else 1.0)


def _size(
    formula: Callable[..., torch.Tensor], inputs64: Sequence[torch.Tensor | None], options: dict[str, object]
) -> torch.Tensor:
    """How large errors are need not be known to sixteen digits: in fp32, which is faster, unless that overflows."""
    inputs = [t.float() if t is not None and t.is_floating_point() else t for t in inputs64]
    found = formula(*inputs, **options)
    return found if _all_finite(found) else formula(*inputs64, **options)


def _blocks(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """A stretch of each at a time, flat: it stays in a CPU's cache, and takes no gigabytes of float64 on a GPU."""
    return zip(*(t.reshape(-1).split(BLOCK[t.device.type == "cuda"]) for t in tensors), strict=True)


def _distance(out: torch.Tensor, reference: torch.Tensor) -> float:
    """||out - reference|| over the elements where the reference is finite."""
    total = torch.zeros((), dtype=torch.float64, device=reference.device)
    whole = _all_finite(reference)
    for got, want in _blocks(out, reference):
        difference = got.double().sub_(want)
        if not whole:
            difference = difference[want.isfinite()]
        total += torch.dot(difference, difference)
    return float(total.sqrt())


def _worst(out: torch.Tensor, reference: torch.Tensor, limit: torch.Tensor) -> float:
    """Largest |out - reference| as a share of the limit, over the elements where the reference is finite."""
    ratios = [
        (got.double() - want).abs().div_(room)[want.isfinite()] for got, want, room in _blocks(out, reference, limit)
    ]
    return max((float(ratio.max()) for ratio in ratios if ratio.numel()), default=0.0)


def _all_finite(t: torch.Tensor) -> bool:
    """In one pass without a mask: where a sum is finite, all its terms are; where not, a closer look costs little."""
    return bool(t.sum().isfinite())


def _bad(detail: str) -> Outcome:
    return Outcome(False, float("inf"), float("inf"), detail)


def index_of(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    index = []
    for size in reversed(shape):
        index.append(flat % size)
        flat //= size
    return tuple(reversed(index))


def _short(dtype: torch.dtype) -> str:
    return {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}.get(dtype, str(dtype)[6:])
