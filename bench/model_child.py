"""A whole model in a child process: loads it, puts kernels in when told, runs it on shared inputs. Only for verify."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import arena
import torch
from varied import Words, is_words, varied, words_of

CHUNK = 1 << 24
ROW_BYTES = 8192
NAN_KERNEL = '''"""{name} with every result replaced by NaN: a model that uses it cannot hide it."""
import torch
import importlib.util as _util
_spec = _util.spec_from_file_location({module!r}, {path!r})
_real = _util.module_from_spec(_spec)
import sys as _sys
_sys.modules[{module!r}] = _real
_spec.loader.exec_module(_real)
def kernel_fn(*inputs, **options):
    return torch.full_like(_real.kernel_fn(*inputs, **options), float("nan"))
'''


class ModelHarness:
    def __init__(self, flat: torch.Tensor, hide_harness: Callable[[], None]) -> None:
        self.hide_harness = hide_harness  # before anything of a candidate's is imported
        self.flat, self.gpu = flat, flat.device.type == "cuda"
        self.sets: Sequence[Sequence[Any]] = []
        self.words: Words = []
        self.kept: list[torch.Tensor] = []
        self.report: Any = None
        self.model: Any = None

    def load(self, m: dict[str, Any]) -> dict[str, Any]:
        import model_loader

        spec = m["model"]
        torch.backends.cuda.matmul.allow_tf32 = False
        self.loaded = model_loader.load(
            spec["file"],
            spec["class_name"],
            spec["input_shape"],
            spec["dtype"],
            spec["device"],
            spec["seed"],
            try_forward=False,
        )
        self.model = self.loaded.model
        return {"class_name": self.loaded.class_name}

    def checksum(self, _m: dict[str, Any]) -> dict[str, Any]:
        """Over names and bits of all parameters and buffers; position counts, so that swapped values differ."""
        total = 0
        for name, tensor in sorted(self.model.state_dict().items()):
            raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
            total = (total * 1000003 + sum(name.encode()) + raw.numel()) % (1 << 61)
            for start in range(0, raw.numel(), CHUNK):
                part = raw[start : start + CHUNK].to(torch.int32)
                place = torch.arange(part.numel(), device=part.device, dtype=torch.int32) % 1021 + 1
                total = (total * 1000003 + int((part * place).sum(dtype=torch.int64))) % (1 << 61)
        return {"checksum": str(total)}

    def apply(self, m: dict[str, Any]) -> dict[str, Any]:
        """Imports `optimized` from the folder and puts its kernels in; with `poison`, one kernel answers NaN."""
        folder = Path(m["folder"])
        if m.get("poison"):
            path = folder / "optimized" / m["poison"] / "kernel.py"
            real = path.with_name("real_kernel.py")
            path.rename(real)
            path.write_text(NAN_KERNEL.format(name=m["poison"], module="poisoned_kernel", path=str(real)))
        self.hide_harness()
        sys.path.insert(0, str(folder))
        optimized = importlib.import_module("optimized")
        self.report = optimized.apply(self.model, only=m["only"])
        return {
            "replaced": {str(k): int(v) for k, v in self.report.replaced.items()},
            "skipped": {str(k): str(v) for k, v in self.report.skipped.items()},
        }

    def compile(self, _m: dict[str, Any]) -> dict[str, Any]:
        self.model = torch.compile(self.model)
        return {}

    def draw(self, m: dict[str, Any]) -> dict[str, Any]:
        """New inputs, described; `publish` then writes them where the judge made room. And integers for `varied`."""
        self.sets = self.drawn = [self.loaded.draw_inputs(seed) for seed in m["seeds"]]
        more = [self.loaded.draw_inputs(seed) for seed in m["more"]] if any(map(is_words, self.drawn[0])) else []
        self.words = words_of([*self.drawn, *more])
        told = []
        for inputs in self.drawn:
            told.append([_describe(x) if isinstance(x, torch.Tensor) else {"value": x} for x in inputs])
        return {"sets": told, "words": [None if words is None else _describe(words) for words in self.words]}

    def publish(self, m: dict[str, Any]) -> dict[str, Any]:
        for inputs, buffers in zip(self.drawn, m["sets"], strict=True):
            for value, buffer in zip(inputs, buffers, strict=True):
                if isinstance(value, torch.Tensor):
                    arena.view(self.flat, buffer["buffer"]).copy_(value)
        for words, buffer in zip(self.words, m["words"], strict=True):
            if words is not None:
                arena.view(self.flat, buffer).copy_(words)
        self._sync()
        del self.drawn
        return {}

    def adopt(self, m: dict[str, Any]) -> dict[str, Any]:
        self.sets = [
            [arena.view(self.flat, x["buffer"]) if "buffer" in x else x["value"] for x in inputs]
            for inputs in m["sets"]
        ]
        self.words = [None if buffer is None else arena.view(self.flat, buffer) for buffer in m["words"]]
        return {}

    def forward(self, m: dict[str, Any]) -> dict[str, Any]:
        inputs, model = self.sets[m["set"]], self.model
        if m.get("wide"):  # the yardstick: the same weights and inputs in double, where the model can run in it
            import copy

            import model_loader

            wide = getattr(torch, m["wide"])
            model = model_loader.cast(copy.deepcopy(self.model), wide, self.flat.device)
            inputs = [x.to(wide) if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs]
        if m.get("vary") is not None:
            inputs = varied(inputs, self.words, m["vary"])
        with torch.no_grad():
            self.kept = list(_tensors(model(*inputs)))
        self._sync()
        if m.get("wide") and self.gpu:
            del model, inputs
            torch.cuda.empty_cache()  # the other processes need the room
        calls = {} if self.report is None else {str(k): int(v) for k, v in self.report.calls.items()}
        finite = all(bool(t.isfinite().all()) for t in self.kept)
        return {"outputs": [_describe(t) for t in self.kept], "calls": calls, "finite": finite}

    def visit(self, m: dict[str, Any]) -> dict[str, Any]:
        """Forward passes over the sets in the order given, and what only who has finished the one to keep can tell.

        Every pass has inputs of its own. Outputs live until the end (`hold`), so that none is seen to be the one kept.
        """
        held, model, sets, keep, draw = list[Any](), self.model, self.sets, m["keep"], random.Random(m["secret"])
        with torch.no_grad():
            for at, which in enumerate(m["order"]):
                secret = draw.getrandbits(62)
                out = model(*self._inputs(sets[which], m["kept_secret"] if at == keep else secret, m["vary"]))
                if m["hold"] or at == keep:
                    held.append(out)
            self._sync()
            self.kept = list(_tensors(held[keep if m["hold"] else 0]))
            receipt = fingerprint(self.kept, m["secret"])
        return {"receipt": receipt}

    def _inputs(self, inputs: Sequence[Any], secret: int, vary: bool) -> Sequence[Any]:
        return varied(inputs, self.words, secret) if vary else inputs

    def deliver(self, m: dict[str, Any]) -> dict[str, Any]:
        for tensor, buffer in zip(self.kept, m["slots"], strict=True):
            if list(tensor.shape) != buffer["shape"] or arena.NAMES.get(tensor.dtype) != buffer["dtype"]:
                return {"problem": f"expected an output {buffer['shape']} {buffer['dtype']}, got {_describe(tensor)}"}
            arena.view(self.flat, buffer).copy_(tensor)
        self._sync()
        return {}

    def _sync(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()


def fingerprint(tensors: Sequence[torch.Tensor], secret: int) -> str:
    """Every byte in a sum whose weights follow from a secret: it takes one reading of them all."""
    total, draw = 0, torch.Generator().manual_seed(secret)
    for tensor in tensors:
        raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        whole = raw.numel() // ROW_BYTES * ROW_BYTES
        aligned = raw if raw.storage_offset() % 8 == 0 else raw.clone()
        rows = aligned[:whole].view(torch.int64).view(whole // ROW_BYTES, ROW_BYTES // 8).sum(dim=1)
        parts = torch.cat([rows, raw[whole:].to(torch.int64)])
        weights = torch.randint(1 << 62, (parts.numel(),), generator=draw).to(parts.device)
        total += int((parts * weights).sum())  # wraps around, on both sides alike
    return str(total % (1 << 61))


def _describe(tensor: torch.Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "dtype": arena.NAMES[tensor.dtype]}


def _tensors(out: Any) -> Iterator[torch.Tensor]:
    """Every tensor in a model's answer, in a fixed order."""
    if isinstance(out, torch.Tensor):
        yield out.detach()
    elif isinstance(out, dict):
        for key in sorted(out, key=str):
            yield from _tensors(out[key])
    elif isinstance(out, (list, tuple)):
        for item in out:
            yield from _tensors(item)
    elif hasattr(out, "__dict__"):
        yield from _tensors(vars(out))
