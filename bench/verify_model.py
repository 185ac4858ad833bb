"""The whole model, original against optimized, in separate processes: the same outputs, every kernel in use, how fast.

The judge has the inputs drawn from a seed of its own, owns the comparison and the clock. The original runs in a trusted
process, the optimized one in the sandbox of a candidate.
"""

from __future__ import annotations

import random
import time
from typing import Any

import torch
from compared import FORWARD_S, LOAD_S, Comparison, Failed, Request, counts, read_request
from worker import JudgeError, Worker, WorkerFailed
from workers import Pool

MULTIPLE = 3.0  # of the original's own error against the same model in double
FLOOR = {
    "fp32": 4.0,
    "bf16": 0.5,
    "fp16": 0.5,
}  # units of the dtype's epsilon, for a model whose own error is nearly none


def compare_outputs(
    compared: Comparison, original: Worker, optimized: Worker
) -> tuple[dict[str, float], dict[str, int]]:
    """Largest and normwise error of the optimized model against the original in double, and what is allowed."""
    compared.draw(original)
    optimized.ask({"do": "adopt", "sets": compared.sets, "words": compared.words}, FORWARD_S)
    compared.make_slots()
    worst = {"max_abs": 0.0, "normwise": 0.0, "allowed_normwise": 0.0}
    calls: dict[str, int] = {}
    for at in range(2):
        original.ask({"do": "forward", "set": at}, FORWARD_S)
        base = compared.fetch(original)
        original.ask({"do": "forward", "set": at, "wide": compared.wide}, FORWARD_S)
        reference = compared.fetch(original, wide=True)
        calls = counts(optimized.ask({"do": "forward", "set": at}, FORWARD_S).get("calls"))
        got = compared.fetch(optimized)
        compared.intact()
        for number, (want, plain, have) in enumerate(zip(reference, base, got, strict=True)):
            _compare(number, want, plain, have, compared.request.model["dtype"], worst)
    return worst, calls


def _compare(
    number: int, want: torch.Tensor, plain: torch.Tensor, have: torch.Tensor, dtype: str, worst: dict[str, float]
) -> None:
    if not have.is_floating_point():
        if not torch.equal(have, plain):
            raise Failed(
                f"output {number}: {int((have != plain).sum())} of {have.numel()} integers differ from the original's"
            )
        return
    if not torch.equal(have.isfinite(), plain.isfinite()):
        raise Failed(f"output {number}: NaN or Inf where the original has none, or none where it has")
    want, plain, have = (torch.where(plain.isfinite(), t.double(), 0.0) for t in (want, plain, have))
    size = float(torch.linalg.vector_norm(want)) or 1.0
    error = float(torch.linalg.vector_norm(have - want)) / size
    own = float(torch.linalg.vector_norm(plain - want)) / size
    allowed = (
        MULTIPLE * own
        + FLOOR[dtype] * torch.finfo({"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]).eps
    )
    worst["max_abs"] = max(worst["max_abs"], float((have - want).abs().max()) if have.numel() else 0.0)
    if error / allowed >= worst["normwise"] / (worst["allowed_normwise"] or 1.0):
        worst["normwise"], worst["allowed_normwise"] = error, allowed
    if not error <= allowed:
        raise Failed(
            f"output {number}: normwise error {error:.3g} against the model in double, allowed {allowed:.3g} "
            f"(the original has {own:.3g})"
        )


def is_used(compared: Comparison, kernel: str) -> tuple[bool, str]:
    """With NaN in place of the kernel's results, the model's output must hold NaN."""
    worker, applied = compared.start("optimized", poison=kernel)
    with worker:
        if not applied["replaced"].get(kernel):
            return False, str(applied["skipped"].get(kernel, "it replaces nothing"))
        worker.ask({"do": "forward", "set": 0}, FORWARD_S)
        outs = compared.fetch(worker)
    nan = any(bool(t.isnan().any()) for t in outs if t.is_floating_point())
    return nan, "" if nan else "the model's output holds no NaN although the kernel's does: it is not used"


def check_weights(original: Worker, optimized: Worker) -> None:
    one, two = (worker.ask({"do": "checksum"}, LOAD_S)["checksum"] for worker in (original, optimized))
    if one != two:
        raise Failed("the optimized model does not have the original's weights")


def verify(pool: Pool, device: torch.device, raw: dict[str, Any]) -> dict[str, Any]:
    from verify_rounds import time_rounds

    began = time.monotonic()
    request = read_request(raw)
    result: dict[str, Any] = {
        "verdict": "nothing",
        "detail": "no kernel is active",
        "kernels": [],
        "error": None,
        "rounds": [],
    }
    if request.chosen:
        try:
            compared = Comparison(pool, device, request)
        except WorkerFailed as error:
            raise JudgeError(f"the original model cannot be run: {error.detail}") from error
        try:
            result |= {"verdict": "pass", "detail": ""}
            _check(compared, request, bool(raw.get("nan_probe")), result)
            sides = ["original", "optimized", *(["compile"] if raw.get("compile") else [])]
            time_rounds(compared, sides, int(raw.get("rounds", 0)), random.SystemRandom(), result)
        except Failed as error:
            result |= {"verdict": "fail", "detail": str(error)}
        finally:
            compared.close()
    return {**result, "wall_s": round(time.monotonic() - began, 3)}


def _check(compared: Comparison, request: Request, nan_probe: bool, result: dict[str, Any]) -> None:
    original, _ = compared.start("original")
    with original:
        try:
            optimized, applied = compared.start("optimized")
            with optimized:
                check_weights(original, optimized)
                result["error"], calls = compare_outputs(compared, original, optimized)
            for kernel in request.chosen:
                sites = applied["replaced"].get(kernel, 0)
                used, detail = sites > 0 and calls.get(kernel, 0) > 0, str(applied["skipped"].get(kernel, ""))
                if nan_probe and sites:
                    used, detail = is_used(compared, kernel)
                result["kernels"].append({"kernel": kernel, "sites": sites, "used": used, "detail": detail})
        except WorkerFailed as error:
            raise Failed(f"the optimized model ended in a {error.kind}: {error.detail}") from error
    idle = [f"{k['kernel']} ({k['detail'] or 'never called'})" for k in result["kernels"] if not k["used"]]
    if idle:
        raise Failed(f"not used by the model: {', '.join(idle)}")
