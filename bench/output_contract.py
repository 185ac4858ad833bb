"""What kernel_fn must return, looked at in its own process; what matters is looked at again by the judge."""

from __future__ import annotations

from typing import Any

import arena
import torch

# bound before any candidate is imported: what it sets on torch.Tensor later changes nothing here
Tensor, Base = torch.Tensor, torch._C.TensorBase
shape_of, dtype_of, device_of, layout_of = (
    getattr(Base, name).__get__ for name in ("shape", "dtype", "device", "layout")
)
strides_of, address_of, is_contiguous, is_functional = (
    Base.stride,
    Base.data_ptr,
    Base.is_contiguous,
    getattr(torch, "_is_functional_tensor"),  # noqa: B009 - not among torch's exported names
)


def problem_with(out: Any, slot: torch.Tensor, flat: torch.Tensor, any_strides: bool = False) -> str:
    """'' or why `out` is not the new, plain, finished tensor that looks like `slot`; `flat` is the shared block."""
    if type(out) is not Tensor or is_functional(out):
        return f"kernel_fn must return a plain torch.Tensor, got {type(out).__name__}"
    attributes = sorted(name for name in out.__dict__ if not name.startswith("_dynamo_"))  # torch.compile leaves notes
    if attributes:
        return f"kernel_fn must return a plain torch.Tensor; this one has attributes: {attributes[:3]}"
    shape, dtype, device, layout = shape_of(out), dtype_of(out), device_of(out), layout_of(out)
    if tuple(shape) != tuple(slot.shape):
        return f"expected an output of shape {list(slot.shape)}, got {list(shape)}"
    if dtype != slot.dtype:
        return f"expected an output of {str(slot.dtype)[6:]}, got {str(dtype)[6:]}"
    if device != slot.device or layout != torch.strided:
        return f"expected a strided tensor on {slot.device}, got {layout} on {device}"
    strides = strides_of(out)
    # empty_like of a transposed input is transposed too, as eager PyTorch's own result is
    if not (is_contiguous(out) or (any_strides and arena.is_dense(shape, strides))):
        return f"expected a contiguous output, got strides {list(strides)} for shape {list(shape)}"
    first, start = address_of(flat), address_of(out)
    if shape.numel() and first <= start < first + flat.numel():
        return "the output shares memory with an input; kernel_fn must return a new tensor"
    return ""
