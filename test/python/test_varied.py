"""A model's inputs, other in every pass."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "kernels")]

from varied import SCALE, varied, words_of  # noqa: E402

TOKENS, IMAGE = torch.arange(1000, 1512).view(2, 256), torch.randn(3, 8, 8).bfloat16()
MASK, LENGTH = torch.rand(4, 4) > 0.5, torch.tensor([7])
INPUTS = [TOKENS, IMAGE, MASK, LENGTH, 3, None]
WORDS = words_of([INPUTS, [TOKENS + 512, IMAGE, MASK, LENGTH + 5, 3, None]])


def test_words_are_the_integers_of_all_draws_and_nothing_else() -> None:
    tokens, *others = WORDS
    assert tokens is not None and torch.equal(tokens, torch.arange(1000, 2024))
    assert [None if w is None else w.tolist() for w in others] == [None, None, [7, 12], None, None]


def test_the_same_secret_makes_the_same_inputs_and_another_others() -> None:
    one, again, other = (varied(INPUTS, WORDS, secret) for secret in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(one[:4], again[:4], strict=True))
    assert not torch.equal(one[0], other[0]) and not torch.equal(one[1], other[1])
    assert torch.equal(one[2], MASK) and one[4:] == [3, None]
    assert {int(varied(INPUTS, WORDS, secret)[3]) for secret in range(40)} == {7, 12}


def test_they_stay_what_a_model_expects_and_the_originals_as_they_were() -> None:
    before = TOKENS.clone(), IMAGE.clone()
    tokens, image, *_ = varied(INPUTS, WORDS, 1)
    assert torch.equal(TOKENS, before[0]) and torch.equal(IMAGE, before[1])
    assert tokens.shape == TOKENS.shape and tokens.dtype == TOKENS.dtype and torch.isin(tokens, WORDS[0]).all()
    assert 0.3 < float((tokens != TOKENS).float().mean()) < 0.7
    assert image.dtype == IMAGE.dtype and torch.allclose(image.float(), IMAGE.float(), rtol=1.1 * SCALE, atol=0)
    factors = (image.float() / IMAGE.float()).flatten()
    assert float(factors.std()) > SCALE / 4  # each element by its own: a normalization does not take it away
