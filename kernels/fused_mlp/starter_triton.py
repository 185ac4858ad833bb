"""fused_mlp: y = (act(x @ w_gate^T) * (x @ w_up^T)) @ w_down^T, weights as nn.Linear keeps them, accumulated in fp32.

Bound by arithmetic. M,D,H = 2048,2048,5504 is 138 GFLOP: 175 us at the 790 TFLOP/s an H200 reaches in 16 bit; the
bytes, the hidden activation's write and read among them, would take 31. The first kernel computes gate and up together:
each tile of x feeds both, and the activation costs no pass of its own. The second is a plain product.
"""

import functools

import torch
import triton
import triton.language as tl

KERNEL_TYPE = "fused_mlp"
BACKEND = "triton"

UP_M = 128  # tune: 64 128 256
UP_N = 128  # tune: 32 64 128
UP_WARPS = 8  # tune: 4 8
UP_STAGES = 4  # tune: 2 3 4
DOWN_M = 128  # tune: 64 128 256
DOWN_N = 256  # tune: 64 128 256
DOWN_WARPS = 8  # tune: 4 8
DOWN_STAGES = 4  # tune: 2 3 4
BLOCK_K = 64  # tune: 32 64 128
GROUP_M = 8  # tune: 4 8 16
MIN_TILES = 96  # tune: 64 96 132


@triton.jit
def place(M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr):
    """This program's tile. GROUP_M rows of tiles are walked column by column: those in flight then share operands."""
    pid = tl.program_id(0)
    tiles_m = tl.cdiv(M, BLOCK_M)
    in_group = GROUP_M * tl.cdiv(N, BLOCK_N)
    first = pid // in_group * GROUP_M
    height = min(tiles_m - first, GROUP_M)
    rows = (first + pid % in_group % height) * BLOCK_M + tl.arange(0, BLOCK_M)
    return rows, pid % in_group // height * BLOCK_N + tl.arange(0, BLOCK_N)


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    if ACTIVATION == "silu":
        y = x * tl.sigmoid(x)
    elif ACTIVATION == "gelu":
        # 0.5 (1 + tanh u) = sigmoid(2u), with u = sqrt(2 / pi) (x + 0.044715 x^3)
        y = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    elif ACTIVATION == "gelu_erf":
        y = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    else:
        y = tl.where(x < 0, 0.0, x)  # not maximum(x, 0), which would drop NaN
    return y


@triton.jit
def gate_up_kernel(
    h_ptr, x_ptr, gate_ptr, up_ptr, M, H, D,
    x_row_stride, gate_row_stride, up_row_stride,  # h is contiguous, and so are the rows of the others
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    EVEN_K: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    rows, cols = place(M, H, BLOCK_M, BLOCK_N, GROUP_M)
    ks = tl.arange(0, BLOCK_K)
    # int64: row * stride passes 2^31 on large inputs. Rows past an end read row 0 again and are not stored.
    x_rows = tl.where(rows < M, rows, 0).to(tl.int64)
    w_rows = tl.where(cols < H, cols, 0).to(tl.int64)
    x_ptrs = x_ptr + x_rows[:, None] * x_row_stride + ks[None, :]
    gate_ptrs = gate_ptr + w_rows[:, None] * gate_row_stride + ks[None, :]
    up_ptrs = up_ptr + w_rows[:, None] * up_row_stride + ks[None, :]

    gate = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    up = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for k in range(0, D, BLOCK_K):
        # masked lanes hold 0 and add nothing
        mask = None if EVEN_K else ks[None, :] < D - k
        x = tl.load(x_ptrs, mask=mask, other=None if EVEN_K else 0.0)
        w_gate = tl.load(gate_ptrs, mask=mask, other=None if EVEN_K else 0.0)
        w_up = tl.load(up_ptrs, mask=mask, other=None if EVEN_K else 0.0)
        gate = tl.dot(x, w_gate.T, gate, input_precision="ieee")
        up = tl.dot(x, w_up.T, up, input_precision="ieee")
        x_ptrs += BLOCK_K
        gate_ptrs += BLOCK_K
        up_ptrs += BLOCK_K

    h = activate(gate, ACTIVATION) * up
    mask = (rows[:, None] < M) & (cols[None, :] < H)
    tl.store(h_ptr + rows[:, None].to(tl.int64) * H + cols[None, :], h.to(h_ptr.dtype.element_ty), mask=mask)


@triton.jit
def down_kernel(
    y_ptr, h_ptr, w_ptr, M, D, H, w_row_stride,  # y and h are contiguous, and so are the rows of w
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    EVEN_K: tl.constexpr,
):  # fmt: skip
    rows, cols = place(M, D, BLOCK_M, BLOCK_N, GROUP_M)
    ks = tl.arange(0, BLOCK_K)
    # int64: row * stride passes 2^31 on large inputs. Rows past an end read row 0 again and are not stored.
    h_ptrs = h_ptr + tl.where(rows < M, rows, 0).to(tl.int64)[:, None] * H + ks[None, :]
    w_ptrs = w_ptr + tl.where(cols < D, cols, 0).to(tl.int64)[:, None] * w_row_stride + ks[None, :]

    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for k in range(0, H, BLOCK_K):
        # masked lanes hold 0 and add nothing
        mask = None if EVEN_K else ks[None, :] < H - k
        h = tl.load(h_ptrs, mask=mask, other=None if EVEN_K else 0.0)
        w = tl.load(w_ptrs, mask=mask, other=None if EVEN_K else 0.0)
        acc = tl.dot(h, w.T, acc, input_precision="ieee")
        h_ptrs += BLOCK_K
        w_ptrs += BLOCK_K

    mask = (rows[:, None] < M) & (cols[None, :] < D)
    tl.store(y_ptr + rows[:, None].to(tl.int64) * D + cols[None, :], acc.to(y_ptr.dtype.element_ty), mask=mask)


@functools.cache
def shared_limit(device: torch.device) -> int:
    """Bytes of shared memory that one program may take."""
    if device.type != "cuda":
        return 227 * 1024  # interpreted
    properties = torch.cuda.get_device_properties(device)
    return getattr(properties, "shared_memory_per_block_optin", None) or properties.shared_memory_per_block


def is_aligned(t: torch.Tensor) -> bool:
    """Do rows begin where Triton knows that a 16-byte access may begin?"""
    return t.stride(0) % 16 == 0 and t.data_ptr() % 16 == 0


def tile(x: torch.Tensor, weights: list[torch.Tensor], config: tuple[int, int, int, int]) -> tuple[int, ...]:
    """BLOCK_M, BLOCK_N, BLOCK_K, warps and stages that fill the GPU, and fit into registers and shared memory."""
    block_m, block_n, warps, stages = config
    block_k, count, size = BLOCK_K, len(weights), x.element_size()
    if triton.cdiv(x.shape[0], block_m) * triton.cdiv(weights[0].shape[0], block_n) < MIN_TILES:
        block_m, block_n, warps = min(block_m, 64), min(block_n, 128 // count), 4
    warps = max(warps, count * block_m * block_n // 4096)  # at most 128 accumulators a thread, else they spill
    if size == 4:  # operands pass through registers too
        block_m, block_n, block_k = (
            min(block_m, 128),
            max(32, min(64, block_n * count // 2)) // count,
            max(16, block_k // 4),
        )
        warps, stages = 4, min(stages, 3)
    elif not all(map(is_aligned, (x, *weights))):  # elements arrive one by one, each with a register and an address
        block_k, warps = 32, max(8, warps)
    # AMD's pipeline keeps one stage in registers
    stage = (block_m + count * block_n) * block_k * size
    fitting = shared_limit(x.device) // stage + (1 if torch.version.hip else 0)
    return block_m, block_n, block_k, warps, max(1, min(stages, fitting))


def with_contiguous_rows(t: torch.Tensor) -> torch.Tensor:
    return t if t.stride(-1) == 1 else t.contiguous()


def kernel_fn(
    x: torch.Tensor, w_gate: torch.Tensor, w_up: torch.Tensor, w_down: torch.Tensor, activation: str = "silu"
) -> torch.Tensor:
    if activation not in ("silu", "gelu", "gelu_erf", "relu"):
        raise ValueError(f"fused_mlp: expected activation silu, gelu, gelu_erf or relu, got '{activation}'")
    hidden, d = w_gate.shape
    y = torch.empty((*x.shape[:-1], w_down.shape[0]), dtype=x.dtype, device=x.device)
    if y.numel() == 0 or hidden == 0 or d == 0:
        return y.zero_()
    x, gate, up, down = map(with_contiguous_rows, (x.reshape(-1, d), w_gate, w_up, w_down))
    m, n = x.shape[0], down.shape[0]

    h = torch.empty((m, hidden), dtype=x.dtype, device=x.device)
    block_m, block_n, block_k, warps, stages = tile(x, [gate, up], (UP_M, UP_N, UP_WARPS, UP_STAGES))
    gate_up_kernel[(triton.cdiv(m, block_m) * triton.cdiv(hidden, block_n),)](
        *(h, x, gate, up, m, hidden, d),
        *(x.stride(0), gate.stride(0), up.stride(0)),
        *(block_m, block_n, block_k, GROUP_M, d % block_k == 0, activation),
        num_warps=warps,
        num_stages=stages,
    )
    block_m, block_n, block_k, warps, stages = tile(h, [down], (DOWN_M, DOWN_N, DOWN_WARPS, DOWN_STAGES))
    down_kernel[(triton.cdiv(m, block_m) * triton.cdiv(n, block_n),)](
        *(y, h, down, m, n, hidden, down.stride(0)),
        *(block_m, block_n, block_k, GROUP_M, hidden % block_k == 0),
        num_warps=warps,
        num_stages=stages,
    )
    return y
