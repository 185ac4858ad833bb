"""What proves that a model's timed output was finished when the clock stopped."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "kernels")]

from model_child import fingerprint  # noqa: E402


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(5, 1000),
        torch.randn(7001, dtype=torch.float32).half()[1:],
        torch.randn(64, 96).t(),
        torch.tensor(3.5),
        torch.randn(9000) > 0,
        torch.empty(0, 4),
    ],
    ids=["rows", "odd start", "transposed", "one number", "truth values", "empty"],
)
def test_a_fingerprint_tells_of_every_element_to_whoever_knows_the_secret(tensor: torch.Tensor) -> None:
    others = [torch.ones(3)]
    of_it = fingerprint([tensor, *others], 1)
    assert fingerprint([tensor.clone(memory_format=torch.contiguous_format), *others], 1) == of_it
    assert fingerprint([tensor, *others], 2) != of_it
    for at in torch.randint(max(1, tensor.numel()), (20 if tensor.numel() else 0,)).tolist():
        changed = tensor.clone(memory_format=torch.contiguous_format)
        changed.view(-1)[at] = 1 - changed.view(-1)[at].float()
        assert fingerprint([changed, *others], 1) != of_it
