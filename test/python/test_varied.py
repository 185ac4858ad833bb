"""A model's inputs, other in every pass."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "kernels")]

from varied import SCALE, varied  # noqa: E402

TOKENS, IMAGE = torch.arange(1000, 1512).view(2, 256), torch.randn(3, 8, 8).bfloat16()
MASK, LENGTH = torch.rand(4, 4) > 0.5, torch.tensor([7])


def test_the_same_secret_makes_the_same_inputs_and_another_others() -> None:
    one, again, other = (varied([TOKENS, IMAGE, MASK, LENGTH, 3, None], secret) for secret in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(one[:4], again[:4], strict=True))
    assert not torch.equal(one[0], other[0]) and not torch.equal(one[1], other[1])
    assert torch.equal(one[2], MASK) and torch.equal(one[3], LENGTH) and one[4:] == [3, None]


def test_they_stay_what_a_model_expects_and_the_originals_as_they_were() -> None:
    before = TOKENS.clone(), IMAGE.clone()
    tokens, image = varied([TOKENS, IMAGE], 1)
    assert torch.equal(TOKENS, before[0]) and torch.equal(IMAGE, before[1])
    assert tokens.shape == TOKENS.shape and tokens.dtype == TOKENS.dtype and torch.isin(tokens, TOKENS).all()
    assert 0.3 < float((tokens != TOKENS).float().mean()) < 0.7
    assert image.dtype == IMAGE.dtype and not torch.equal(image, IMAGE)
    assert torch.allclose(image.float(), IMAGE.float(), rtol=1.1 * SCALE, atol=0)
