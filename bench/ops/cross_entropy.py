"""cross_entropy: mean over the rows of logsumexp(logits) - logits[target], a scalar. Bound by memory."""

from __future__ import annotations

import op_costs
import torch
import torch.nn.functional as F
from op_inputs import cast, normal, uniform, unknown_kind

from op import Inputs, Op, Rows, Shape

Tensor = torch.Tensor


def reference(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets)


def eager(logits: Tensor, targets: Tensor) -> Tensor:
    """As models write it, and as autocast makes them: the loss in fp32."""
    return F.cross_entropy(logits.float(), targets).to(logits.dtype)


def roundings(logits: Tensor, targets: Tensor) -> Tensor:
    """Each row's loss rounded by itself, as F.cross_entropy rounds its log-probabilities."""
    losses = F.cross_entropy(logits, targets, reduction="none")
    return torch.linalg.vector_norm(losses) / max(1, losses.numel())


def magnitude(logits: Tensor, targets: Tensor) -> Tensor:
    """A row's loss is a difference of two numbers the size of its largest logit: not summed, so no sqrt(depth)."""
    picked = logits.gather(1, targets.unsqueeze(1)).abs().mean()
    top = logits.amax(1).abs().mean()
    return reference(logits, targets).abs() + (top + picked + 2) / max(1, *logits.shape) ** 0.5


def weigh(logits: Tensor, targets: Tensor, loss: float) -> None:
    logits.scatter_(1, targets.unsqueeze(1), -loss)  # the other logits are of the order of 10


def make_inputs(shape: Shape, dtype: torch.dtype, g: torch.Generator, kind: str) -> Inputs:
    b, v = shape
    targets = torch.randint(0, v, (b,), generator=g, device=g.device)
    targets[:1], targets[1:2] = v - 1, 0  # the last and the first class
    x = normal(g, b, v) + uniform(g, -2.0, 2.0, b, 1)
    if kind == "normal":
        x = _set_losses(_heavy_column(x, g), targets, g)
    elif kind == "large":
        x = x * 4 + 1000.0
    elif kind == "large_negative":
        x = x * 4 - 1000.0
    elif kind == "wide":
        x = x * 30.0  # nearly one-hot, losses of a hundred
    elif kind == "identical":
        shift = uniform(g, -4.0, 4.0, b, 1)  # of the target's logit alone
        x = torch.full_like(x, 200.0).scatter(1, targets.unsqueeze(1), 200.0 + shift)
    else:
        raise unknown_kind("cross_entropy", kind)
    return (*cast(dtype, x), targets)


def _heavy_column(x: Tensor, g: torch.Generator) -> Tensor:
    """One class as likely as all others of its row, often the last: who skips it is off by a factor."""
    heavy = torch.randint(0, x.shape[1], (x.shape[0], 1), generator=g, device=g.device)
    heavy[::4] = x.shape[1] - 1
    return x.scatter(1, heavy, torch.logsumexp(x, 1, keepdim=True))


def _set_losses(x: Tensor, targets: Tensor, g: torch.Generator) -> Tensor:
    """Small losses, thrice as large in the last rows and somewhere else, and one row that holds a fifth of the sum.

    The mean of many equal rows is known from a few of them; of these it is not.
    """
    b = x.shape[0]
    losses = uniform(g, 0.1, 1.0, b)
    width, start = max(1, b // 10), int(torch.randint(0, b, (1,), generator=g, device=g.device))
    losses[b - width :] *= 3
    losses[start : start + width] *= 3
    losses[int(torch.randint(0, b, (1,), generator=g, device=g.device))] += 0.25 * float(losses.sum())
    others = x.scatter(1, targets.unsqueeze(1), float("-inf")).logsumexp(1)
    below = losses + (-torch.expm1(-losses)).log()  # log(exp(loss) - 1), also where exp(loss) is past fp32
    return x.scatter(1, targets.unsqueeze(1), (others - below).unsqueeze(1)) if x.shape[1] > 1 else x


OP = Op(
    name="cross_entropy",
    arguments=("logits", "targets"),
    reference=reference,
    eager=eager,
    vendor=F.cross_entropy,
    make_inputs=make_inputs,
    dims=("B", "V"),
    primary=(4096, 32000),
    gpu_shapes=((32, 256), (256, 1024), (1024, 4096), (4096, 32000), (8192, 50257), (4096, 50257)),
    gpu_edges=((1023, 32000), (4096, 50257)),
    cpu_primary=(256, 4096),
    cpu_shapes=((32, 256), (256, 1024), (256, 4096), (64, 32000)),
    cpu_edges=((127, 1023), (16, 50257), (1, 4097), (5, 2)),
    flops=lambda shape, options: op_costs.flops("cross_entropy", shape, options),
    bytes_moved=lambda shape, dtype, options: op_costs.bytes_moved("cross_entropy", shape, dtype.itemsize, options),
    depth=lambda shape: max(shape),
    stability=("large", "large_negative", "wide", "identical"),
    magnitude=magnitude,
    roundings=roundings,
    rows=Rows(arguments=(0, 1), mean=True, weigh=weigh),
)
