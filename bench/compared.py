"""What verify works on: shared memory for a model's inputs and outputs, and processes with a model in each."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from arena import TYPES, Arena, Buffer, bytes_for
from worker import Worker, WorkerFailed
from workers import Pool

LOAD_S, FORWARD_S = 600.0, 300.0
MORE = 60  # further draws, for integers that may stand in others' places
SETS = 4  # different inputs, so that nothing computed for one can be passed off for another


class Failed(Exception):
    """The optimized model is not what it should be."""


@dataclass(frozen=True)
class Request:
    model: dict[str, Any]
    folder: Path  # holds optimized/
    only: list[str] | None
    chosen: list[str]

    @property
    def cache_key(self) -> str:
        digest = hashlib.sha256()
        for path in sorted((self.folder / "optimized").rglob("*.py")):
            digest.update(path.read_bytes())
        return f"model-{digest.hexdigest()}"


def read_request(request: dict[str, Any]) -> Request:
    folder = Path(request["optimized"]).resolve()
    path = folder / "optimized" / "manifest.json"
    kernels = json.loads(path.read_text())["kernels"]
    only = request.get("only")
    chosen = [k["kernel"] for k in kernels if (k["active"] if only is None else k["kernel"] in only)]
    return Request(request["model"], folder, only, chosen)


class Comparison:
    """One block of shared memory with inputs and output slots, and the processes that read and fill it."""

    def __init__(self, pool: Pool, device: torch.device, request: Request) -> None:
        self.pool, self.request, self.gpu = pool, request, device.type == "cuda"
        self.seeds, self.more = ([int.from_bytes(os.urandom(4), "big") for _ in range(n)] for n in (SETS, MORE))
        self.sets: list[list[dict[str, Any]]] = []
        self.words: list[Buffer | None] = []
        self.slots: list[list[Buffer]] = []
        self.arena = Arena(device, 1 << 20)
        try:
            need = self._survey()
        finally:
            self.arena.close()
        self.arena = Arena(device, need)

    def _survey(self) -> int:
        """Bytes that inputs, outputs and reference take, seen in a process that is gone before any of them is used."""
        scout, _ = self.start("original")
        with scout:
            told = scout.ask({"do": "draw", "seeds": self.seeds, "more": self.more}, FORWARD_S)
            self.outputs: list[dict[str, Any]] = scout.ask({"do": "forward", "set": 0}, FORWARD_S)["outputs"]
            self.wide, self.wide_outputs = _in_double(scout, self.outputs, self.request.model["dtype"])
            self.varies = _varies(scout)  # last: a wrong index may cost the process its device
        tensors = [x for given in told["sets"] for x in given if "shape" in x] + [x for x in told["words"] if x]
        tensors += self.outputs + self.wide_outputs
        return bytes_for([torch.empty(t["shape"], dtype=TYPES[t["dtype"]], device="meta") for t in tensors])

    @property
    def output_bytes(self) -> int:
        """Of one pass."""
        return bytes_for([torch.empty(o["shape"], dtype=TYPES[o["dtype"]], device="meta") for o in self.outputs])

    def close(self) -> None:
        self.arena.close()

    def start(self, side: str, poison: str | None = None) -> tuple[Worker, dict[str, Any]]:
        """A fresh process with the model in it: 'original', 'optimized' or 'compile'."""
        request, trusted = self.request, side != "optimized"
        folders = (str(Path(request.model["file"]).resolve().parent), str(request.folder), str(Path.home()))
        worker = self.pool.spawn(
            self.arena, request.cache_key if not trusted else f"model-{side}", "model", trusted, folders
        )
        try:
            worker.await_ready()
            worker.ask({"do": "load", "model": request.model}, LOAD_S)
            applied: dict[str, Any] = {}
            if side == "optimized":
                folder = request.folder
                if poison:
                    folder = worker.scratch / "poisoned"
                    shutil.copytree(request.folder / "optimized", folder / "optimized")
                told = worker.ask(
                    {"do": "apply", "folder": str(folder), "only": request.only, "poison": poison}, LOAD_S
                )
                skipped = told.get("skipped")
                applied = {
                    "replaced": counts(told.get("replaced")),
                    "skipped": skipped if isinstance(skipped, dict) else {},
                }
            if side == "compile":
                worker.ask({"do": "compile"}, LOAD_S)
            if self.sets:
                worker.ask({"do": "adopt", "sets": self.sets, "words": self.words}, FORWARD_S)
            return worker, applied
        except BaseException:
            worker.kill()
            raise

    def draw(self, original: Worker) -> None:
        """Inputs that nobody has seen, written by the original's process into room that the judge made."""
        told = original.ask({"do": "draw", "seeds": self.seeds, "more": self.more}, FORWARD_S)
        self.arena.reset()
        self.sets = []
        for inputs in told["sets"]:
            placed: list[dict[str, Any]] = []
            for at, item in enumerate(inputs):
                if "value" in item:
                    placed.append(item)
                else:
                    placed.append({"buffer": self.arena.reserve(f"input {at}", item["shape"], TYPES[item["dtype"]])})
            self.sets.append(placed)
        self.words = [x and self.arena.reserve("words", x["shape"], TYPES[x["dtype"]]) for x in told["words"]]
        original.ask({"do": "publish", "sets": self.sets, "words": self.words}, FORWARD_S)
        original.ask({"do": "adopt", "sets": self.sets, "words": self.words}, FORWARD_S)

    def make_slots(self) -> None:
        """Room for one answer of the model, and one of the model in double."""
        self.slots = [self._slots("output", self.outputs), self._slots("reference", self.wide_outputs)]
        self.arena.seal()

    def _slots(self, name: str, outputs: Sequence[dict[str, Any]]) -> list[Buffer]:
        return [self.arena.slot(f"{name} {at}", o["shape"], TYPES[o["dtype"]]) for at, o in enumerate(outputs)]

    def fetch(self, worker: Worker, wide: bool = False) -> list[torch.Tensor]:
        """A copy of what the process computed last."""
        slots = self.slots[wide]
        for buffer in slots:
            self.arena.poison(buffer)
        problem = worker.ask({"do": "deliver", "slots": slots}, FORWARD_S).get("problem")
        if problem:
            raise Failed(str(problem))
        return [self.arena.read(buffer) for buffer in slots]

    def intact(self) -> None:
        damage = self.arena.damage([buffer for slots in self.slots for buffer in slots])
        if damage:
            raise Failed(f"the optimized model {damage}")


def counts(told: object) -> dict[str, int]:
    """What an untrusted process says of how often: what is no number is left out."""
    pairs = told.items() if isinstance(told, dict) else ()
    return {str(name): number for name, number in pairs if isinstance(number, int)}


def _varies(original: Worker) -> bool:
    """Whether the model takes its inputs changed: some integers mean something only in their order."""
    try:
        plain, changed = (original.ask({"do": "forward", "set": 0, "vary": v}, FORWARD_S)["finite"] for v in (None, 0))
    except WorkerFailed as error:
        if error.kind == "timeout":
            raise
        return False
    return bool(changed or not plain)


def _in_double(original: Worker, outputs: list[dict[str, Any]], dtype: str) -> tuple[str, list[dict[str, Any]]]:
    """Double where the model runs in it, float32 where only that, else the model's own numbers."""
    for wide in ("float64", "float32"):
        try:
            return wide, original.ask({"do": "forward", "set": 0, "wide": wide}, FORWARD_S)["outputs"]
        except WorkerFailed as error:
            if error.kind == "timeout":
                raise
    return {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[dtype], outputs
