"""Processes that make a check's calls beforehand, for what they leave in the compile cache."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "kernels")]

import op_table  # noqa: E402
import warmers  # noqa: E402
from arena import Arena  # noqa: E402
from trials import Plan  # noqa: E402
from worker import end, load_order  # noqa: E402
from workers import Pool  # noqa: E402

KERNEL = b"""
import json, os
import torch

FOLDER = os.environ["AUTOKERNEL_CACHE"]
os.makedirs(FOLDER, exist_ok=True)

def kernel_fn(x, weight, eps=1e-6):
    name = json.dumps([list(x.shape), list(x.stride()), str(x.dtype), float(x.abs().sum())])
    open(os.path.join(FOLDER, name), "w").close()
"""


def test_warmers_meet_every_known_shape_dtype_and_layout_once_and_no_secret_one(tmp_path: Path) -> None:
    op = op_table.load_ops()["rmsnorm"]
    plan = Plan(op, "fp32", [{"shape": [7, 96], "weight": 1.0}], False, random.Random(1))
    pool, block = Pool(False, "none", tmp_path), Arena(torch.device("cpu"), 1 << 20)
    helpers = warmers.start(pool, block, "key", lambda worker: load_order(worker, KERNEL, False), 2)
    warmers.tell(helpers, op, plan, block.device)
    try:
        wanted, seen = {(t.case.shape, str(t.dtype)) for t in warmers.known(plan)}, list[list]()
        until = time.monotonic() + 60
        while {(tuple(shape), dtype) for shape, _, dtype, _ in seen} != wanted and time.monotonic() < until:
            time.sleep(0.05)
            seen = [json.loads(path.name) for path in (tmp_path / "cache" / "key" / "cpp").glob("*")]
    finally:
        end(helpers)
        pool.close()
        block.close()
    assert {(tuple(shape), dtype) for shape, _, dtype, _ in seen} == wanted
    assert {shape for shape, _ in wanted} <= {(7, 96), *op.cpu_shapes, *op.cpu_edges, (31, 127), (5, 95)}
    assert {dtype for _, dtype in wanted} == {"torch.float32", "torch.float16", "torch.bfloat16"}
    assert all(total == 0 for *_, total in seen)
