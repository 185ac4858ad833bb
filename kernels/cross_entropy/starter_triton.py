"""cross_entropy: mean over rows of log(sum exp(logits)) - logits[target]; rows whose target is -100 do not count.

Bound by memory: one read. 4096 x 32000 in 16 bit is 262 MB: 61 us at the 4296 GB/s an H200 moves. Maximum and sum are
found in one pass, each lane keeping its own; one exp an element, since two would cost more than the memory. A second,
tiny kernel takes the mean in a fixed order: no float atomics, the same bits every time.
"""

import torch
import triton
import triton.language as tl

KERNEL_TYPE = "cross_entropy"
BACKEND = "triton"

LANES = 1024  # tune: 512 1024 2048
UNROLL = 8  # tune: 2 4 8 16
NUM_WARPS = 4  # tune: 4 8
MEAN_BLOCK = 4096  # tune: 1024 2048 4096 8192

IGNORE = tl.constexpr(-100)  # PyTorch's default ignore_index
LOWEST = tl.constexpr(-3.0e38)  # a maximum to start from: -inf would give inf - inf on a tile of nothing but -inf


@triton.jit
def fold(top, total, x):
    """One more tile into each lane's running maximum and sum: one exp an element, no exchange between threads."""
    new_top = tl.maximum(top, tl.max(x, axis=0))
    return new_top, total * tl.exp(top - new_top) + tl.sum(tl.exp(x - new_top[None, :]), axis=0)


@triton.jit
def row_loss_kernel(
    loss_ptr, x_ptr, target_ptr, x_row_stride, n_cols,
    HEADS: tl.constexpr, VEC: tl.constexpr, UNROLL: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    BLOCK: tl.constexpr = UNROLL * LANES
    row = tl.program_id(0)
    start = row.to(tl.int64) * x_row_stride  # int64: row * stride passes 2^31 on large inputs
    # A row of odd length begins between two 16-byte words. Counting from the word's beginning keeps every tile but
    # the first and the last free of masks, so that their loads stay 16 bytes wide.
    head = (start % VEC).to(tl.int32) if HEADS else 0
    x_row_ptr = x_ptr + tl.multiple_of(start - head, VEC)
    end = head + n_cols
    last = (end - 1) // BLOCK * BLOCK
    offs = tl.arange(0, UNROLL)[:, None] * LANES + tl.arange(0, LANES)[None, :]

    top = tl.full([LANES], LOWEST, tl.float32)
    total = tl.zeros([LANES], tl.float32)
    # masked lanes hold -inf: never the maximum, and exp makes them 0
    x = tl.load(x_row_ptr + offs, mask=(offs >= head) & (offs < end), other=float("-inf"))
    top, total = fold(top, total, x.to(tl.float32))
    for pos in range(BLOCK, last, BLOCK):
        top, total = fold(top, total, tl.load(x_row_ptr + pos + offs).to(tl.float32))
    if last > 0:
        x = tl.load(x_row_ptr + last + offs, mask=offs < end - last, other=float("-inf"))
        top, total = fold(top, total, x.to(tl.float32))

    row_top = tl.max(top, axis=0)
    row_total = tl.sum(total * tl.exp(top - row_top), axis=0)
    target = tl.load(target_ptr + row)
    # an ignored row has no logit to read; its 0 is a loss that the mean leaves out
    x_target = tl.load(x_row_ptr + head + target, mask=target != IGNORE, other=0.0).to(tl.float32)
    # the difference of the two large numbers first: the logarithm is small, and would be rounded away
    loss = tl.log(row_total) + (row_top - x_target)
    tl.store(loss_ptr + row, tl.where(target == IGNORE, 0.0, loss))


@triton.jit
def mean_kernel(y_ptr, loss_ptr, target_ptr, n_rows, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    count = tl.zeros([BLOCK], tl.float32)
    for pos in range(0, n_rows, BLOCK):
        rows = pos + tl.arange(0, BLOCK)
        # rows past the end look like ignored ones: they add nothing to the sum or to the count
        total += tl.load(loss_ptr + rows, mask=rows < n_rows, other=0.0)
        count += (tl.load(target_ptr + rows, mask=rows < n_rows, other=IGNORE) != IGNORE).to(tl.float32)
    mean = tl.sum(total, axis=0) / tl.sum(count, axis=0)
    tl.store(y_ptr, mean.to(y_ptr.dtype.element_ty))


def kernel_fn(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    n_cols = logits.shape[-1]
    x = logits.reshape(-1, n_cols)
    targets = targets.reshape(-1).contiguous()
    n_rows = x.shape[0]
    if n_rows == 0 or n_cols == 0:
        return torch.full((), float("nan"), dtype=logits.dtype, device=logits.device)  # the mean of nothing
    if x.stride(1) != 1:
        x = x.contiguous()

    vec = 16 // x.element_size()
    loss = torch.empty(n_rows, dtype=torch.float32, device=x.device)
    row_loss_kernel[(n_rows,)](
        *(loss, x, targets, x.stride(0), n_cols),
        *(x.stride(0) % vec != 0, vec, UNROLL, LANES),
        num_warps=NUM_WARPS,
    )
    y = torch.empty((), dtype=logits.dtype, device=x.device)
    block = min(MEAN_BLOCK, triton.next_power_of_2(n_rows))
    mean_kernel[(1,)](y, loss, targets, n_rows, block, num_warps=8)
    return y
