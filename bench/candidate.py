"""The untrusted child: imports kernel.py and runs it on shared buffers when told. What it says counts only with proof.

Everything taken from torch or time is bound here, before any candidate is imported, so that patching them is in vain.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import resource
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arena
import torch
import wire

perf_counter = time.perf_counter
as_strided, index_select, Tensor = torch.as_strided, torch.index_select, torch.Tensor
synchronize, Event = torch.cuda.synchronize, torch.cuda.Event
MESSAGE_CHARS = 4000


class Harness:
    """Keeps what one candidate process knows between orders."""

    def __init__(self, flat: torch.Tensor) -> None:
        self.flat = flat
        self.fn: Callable[..., Any] = lambda *_: None
        self.kept: dict[str, torch.Tensor] = {}
        self.plans: dict[str, dict[str, Any]] = {}
        self.gpu = flat.device.type == "cuda"
        self.empty = False  # the side that calibrates the clock: a kernel that takes no time
        self.nothing: dict[str, torch.Tensor] = {}

    def load(self, m: dict[str, Any]) -> dict[str, Any]:
        """Builds one side: a kernel.py, a baseline of the operation, or the empty call that calibrates the clock."""
        torch.backends.cuda.matmul.allow_tf32 = m["allow_tf32"]
        if m.get("builtin"):
            import baselines  # only here: a trusted side needs bench/ops, a candidate must not

            self.empty = m["builtin"] == "empty"
            if not self.empty:
                self.fn = baselines.build(m["builtin"], m["op"], m["op_file"], self.gpu)
            return {}
        module = _import(Path(m["path"]))
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
        out = self.fn(*inputs, **m["options"])
        problem = self._contract(out, slot, m.get("any_strides", False))
        if problem:
            return {"problem": problem}
        slot.copy_(out)
        if m.get("keep"):
            self.kept[m["keep"]] = out
        self._sync()
        return {}

    def recall(self, m: dict[str, Any]) -> dict[str, Any]:
        """Delivers an earlier call's result as it is now: a static buffer has been overwritten meanwhile."""
        arena.view(self.flat, m["output"]).copy_(self.kept[m["keep"]])
        self._sync()
        return {}

    def plan(self, m: dict[str, Any]) -> dict[str, Any]:
        self.plans[m["name"]] = m
        if not self.gpu:  # a page that this process never read costs its first reader more than the read itself
            for pool in (p["pool"] for p in m["inputs"] if p is not None):
                arena.view(self.flat, pool).view(torch.uint8)[:: mmap.PAGESIZE].sum()
        if self.empty:
            self.nothing[m["name"]] = torch.zeros_like(arena.view(self.flat, m["outputs"][0]))
        return {}

    def batch(self, m: dict[str, Any]) -> dict[str, Any]:
        """`count` calls, each on windows of the pools that only the secret tells; then the elements it asks for.

        An audit asks for elements of every call's output, so that skipped calls show.
        """
        plan, count = self.plans[m["name"]], m["count"]
        pools, whole = plan["inputs"], [None if p is None else arena.view(self.flat, p["pool"]) for p in plan["inputs"]]
        starts = [p["starts"] for p in pools if p is not None]
        offsets, kept_at, probes = arena.schedule(
            m["secret"], count, starts, plan["keep"], plan["probes"], plan["numel"]
        )
        calls = []
        for row in offsets:
            at, args = iter(row), []
            for pool, tensor in zip(pools, whole, strict=True):
                if tensor is None:
                    args.append(None)
                else:
                    base = tensor.storage_offset() + next(at) * pool["step"]
                    args.append(as_strided(tensor, pool["shape"], pool["strides"], base))
            calls.append(args)
        keep = [False] * count
        for index in kept_at:
            keep[index] = True
        fn, options, outs = self.fn, plan["options"], []
        if self.empty:
            nothing = self.nothing[m["name"]]
            fn = lambda *_inputs, **_options: nothing  # noqa: E731
        index = torch.tensor(probes, dtype=torch.int64, device=self.flat.device)
        # made beforehand: small results left between large ones would keep the allocator from using those again
        made = torch.empty(count, len(probes), dtype=arena.TYPES[plan["outputs"][0]["dtype"]], device=self.flat.device)
        marks = iter(made.unbind()) if m.get("audit") else None
        self._sync()
        began, events = perf_counter(), None
        if self.gpu:
            events = (Event(enable_timing=True), Event(enable_timing=True))
            events[0].record()
        for args, wanted in zip(calls, keep, strict=True):
            out = fn(*args, **options)
            if marks is not None:
                index_select(out.reshape(-1), 0, index, out=next(marks))
            elif wanted:
                outs.append(out)
        if events:
            events[1].record()
        self._sync()
        seconds = events[0].elapsed_time(events[1]) / 1e3 if events else perf_counter() - began
        slot = arena.view(self.flat, plan["outputs"][0])
        for result in outs if marks is None else [out]:
            problem = self._contract(result, slot)
            if problem:
                return {"problem": problem}
        self.kept = {str(at): out for at, out in enumerate(outs)}
        found = made.reshape(-1)
        if marks is None and probes:
            found = torch.cat([out.reshape(-1)[index] for out in outs])
        return {"seconds": seconds, "receipt": found.cpu().view(torch.uint8).numpy().tobytes().hex()}

    def deliver(self, m: dict[str, Any]) -> dict[str, Any]:
        for at, buffer in enumerate(self.plans[m["name"]]["outputs"][: len(self.kept)]):
            arena.view(self.flat, buffer).copy_(self.kept[str(at)])
        self._sync()
        return {}

    def memory(self, _m: dict[str, Any]) -> dict[str, Any]:
        if self.gpu:
            return {"peak_mb": torch.cuda.max_memory_allocated() / 2**20}
        return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    def _sync(self) -> None:
        if self.gpu:
            synchronize()

    def _contract(self, out: Any, slot: torch.Tensor, any_strides: bool = False) -> str:
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
        first, start = self.flat.data_ptr(), out.data_ptr()
        if out.numel() and first <= start < first + self.flat.numel():
            return "the output shares memory with an input; kernel_fn must return a new tensor"
        return ""


def serve(control: socket.socket, arena_fd: int, request: dict[str, Any], confined: str) -> None:
    """Answers orders until the judge hangs up."""
    flat = arena.attach(arena_fd, request["arena_bytes"], request["arena_handle"])
    sys.path[:0] = request["import_path"]
    harness: Any = Harness(flat)
    if request["role"] == "model":
        import model_child

        harness = model_child.ModelHarness(flat)
    wire.send(control, {"ready": True, "sandbox": confined})
    while True:
        try:
            message = wire.recv(control, None)
        except wire.Closed:
            return
        try:
            answer = getattr(harness, message["do"])(message)
        except BaseException as error:
            answer = {"error": _words(error), "oom": _is_oom(error)}
        wire.send(control, answer, timeout=3600)


def _import(path: Path) -> Any:
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
