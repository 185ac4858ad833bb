"""What an operation is: one table row with its definition of correct, its inputs, its shapes and its cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
# Kinds of stage 3 for an operation whose author names none: inputs so many times as large. They count where plain
# PyTorch is exact on them.
SCALED = {"scaled by 32": 32.0, "scaled by 1/1024": 2.0**-10}

Shape = tuple[int, ...]
Inputs = tuple[torch.Tensor | None, ...]


@dataclass(frozen=True)
class Case:
    """One call of an operation: its sizes and its keyword arguments."""

    shape: Shape
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """That a shape's first number is free (M, B, rows): more of them is the same again, and each can be judged alone.

    arguments    positions of the inputs with rows, along their first dimension; the others are the same for all rows.
    alone        options -> whether it holds under them: a sum along the rows needs them all.
    mean         the output is the mean over the rows. Else its first dimension is theirs.
    weigh        of a mean: (the inputs of some rows, loss) -> None, in place. Makes these rows cost that much each, so
                 that a mean shows who did not read them.
    scratch      shape -> elements that an honest kernel may store on its way (the hidden layer of an MLP).
    """

    arguments: tuple[int, ...] = (0,)
    alone: Callable[[Mapping[str, object]], bool] = lambda _options: True
    mean: bool = False
    weigh: Callable[..., None] | None = None
    scratch: Callable[[Shape], int] = lambda _shape: 0


@dataclass(frozen=True)
class Op:
    """An operation. Positional arguments are tensors (or None); keyword arguments are `options`.

    reference    called with float64 inputs; returns float64. The definition.
    eager        plain PyTorch as models write it, in the inputs' dtype: yardstick for error, baseline for speed.
    vendor       the best fused PyTorch/cuDNN/cuBLAS/oneDNN call, or None when there is none.
    make_inputs  (shape, dtype, generator, kind) -> CPU tensors of that dtype; kind is 'normal' or one of `stability`.
                 Kinds are chosen so that the reference is finite.
    stability    the names of stage 3's input kinds.
    options      default keyword arguments; `variants` are further ones the correctness stages must also cover.
    gpu_shapes   the first one named `primary` is the quick check's; edge_* are stage 5's.
    magnitude    (float64 inputs, options) -> what one fp32 rounding on the way to an output element is relative to,
                 broadcastable to the output; None means |reference|. An honest kernel accumulates in fp32, so its
                 error is about fp32's unit roundoff * sqrt(depth) * (magnitude + roundings).
    roundings    the same for values that an honest kernel may store in the inputs' dtype on its way (attention
                 probabilities, the hidden layer of an MLP, partial sums); None means that there are none.
    guessed      nobody derived magnitude and roundings: eager's own error widens what an element may be off by.
    exact        the operation only selects among its inputs: no error at all is allowed.
    depth        shape -> length of the longest reduction behind one output element.
    rows         how it can be computed some rows at a time, for stage `large`; None: it cannot, or nobody said.
    """

    name: str
    arguments: tuple[str, ...]
    reference: Callable[..., torch.Tensor]
    eager: Callable[..., torch.Tensor]
    make_inputs: Callable[[Shape, torch.dtype, torch.Generator, str], Inputs]
    dims: tuple[str, ...]  # names of the numbers in a shape
    primary: Shape
    gpu_shapes: tuple[Shape, ...]
    gpu_edges: tuple[Shape, ...]
    cpu_primary: Shape
    cpu_shapes: tuple[Shape, ...]
    cpu_edges: tuple[Shape, ...]
    flops: Callable[[Shape, Mapping[str, object]], float]
    bytes_moved: Callable[[Shape, torch.dtype, Mapping[str, object]], float]
    depth: Callable[[Shape], int]
    stability: tuple[str, ...]
    vendor: Callable[..., torch.Tensor] | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    variants: tuple[Mapping[str, object], ...] = ()
    magnitude: Callable[..., torch.Tensor] | None = None
    roundings: Callable[..., torch.Tensor] | None = None
    guessed: bool = False
    exact: bool = False
    matmul_like: bool = False  # TF32 and tensor cores apply; fp16 products on a CPU are kept to 512
    rows: Rows | None = None
