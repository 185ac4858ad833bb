"""Whether a block too large for a second copy was written to: inputs are kept in sums, guard bands as they are."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from arena import Arena, Buffer, extent

STRETCH = {True: 1 << 26, False: 1 << 22}  # bytes that are summed up together, on a GPU and on a CPU
WORD = 4


class Seal:
    """Made before a call. `slot`, the output's place, may be written to, and nothing else."""

    def __init__(self, block: Arena, slot: Buffer, rng: random.Random) -> None:
        self.block, self.slot = block, slot
        self.stretch = STRETCH[block.device.type == "cuda"]
        # 62 secret bits a word: no two contents have the same sum but by a chance of 1 in 2^32 at most
        draw = torch.Generator(block.device).manual_seed(rng.getrandbits(62))
        size = (self.stretch // WORD,)
        self.weights = torch.randint(1 << 62, size, generator=draw, device=block.device)
        self.sums, self.bands = self._sums(), [block.flat[start:end].clone() for start, end in self._rest()]

    def damage(self) -> str:
        """What was written outside the output since then: '' or words for whoever wrote it."""
        for (start, end), before in zip(self._rest(), self.bands, strict=True):
            changed = (self.block.flat[start:end] != before).nonzero()
            if len(changed):
                return self.block.where(start + int(changed[0]))
        changed = (self._sums() != self.sums).nonzero()
        if not len(changed):
            return ""
        start, end = self._stretches()[int(changed[0])]
        name, first = next((n, extent(b)[0]) for n, b in self.block.buffers if extent(b)[0] <= start < extent(b)[1])
        return f"wrote into {name} (in bytes {start - first} to {end - first}), which it may only read"

    def _sums(self) -> torch.Tensor:
        sums = [
            (self.block.flat[start:end].view(torch.int32).long() * self.weights[: (end - start) // WORD]).sum()
            for start, end in self._stretches()
        ]
        return torch.stack(sums) if sums else torch.zeros(0)

    def _inputs(self) -> Iterator[tuple[int, int]]:
        """Whole words of each input; they begin at multiples of arena.ALIGN."""
        for _, buffer in self.block.buffers:
            start, end = extent(buffer)
            if buffer is not self.slot:
                yield start, end - (end - start) % WORD

    def _stretches(self) -> list[tuple[int, int]]:
        return [
            (at, min(end, at + self.stretch)) for start, end in self._inputs() for at in range(start, end, self.stretch)
        ]

    def _rest(self) -> list[tuple[int, int]]:
        """Everything else outside the output: guard bands, and what is left of an input's last word."""
        taken = sorted([*self._inputs(), extent(self.slot)])
        ends = [0, *(end for _, end in taken)]
        starts = [*(start for start, _ in taken), self.block.cursor]
        return list(zip(ends, starts, strict=True))
