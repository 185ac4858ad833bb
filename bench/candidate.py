"""The untrusted child: imports kernel.py and runs it on shared buffers when told. What it says counts only with proof.

What the harness takes from torch and time is bound before any candidate is imported, so that patching them is in vain.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import resource
import socket
import sys
import traceback
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import arena
import compiled
import torch
import wire
from output_contract import problem_with
from timed_calls import TimedCalls, copy_, perf_counter

MESSAGE_CHARS = 4000


class Harness(TimedCalls):
    """Obeys the judge's orders, one by one."""

    def __init__(self, flat: torch.Tensor, folders: Sequence[str] = ()) -> None:
        super().__init__(flat)
        self.notes = compiled.Notes(folders)

    def load(self, m: dict[str, Any]) -> dict[str, Any]:
        """Builds one side: a kernel.py, a baseline of the operation, or the empty call that calibrates the clock."""
        torch.backends.cuda.matmul.allow_tf32 = m["allow_tf32"]
        if m.get("builtin"):
            import baselines  # only here: a trusted side needs bench/ops, a candidate must not

            self.empty = m["builtin"] == "empty"
            if not self.empty:
                self.fn = baselines.build(m["builtin"], m["op"], m["op_file"], self.gpu)
            return {}
        _hide_harness()
        module = import_kernel(Path(m["path"]))
        fn = getattr(module, "kernel_fn", None)
        if not callable(fn):
            return {"problem": "kernel.py defines no function kernel_fn"}
        self.fn = fn
        names = {key: str(getattr(module, key, ""))[:40] or None for key in ("BACKEND", "KERNEL_TYPE")}
        return {"backend": names["BACKEND"], "kernel_type": names["KERNEL_TYPE"]}

    def call(self, m: dict[str, Any]) -> dict[str, Any]:
        inputs = [None if b is None else arena.view(self.flat, b) for b in m["inputs"]]
        slot = arena.view(self.flat, m["output"])
        # a freed block full of NaN is what the kernel's own torch.empty is likely to get
        del_me = torch.full(tuple(slot.shape), float("nan"), dtype=slot.dtype, device=slot.device)
        del del_me
        with self.notes.taking() if m.get("note") else contextlib.nullcontext():
            out = self.fn(*inputs, **m["options"])
        problem = problem_with(out, slot, self.flat, m.get("any_strides", False))
        if problem:
            return {"problem": problem}
        copy_(slot, out)
        if m.get("keep"):
            self.kept[m["keep"]] = out
        self._sync()
        return {}

    def warm(self, m: dict[str, Any]) -> dict[str, Any]:
        """Calls on zeros, for what they leave in the compile cache."""
        for call in m["calls"]:
            with contextlib.suppress(Exception):
                self.fn(
                    *[None if b is None else arena.blank(b, self.flat.device) for b in call["inputs"]],
                    **call["options"],
                )
                self._sync()
        return {}

    def recall(self, m: dict[str, Any]) -> dict[str, Any]:
        """Delivers an earlier call's result as it is after many more calls, by which a shared buffer is overwritten."""
        inputs = [None if b is None else arena.view(self.flat, b) for b in m["inputs"]]
        until = perf_counter() + m["seconds"]
        for _ in range(m["calls"]):
            self.fn(*inputs, **m["options"])
            if perf_counter() > until:
                break
        copy_(arena.view(self.flat, m["output"]), self.kept[m["keep"]])
        self._sync()
        return {}

    def compiler(self, _m: dict[str, Any]) -> dict[str, Any]:
        return self.notes.report()

    def memory(self, _m: dict[str, Any]) -> dict[str, Any]:
        if self.gpu:
            return {"peak_mb": torch.cuda.max_memory_allocated() / 2**20}
        return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def serve(control: socket.socket, arena_fd: int, request: dict[str, Any], confined: str) -> None:
    """Answers orders until the judge hangs up."""
    flat = arena.attach(arena_fd, request["arena_bytes"], request["arena_handle"])
    sys.path[:0] = request["import_path"]
    harness: Any = Harness(flat, request["writable"])
    if request["role"] == "model":
        import model_child

        harness = model_child.ModelHarness(flat, _hide_harness)
    wire.send(control, {"ready": True, "sandbox": confined})
    spin_s = 0.0
    while True:
        try:
            message = wire.recv(control, None, spin_s)
        except wire.Closed:
            return
        try:
            answer = getattr(harness, message["do"])(message)
        except BaseException as error:
            answer = {"error": _words(error), "oom": _is_oom(error)}
        spin_s = float(message.get("spin_s", 0.0))  # how soon the next order comes, whose way is timed
        wire.send(control, {**answer, "nonce": message["nonce"]}, timeout=3600)


def _hide_harness() -> None:
    """No name leads from kernel.py to the harness: not an import, not the main module."""
    here = str(Path(__file__).parent)
    sys.path[:] = [folder for folder in sys.path if folder != here]
    for name, module in [*sys.modules.items()]:
        if name == "__main__" or str(getattr(module, "__file__", None)).startswith(here + os.sep):
            del sys.modules[name]
    sys.modules["__main__"] = types.ModuleType("__main__")


def import_kernel(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("kernel", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["kernel"] = module  # triton.jit and dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _is_oom(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _words(error: BaseException) -> str:
    """The error and the lines of kernel.py it came from; the harness's own frames tell the author nothing."""
    scratch = os.getcwd()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(scratch)]
    where = "".join(f"\n  {Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in frames[-4:])
    return f"{type(error).__name__}: {error}"[:MESSAGE_CHARS] + where
