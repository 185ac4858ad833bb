"""BERT base (110M parameters) in plain PyTorch, written as its users write it.

Run: ./autokernel profile --model bert.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCAB = 30522
POSITIONS = 512


class Embeddings(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.word = nn.Embedding(VOCAB, dim)
        self.position = nn.Embedding(POSITIONS, dim)
        self.token_type = nn.Embedding(2, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)

    def forward(self, tokens: Tensor, types: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return self.norm(self.word(tokens) + self.position(positions) + self.token_type(types))


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        batch, seq, dim = x.shape
        q, k, v = (f(x).view(batch, seq, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(out.transpose(1, 2).reshape(batch, seq, dim))


class Layer(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(dim, heads)
        self.attention_norm = nn.LayerNorm(dim, eps=1e-12)
        self.up = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)
        self.output_norm = nn.LayerNorm(dim, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention_norm(x + self.attention(x, mask))
        return self.output_norm(x + self.down(F.gelu(self.up(x))))


class Bert(nn.Module):
    def __init__(self, dim: int = 768, layers: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.embeddings = Embeddings(dim)
        self.layers = nn.ModuleList(Layer(dim, heads) for _ in range(layers))
        self.pooler = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, types: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Hidden states and the pooled first token; mask[B, S] is true where there is a token, None when all are."""
        x = self.embeddings(tokens, torch.zeros_like(tokens) if types is None else types)
        mask = None if mask is None else mask[:, None, None, :].bool()
        for layer in self.layers:
            x = layer(x, mask)
        return x, torch.tanh(self.pooler(x[:, 0]))


Model = Bert


def get_inputs(device: str = "cpu") -> list[Tensor]:
    """Sixteen full contexts fill a GPU; one of half the length is what two CPU cores do in half a second."""
    return [torch.randint(0, VOCAB, (16, POSITIONS) if device == "cuda" else (1, 256))]


def get_init_inputs() -> list[object]:
    return []
