"""flash_attention: softmax(Q K^T * sm_scale) V per head; the causal mask is aligned top-left: query i sees keys 0..i.

Bound by arithmetic. Causal 2,32,1024,64 is 8.6 GFLOP: 10.9 us at the 790 TFLOP/s an H200 reaches in 16 bit, and
2,32,2048,128 is 87 us. The scores never leave the multiprocessor: keys and values stream past a tile of queries, with a
running maximum and sum per query. Keys that all queries of the tile see are done without a mask, the diagonal after
them. The exponentials cost nearly as much as the products, so they are base 2 with the scale folded into one FMA.
"""

import functools

import torch
import triton
import triton.language as tl

KERNEL_TYPE = "flash_attention"
BACKEND = "triton"

BLOCK_M = 128  # tune: 64 128
BLOCK_N = 64  # tune: 32 64 128
NUM_WARPS = 8  # tune: 4 8
NUM_STAGES = 3  # tune: 2 3 4
BLOCK_M_64 = 128  # tune: 64 128
BLOCK_N_64 = 64  # tune: 32 64 128
NUM_WARPS_64 = 8  # tune: 4 8
NUM_STAGES_64 = 3  # tune: 2 3 4

LOG2_E = 1.4426950408889634


@triton.jit
def attend(
    acc, total, top, q, k_ptr, v_ptr, k_row_stride, v_row_stride, start, stop, rows, n_keys, n_dims, scale,
    CAUSAL: tl.constexpr, MASKED: tl.constexpr, EVEN_D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Streams keys [start, stop) past the queries. MASKED: some are not to be seen by some query, or do not exist."""
    keys = tl.arange(0, BLOCK_N)
    dims = tl.arange(0, BLOCK_D)
    k_ptrs = k_ptr + keys[:, None].to(tl.int64) * k_row_stride + dims[None, :]
    v_ptrs = v_ptr + keys[:, None].to(tl.int64) * v_row_stride + dims[None, :]
    for first in range(start, stop, BLOCK_N):
        first = tl.multiple_of(first, BLOCK_N)
        offset = tl.full([], 1, tl.int64) * first  # int64: key * stride passes 2^31 on large inputs
        # masked lanes hold 0: dimensions past the end add nothing to a score, keys past the end are masked below
        mask = (first + keys[:, None] < n_keys) & (dims[None, :] < n_dims) if MASKED else dims[None, :] < n_dims
        no_mask: tl.constexpr = EVEN_D and not MASKED
        k = tl.load(k_ptrs + offset * k_row_stride, mask=None if no_mask else mask, other=None if no_mask else 0.0)
        scores = tl.dot(q, k.T, input_precision="ieee")
        if MASKED:
            visible = first + keys[None, :] < n_keys
            if CAUSAL:
                visible = visible & (rows[:, None] >= first + keys[None, :])
            scores = tl.where(visible, scores * scale, float("-inf"))
            new_top = tl.maximum(top, tl.max(scores, axis=1))
            p = tl.exp2(scores - new_top[:, None])
        else:
            new_top = tl.maximum(top, tl.max(scores, axis=1) * scale)
            p = tl.exp2(scores * scale - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(p, axis=1)
        v = tl.load(v_ptrs + offset * v_row_stride, mask=None if no_mask else mask, other=None if no_mask else 0.0)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        top = new_top
    return acc, total, top


@triton.jit
def attention_kernel(
    o_ptr, q_ptr, k_ptr, v_ptr,
    q_batch_stride, q_head_stride, q_row_stride,  # o is contiguous, and so are the rows of q, k and v
    k_batch_stride, k_head_stride, k_row_stride,
    v_batch_stride, v_head_stride, v_row_stride,
    n_heads, n_queries, n_keys, n_dims, scale,  # scale: sm_scale * log2(e), for exponentials of base 2
    CAUSAL: tl.constexpr, EVEN_D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # the tiles of one head run together and share its keys in the L2 cache; its longest, the last rows, start first
    tiles = tl.cdiv(n_queries, BLOCK_M)
    row = (tiles - 1 - tl.program_id(0) % tiles) * BLOCK_M
    batch_head = (tl.program_id(0) // tiles).to(tl.int64)  # int64: offsets pass 2^31 on large inputs
    batch = batch_head // n_heads
    head = batch_head % n_heads
    k_ptr += batch * k_batch_stride + head * k_head_stride
    v_ptr += batch * v_batch_stride + head * v_head_stride
    rows = row + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    mask = (rows[:, None] < n_queries) & (dims[None, :] < n_dims)

    # masked lanes hold 0: dimensions past the end add nothing to a score, rows past the end are not stored
    q_ptrs = q_ptr + batch * q_batch_stride + head * q_head_stride + rows[:, None].to(tl.int64) * q_row_stride
    q = tl.load(q_ptrs + dims[None, :], mask=mask, other=0.0)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    top = tl.full([BLOCK_M], -3.0e38, tl.float32)  # finite: -inf - -inf is NaN
    clear = n_keys // BLOCK_N * BLOCK_N
    stop = n_keys
    if CAUSAL:
        clear = min(clear, (row + 1) // BLOCK_N * BLOCK_N)
        stop = min(stop, row + BLOCK_M)
    acc, total, top = attend(
        acc, total, top, q, k_ptr, v_ptr, k_row_stride, v_row_stride, 0, clear, rows, n_keys, n_dims, scale,
        CAUSAL, False, EVEN_D, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    acc, total, top = attend(
        acc, total, top, q, k_ptr, v_ptr, k_row_stride, v_row_stride, clear, stop, rows, n_keys, n_dims, scale,
        CAUSAL, True, EVEN_D, BLOCK_N, BLOCK_D,
    )  # fmt: skip

    o = (acc / total[:, None]).to(o_ptr.dtype.element_ty)
    o_ptrs = o_ptr + (batch_head * n_queries + rows[:, None]) * n_dims + dims[None, :]
    tl.store(o_ptrs, o, mask=mask)


@functools.cache
def shared_limit(device: torch.device) -> int:
    """Bytes of shared memory that one program may take."""
    if device.type != "cuda":
        return 227 * 1024  # interpreted
    properties = torch.cuda.get_device_properties(device)
    return getattr(properties, "shared_memory_per_block_optin", None) or properties.shared_memory_per_block


def tile(block_d: int, itemsize: int, limit: int) -> tuple[int, int, int, int]:
    """BLOCK_M, BLOCK_N, warps and stages that fit into registers and shared memory."""
    block_m, block_n, warps, stages = BLOCK_M, BLOCK_N, NUM_WARPS, NUM_STAGES
    if block_d <= 64:
        block_m, block_n, warps, stages = BLOCK_M_64, BLOCK_N_64, NUM_WARPS_64, NUM_STAGES_64
    if itemsize == 4:  # operands pass through registers too
        small = (min(block_m, 64), min(block_n, 32), 8) if block_d <= 64 else (32, 16, block_d // 32)
        return *small, min(stages, 2)
    if block_d > 128:
        block_m, block_n, warps = min(block_m, 64), min(block_n, 32), 8
    warps = max(warps, block_m * max(block_d, block_n) // 4096)  # at most 128 accumulators a thread, else they spill
    # queries stay; AMD's pipeline keeps one stage in registers
    fitting = (limit - block_m * block_d * itemsize) // (2 * block_n * block_d * itemsize)
    return block_m, block_n, warps, max(1, min(stages, fitting + (1 if torch.version.hip else 0)))


def kernel_fn(
    Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, causal: bool = True, sm_scale: float | None = None
) -> torch.Tensor:
    batches, heads, n_queries, n_dims = Q.shape
    n_keys = K.shape[2]
    o = torch.empty(Q.shape, dtype=Q.dtype, device=Q.device)
    if o.numel() == 0 or n_keys == 0:
        return o.zero_()
    scale = n_dims**-0.5 if sm_scale is None else sm_scale
    if scale < 0:  # the largest score is found before scaling
        Q, scale = -Q, -scale
    q, k, v = (t if t.stride(3) == 1 else t.contiguous() for t in (Q, K, V))

    block_d = max(16, triton.next_power_of_2(n_dims))
    block_m, block_n, warps, stages = tile(block_d, q.element_size(), shared_limit(q.device))
    attention_kernel[(triton.cdiv(n_queries, block_m) * batches * heads,)](
        *(o, q, k, v),
        *(*q.stride()[:3], *k.stride()[:3], *v.stride()[:3]),
        *(heads, n_queries, n_keys, n_dims, scale * LOG2_E),
        *(causal, n_dims == block_d, block_m, block_n, block_d),
        num_warps=warps,
        num_stages=stages,
    )
    return o
