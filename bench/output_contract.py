"""What kernel_fn must return, looked at in its own process; what matters is looked at again by the judge."""

from __future__ import annotations

from typing import Any

import arena
import torch

Tensor = torch.Tensor  # bound before any candidate is imported


def problem_with(out: Any, slot: torch.Tensor, flat: torch.Tensor, any_strides: bool = False) -> str:
    """'' or why `out` is not the new, plain, finished tensor that looks like `slot`; `flat` is the shared block."""
    if type(out) is not Tensor:
        return f"kernel_fn must return a plain torch.Tensor, got {type(out).__name__}"
    if out.__dict__:
        return f"kernel_fn must return a plain torch.Tensor; this one has attributes: {sorted(out.__dict__)[:3]}"
    if tuple(out.shape) != tuple(slot.shape):
        return f"expected an output of shape {list(slot.shape)}, got {list(out.shape)}"
    if out.dtype != slot.dtype:
        return f"expected an output of {str(slot.dtype)[6:]}, got {str(out.dtype)[6:]}"
    if out.device != slot.device or out.layout != torch.strided:
        return f"expected a strided tensor on {slot.device}, got {out.layout} on {out.device}"
    # empty_like of a transposed input is transposed too, as eager PyTorch's own result is
    if not (out.is_contiguous() or (any_strides and arena.is_dense(out.shape, out.stride()))):
        return f"expected a contiguous output, got strides {list(out.stride())} for shape {list(out.shape)}"
    first, start = flat.data_ptr(), out.data_ptr()
    if out.numel() and first <= start < first + flat.numel():
        return "the output shares memory with an input; kernel_fn must return a new tensor"
    return ""
