"""linear: y = x @ weight^T + bias, weight [N,K] as nn.Linear keeps it, accumulated in fp32.

Bound by arithmetic. M,N,K = 2048^3 is 17.2 GFLOP: 21.7 us at the 790 TFLOP/s an H200 reaches in 16 bit; the bytes would
take 6. The weight's rows are tile columns, turned around on their way out of shared memory, never in device memory.
What counts: tiles large enough to feed the tensor cores from shared memory, as many of them as fill whole waves of
multiprocessors, and an order in which neighbours share their operands in the L2 cache. fp32 runs on the ordinary cores
(TF32 would lose 13 bits), so its tiles are bound by registers instead.
"""

import functools

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

KERNEL_TYPE = "linear"
BACKEND = "triton"

BLOCK_M = 128  # tune: 64 128 256
BLOCK_N = 256  # tune: 64 128 256
BLOCK_K = 64  # tune: 32 64 128
SMALL_M = 64  # tune: 64 128
SMALL_N = 128  # tune: 64 128
MIN_TILES = 96  # tune: 64 96 132
GROUP_M = 8  # tune: 4 8 16
NUM_WARPS = 8  # tune: 4 8
NUM_STAGES = 4  # tune: 2 3 4 5
USE_TMA = 0  # tune: 0 1


@triton.jit
def linear_kernel(
    y_ptr, x_ptr, w_ptr, bias_ptr, M, N, K,
    x_row_stride, w_row_stride,  # y is contiguous, and so are the rows of x and w
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    HAS_BIAS: tl.constexpr, EVEN_K: tl.constexpr,  # no tile reaches past K
    TMA: tl.constexpr,  # x_ptr and w_ptr are descriptors; reads past an edge give 0
):  # fmt: skip
    # GROUP_M rows of tiles are walked column by column: the tiles in flight then share few rows of x and of the weight
    pid = tl.program_id(0)
    tiles_m = tl.cdiv(M, BLOCK_M)
    in_group = GROUP_M * tl.cdiv(N, BLOCK_N)
    first = pid // in_group * GROUP_M
    height = min(tiles_m - first, GROUP_M)
    row = (first + pid % in_group % height) * BLOCK_M
    col = pid % in_group // height * BLOCK_N

    rows = row + tl.arange(0, BLOCK_M)
    cols = col + tl.arange(0, BLOCK_N)
    ks = tl.arange(0, BLOCK_K)
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if TMA:
        for k in range(0, K, BLOCK_K):
            acc = tl.dot(x_ptr.load([row, k]), w_ptr.load([col, k]).T, acc, input_precision="ieee")
    else:
        # int64: row * stride passes 2^31 on large inputs. Rows past an end read row 0 again and are not stored.
        x_rows = tl.where(rows < M, rows, 0).to(tl.int64)
        w_rows = tl.where(cols < N, cols, 0).to(tl.int64)
        x_ptrs = x_ptr + x_rows[:, None] * x_row_stride + ks[None, :]
        w_ptrs = w_ptr + w_rows[:, None] * w_row_stride + ks[None, :]
        for k in range(0, K, BLOCK_K):
            # masked lanes hold 0 and add nothing
            mask = None if EVEN_K else ks[None, :] < K - k
            x = tl.load(x_ptrs, mask=mask, other=None if EVEN_K else 0.0)
            w = tl.load(w_ptrs, mask=mask, other=None if EVEN_K else 0.0)
            acc = tl.dot(x, w.T, acc, input_precision="ieee")
            x_ptrs += BLOCK_K
            w_ptrs += BLOCK_K

    if HAS_BIAS:
        # masked lanes belong to columns that are not stored
        acc += tl.load(bias_ptr + cols, mask=cols < N, other=0.0).to(tl.float32)[None, :]
    mask = (rows[:, None] < M) & (cols[None, :] < N)
    tl.store(y_ptr + rows[:, None].to(tl.int64) * N + cols[None, :], acc.to(y_ptr.dtype.element_ty), mask=mask)


@functools.cache
def shared_limit(device: torch.device) -> int:
    """Bytes of shared memory that one program may take."""
    if device.type != "cuda":
        return 227 * 1024  # interpreted
    properties = torch.cuda.get_device_properties(device)
    return getattr(properties, "shared_memory_per_block_optin", None) or properties.shared_memory_per_block


def tile(m: int, n: int, itemsize: int, aligned: bool, limit: int) -> tuple[int, int, int, int, int]:
    """BLOCK_M, BLOCK_N, BLOCK_K, warps and stages that fill the GPU, and fit into registers and shared memory."""
    block_m, block_n, block_k, warps, stages = BLOCK_M, BLOCK_N, BLOCK_K, NUM_WARPS, NUM_STAGES
    if triton.cdiv(m, block_m) * triton.cdiv(n, block_n) < MIN_TILES:
        block_m, block_n, warps = min(block_m, SMALL_M), min(block_n, SMALL_N), 4
    warps = max(warps, block_m * block_n // 4096)  # at most 128 accumulators a thread, else they spill
    if itemsize == 4:  # operands pass through registers too
        block_m, block_n, block_k = min(block_m, 128), max(32, min(64, block_n // 2)), max(16, block_k // 4)
        warps, stages = 4, min(stages, 3)
    elif not aligned:  # elements arrive one by one, each with a register and an address of its own
        block_k, warps = 32, max(8, warps)
    # AMD's pipeline keeps one stage in registers
    fitting = limit // ((block_m + block_n) * block_k * itemsize) + (1 if torch.version.hip else 0)
    return block_m, block_n, block_k, warps, max(1, min(stages, fitting))


def is_aligned(t: torch.Tensor) -> bool:
    """Do rows begin where Triton knows that a 16-byte access may begin?"""
    return max(t.stride()) % 16 == 0 and t.data_ptr() % 16 == 0


def kernel_fn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    n, k = weight.shape
    y = torch.empty((*x.shape[:-1], n), dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    if k == 0:
        return y.zero_() if bias is None else y.copy_(bias.expand_as(y))
    rows = x.reshape(-1, k)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    weight = weight if weight.stride(1) == 1 else weight.contiguous()
    m = rows.shape[0]
    aligned = is_aligned(rows) and is_aligned(weight)
    block_m, block_n, block_k, warps, stages = tile(m, n, x.element_size(), aligned, shared_limit(x.device))
    tma = bool(USE_TMA) and aligned
    linear_kernel[(triton.cdiv(m, block_m) * triton.cdiv(n, block_n),)](
        y,
        TensorDescriptor.from_tensor(rows, [block_m, block_k]) if tma else rows,
        TensorDescriptor.from_tensor(weight, [block_n, block_k]) if tma else weight,
        y if bias is None else bias.contiguous(),  # without a bias the pointer is never read
        *(m, n, k, rows.stride(0), weight.stride(0)),
        *(block_m, block_n, block_k, GROUP_M),
        *(bias is not None, k % block_k == 0, tma),
        num_warps=warps,
        num_stages=stages,
    )
    return y
