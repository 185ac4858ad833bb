"""matmul: C[M,N] = A[M,K] @ B[K,N], accumulated in fp32.

Bound by arithmetic. 2048^3 is 17.2 GFLOP: 21.7 us at the 790 TFLOP/s an H200 reaches in 16 bit, and 4096^3 is 174 us;
the bytes would take 6 and 23. What counts: tiles large enough to feed the tensor cores from shared memory, as many of
them as fill whole waves of multiprocessors, and an order in which neighbours share their operands in the L2 cache.
fp32 runs on the ordinary cores (TF32 would lose 13 bits), so its tiles are bound by registers instead.
"""

import functools

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

KERNEL_TYPE = "matmul"
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
def matmul_kernel(
    c_ptr, a_ptr, b_ptr, M, N, K,
    a_row_stride, a_col_stride, b_row_stride, b_col_stride,  # c is contiguous
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    EVEN_N: tl.constexpr, EVEN_K: tl.constexpr,  # no tile reaches past that edge
    TMA: tl.constexpr,  # a_ptr and b_ptr are descriptors; reads past an edge give 0
):  # fmt: skip
    # GROUP_M rows of tiles are walked column by column: the tiles in flight then share few rows of A and columns of B
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
            acc = tl.dot(a_ptr.load([row, k]), b_ptr.load([k, col]), acc, input_precision="ieee")
    else:
        # int64: row * stride passes 2^31 on large inputs. Rows past the end read row 0 again and are not stored.
        wrapped = tl.where(rows < M, rows, 0).to(tl.int64)
        a_ptrs = a_ptr + wrapped[:, None] * a_row_stride + ks[None, :] * a_col_stride
        b_ptrs = b_ptr + ks[:, None].to(tl.int64) * b_row_stride + cols[None, :].to(tl.int64) * b_col_stride
        a_step = tl.full([], BLOCK_K, tl.int64) * a_col_stride
        b_step = tl.full([], BLOCK_K, tl.int64) * b_row_stride
        for k in range(0, K, BLOCK_K):
            # masked lanes hold 0 and add nothing; columns past the end are not stored
            in_k = ks < K - k
            a = tl.load(a_ptrs, mask=None if EVEN_K else in_k[None, :], other=None if EVEN_K else 0.0)
            b_mask = None if EVEN_K and EVEN_N else in_k[:, None] & (cols[None, :] < N)
            b = tl.load(b_ptrs, mask=b_mask, other=None if EVEN_K and EVEN_N else 0.0)
            acc = tl.dot(a, b, acc, input_precision="ieee")
            a_ptrs += a_step
            b_ptrs += b_step

    mask = (rows[:, None] < M) & (cols[None, :] < N)
    tl.store(c_ptr + rows[:, None].to(tl.int64) * N + cols[None, :], acc.to(c_ptr.dtype.element_ty), mask=mask)


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


def kernel_fn(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    (m, k), n = A.shape, B.shape[1]
    c = torch.empty((m, n), dtype=A.dtype, device=A.device)
    if c.numel() == 0 or k == 0:
        return c.zero_()
    aligned = is_aligned(A) and is_aligned(B)
    block_m, block_n, block_k, warps, stages = tile(m, n, A.element_size(), aligned, shared_limit(A.device))
    tma = bool(USE_TMA) and aligned and A.stride(1) == B.stride(1) == 1
    a = TensorDescriptor.from_tensor(A, [block_m, block_k]) if tma else A
    b = TensorDescriptor.from_tensor(B, [block_k, block_n]) if tma else B
    matmul_kernel[(triton.cdiv(m, block_m) * triton.cdiv(n, block_n),)](
        *(c, a, b, m, n, k),
        *(A.stride(0), A.stride(1), B.stride(0), B.stride(1)),
        *(block_m, block_n, block_k, GROUP_M),
        *(n % block_n == 0, k % block_k == 0, tma),
        num_warps=warps,
        num_stages=stages,
    )
    return c
