"""fused_mlp: (act(x @ w_gate^T) * (x @ w_up^T)) @ w_down^T, the gated MLP. Bound by arithmetic."""

from __future__ import annotations

from functools import partial

import op_costs
import torch
import torch.nn.functional as F
from op_inputs import cast, log_uniform, matrix, unknown_kind

from op import Inputs, Op, Rows, Shape

Tensor = torch.Tensor
ACTIVATIONS = {"silu": F.silu, "gelu": partial(F.gelu, approximate="tanh"), "gelu_erf": F.gelu, "relu": F.relu}


def reference(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor, activation: str = "silu") -> Tensor:
    """In float64 the definition; in the inputs' dtype exactly what models write."""
    return F.linear(ACTIVATIONS[activation](F.linear(x, w_gate)) * F.linear(x, w_up), w_down)


def roundings(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor, activation: str = "silu") -> Tensor:
    """Independent errors of gate, up and their product, carried through the last product."""
    gate, up = F.linear(x, w_gate), F.linear(x, w_up)
    walk_gate, walk_up = (F.linear(x.square(), w.square()) for w in (w_gate, w_up))
    act = ACTIVATIONS[activation](gate)
    from_gate = (gate.square() + walk_gate) * up.square()  # every activation here has a slope of about 1 at most
    from_up = (up.square() + walk_up) * act.square()
    hidden = from_gate + from_up + (act * up).square()
    return F.linear(hidden, w_down.square()).sqrt()


def make_inputs(shape: Shape, dtype: torch.dtype, g: torch.Generator, kind: str) -> Inputs:
    m, d, h = shape
    x = matrix(g, m, d, 1.0)
    w_gate, w_up, w_down = (matrix(g, a, b, max(1, b) ** -0.5) for a, b in ((h, d), (h, d), (d, h)))
    if kind == "normal":
        x = x * log_uniform(g, 0.1, 4.0, m, 1)
    elif kind == "saturated":
        x, w_gate, w_down = x * 5.0, w_gate * 30.0, w_down * 0.01  # exp(-gate) overflows fp32 if computed as such
    elif kind == "tiny":
        x = x * 1e-2
    elif kind == "closed_gate":
        w_gate = w_gate - x.mean(0) * (max(1, d) ** -0.5)  # mostly negative: the activation's far left
    else:
        raise unknown_kind("fused_mlp", kind)
    return cast(dtype, x, w_gate, w_up, w_down)


OP = Op(
    name="fused_mlp",
    arguments=("x", "w_gate", "w_up", "w_down"),
    reference=reference,
    eager=reference,
    vendor=None,  # no library has it as one call
    make_inputs=make_inputs,
    dims=("M", "D", "H"),
    primary=(2048, 2048, 5504),
    gpu_shapes=(
        *((32, 128, 256), (256, 512, 1024), (1024, 1024, 2048), (2048, 2048, 5504)),
        *((4096, 4096, 11008), (2048, 4096, 11008), (2048, 5120, 13824)),
    ),
    gpu_edges=((1023, 1024, 2048), (4097, 512, 1024)),
    cpu_primary=(256, 384, 512),
    cpu_shapes=((32, 128, 256), (128, 256, 512), (256, 384, 512), (16, 512, 512)),
    cpu_edges=((127, 128, 256), (33, 65, 129), (1, 384, 512)),
    flops=lambda shape, options: op_costs.flops("fused_mlp", shape, options),
    bytes_moved=lambda shape, dtype, options: op_costs.bytes_moved("fused_mlp", shape, dtype.itemsize, options),
    depth=lambda shape: max(shape[1:]),
    stability=("saturated", "tiny", "closed_gate"),
    options={"activation": "silu"},
    variants=({"activation": "gelu"}, {"activation": "relu"}),
    roundings=roundings,
    matmul_like=True,
    rows=Rows(scratch=lambda shape: 3 * shape[0] * shape[2]),
)
