"""Which calls a candidate must get right: stage by stage, from the operation's row and the model's own shapes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from arena import contiguous

from op import DTYPES, SCALED, Case, Inputs, Op, Shape

FREE_IN_ATTENTION = {"B", "S", "Sq", "Skv"}  # heads and head size are architecture, not data
CPU_FP16_FLOPS = 2.0 * 512**3  # torch's fp16 product on a CPU takes seconds beyond this
LAYOUTS = ("transposed", "sliced", "misaligned")


@dataclass(frozen=True)
class Trial:
    case: Case
    dtype: torch.dtype
    kind: str = "normal"
    layout: str = "plain"
    weight: float = 0.0  # share of the model's time, for the shapes that come from it
    empty: bool = False  # no rows
    unpromised: bool = False  # a size at which the operation may have no meaning: then it is skipped


def primary_case(op: Op, shapes: Sequence[Mapping[str, object]], gpu: bool) -> Case:
    """The shape that matters most: the model's heaviest, else the operation's own."""
    cases = model_cases(op, shapes)
    if cases:
        return max(cases, key=lambda item: item[1])[0]
    return whole(op, op.primary if gpu else op.cpu_primary)


def model_cases(op: Op, shapes: Sequence[Mapping[str, object]]) -> list[tuple[Case, float]]:
    return [(whole(op, tuple(s["shape"]), s.get("options") or {}), float(s["weight"])) for s in shapes]  # type: ignore[arg-type]


def whole(op: Op, shape: Shape, options: Mapping[str, object] | None = None) -> Case:
    return Case(tuple(shape), {**op.options, **(options or {})})


class Plan:
    """The trials of one evaluation."""

    def __init__(
        self, op: Op, dtype: str, shapes: Sequence[Mapping[str, object]], gpu: bool, rng: random.Random
    ) -> None:
        self.op, self.gpu, self.rng, self.dtype = op, gpu, rng, DTYPES[dtype]
        self.others = [d for name, d in DTYPES.items() if name != dtype]
        self.own = sorted(op.gpu_shapes if gpu else op.cpu_shapes, key=self._work)
        self.known_edges = list(op.gpu_edges if gpu else op.cpu_edges)
        self.model = model_cases(op, shapes)
        self.primary = primary_case(op, shapes, gpu)

    def smoke(self) -> list[Trial]:
        return [Trial(self._first(), self.dtype)]

    def quick(self) -> list[Trial]:
        return [Trial(self.primary, self.dtype, weight=1.0)]

    def shapes(self) -> list[Trial]:
        """The model's shapes and the operation's in the target's dtype; smaller ones and the variants in the others."""
        trials = [Trial(case, self.dtype, weight=weight) for case, weight in self.model]
        known = {(trial.case.shape, repr(sorted(trial.case.options.items()))) for trial in trials}
        for shape in self.own:
            case = whole(self.op, shape)
            if (case.shape, repr(sorted(case.options.items()))) not in known:
                trials.append(Trial(case, self.dtype))
        small = self.own[: max(2, len(self.own) // 2)]
        trials += [Trial(whole(self.op, shape), dtype) for dtype in self.others for shape in small]
        for variant in self.op.variants:
            trials += [
                Trial(whole(self.op, self.own[at], variant), self.dtype) for at in (0, min(2, len(self.own) - 1))
            ]
        return self._bearable(trials)

    def stability(self) -> list[Trial]:
        middle = whole(self.op, self.own[min(1, len(self.own) - 1)])
        first = self._first()
        trials = [Trial(middle, self.dtype, kind) for kind in self.op.stability]
        chosen = [kind for kind in self.op.stability if kind not in SCALED]  # by somebody, who knows of all dtypes
        trials += [Trial(first, dtype, kind) for dtype in self.others for kind in chosen]
        return self._bearable(trials)

    def edges(self) -> list[Trial]:
        """Sizes that divide by nothing, strides other than the usual, no rows at all, and sizes nobody was told."""
        edges = self.known_edges
        trials = [Trial(whole(self.op, shape), self.dtype) for shape in edges]
        smallest = min(edges, key=self._work) if edges else self.own[0]
        trials += [Trial(whole(self.op, smallest), dtype) for dtype in self.others]
        second = whole(self.op, self.own[min(1, len(self.own) - 1)])
        trials += [Trial(second, self.dtype, layout=layout) for layout in LAYOUTS]
        trials += self._drawn()
        trials.append(Trial(whole(self.op, (0, *self.own[0][1:])), self.dtype, empty=True, unpromised=True))
        return self._bearable(trials)

    def _drawn(self) -> list[Trial]:
        """At sizes nobody was told: the primary's twice, and a small one in the other dtypes."""
        cases = [self._smaller(self.primary, pick) for pick in (self._odd, self._any)]
        if self.op.guessed:  # nobody said which of its sizes are free: each by itself
            cases += [self._smaller(self.primary, self._odd, only=at) for at in range(len(self.primary.shape))]
        small = self._smaller(self._first(), self._odd)
        made = [Trial(case, self.dtype, unpromised=True) for case in cases]
        made += [Trial(small, dtype, unpromised=True) for dtype in self.others]
        return [trial for trial in made if self._computable(trial.case)]

    def bytes_needed(self) -> int:
        """Shared memory for any of them, which are laid out one at a time."""
        everything = [*self.smoke(), *self.shapes(), *self.stability(), *self.edges(), *self.quick()]
        sizes = [self.op.bytes_moved(t.case.shape, torch.float32, t.case.options) for t in everything]
        return int(2.2 * max(sizes)) + (32 << 20)

    def stand_ins(self) -> list[Trial]:
        """What calls of the drawn sizes compile to, at sizes that are no secret."""
        least, primary = (self._smaller(case, lambda _, size: size - 2 | 1) for case in (self._first(), self.primary))
        made = [*(Trial(least, dtype) for dtype in self.others), Trial(primary, self.dtype)]
        return [trial for trial in made if self._computable(trial.case)]

    def _first(self) -> Case:
        return whole(self.op, self.own[0])

    def _any(self, least: int, size: int) -> int:
        return self.rng.randint(least, size - 1)

    def _odd(self, least: int, size: int) -> int:
        """A tail is left over, whatever the vector or the tile."""
        return self.rng.randrange(least | 1, size, 2)

    def _smaller(self, case: Case, pick: Callable[[int, int], int], only: int | None = None) -> Case:
        """Its free sizes, or one of them, picked anew: whoever special-cased the known shapes falls there."""
        names = self.op.dims[-len(case.shape) :] if len(case.shape) <= len(self.op.dims) else ()
        attention = "S" in self.op.dims or "Sq" in self.op.dims
        shape = list(case.shape)
        for at, size in enumerate(shape):
            name = names[at] if at < len(names) else "S"
            fixed = name == "bias" or (attention and name not in FREE_IN_ATTENTION) or only not in (None, at)
            if not fixed and size >= 4:
                shape[at] = pick(max(2, size // 3), size)
        return Case(tuple(shape), case.options)

    def _computable(self, case: Case) -> bool:
        """A user's operation may have no meaning at a drawn size; what it costs is found by running it without data."""
        try:
            self._work(case.shape)
        except Exception:  # of the user's own code
            return False
        return True

    def _work(self, shape: Shape) -> float:
        return self.op.flops(shape, self.op.options) + self.op.bytes_moved(shape, torch.float32, self.op.options)

    def _bearable(self, trials: list[Trial]) -> list[Trial]:
        if self.gpu or not self.op.matmul_like:
            return trials
        heavy = (
            t
            for t in trials
            if t.dtype == torch.float16 and self.op.flops(t.case.shape, t.case.options) > CPU_FP16_FLOPS
        )
        skipped = set(map(id, heavy))
        return [t for t in trials if id(t) not in skipped or t.weight > 0]


def draw(op: Op, trial: Trial, generator: torch.Generator) -> Inputs:
    """Inputs on the generator's device; a user's make_inputs may not know of devices."""
    made = op.make_inputs(trial.case.shape, trial.dtype, generator, trial.kind)
    return tuple(None if t is None else t.to(generator.device) for t in made)


def strides_for(op: Op, layout: str, tensor: torch.Tensor) -> list[int] | None:
    """How a tensor lies in memory under a layout; None is contiguous."""
    if layout == "plain" or tensor.dim() < 2 or not tensor.is_floating_point() or tensor.numel() == 0:
        return None
    if (
        layout == "transposed"
    ):  # matrices as columns; attention as models hand it over, [B, S, H, D] seen as [B, H, S, D]
        first = 1 if tensor.dim() == 4 else tensor.dim() - 2
        order = [*range(first), first + 1, first, *range(first + 2, tensor.dim())]
        packed = contiguous([tensor.shape[at] for at in order])
        return [packed[order[at]] for at in range(tensor.dim())]
    # "sliced" is a slice of wider rows; "misaligned" ones start at odd addresses, or every 16 bytes where torch's own
    # kernels ask for that: in attention
    narrow = 16 // tensor.itemsize if op.matmul_like and tensor.dim() == 4 else 1
    pad = 16 if layout == "sliced" else narrow
    return contiguous([*tensor.shape[:-1], tensor.shape[-1] + pad])
