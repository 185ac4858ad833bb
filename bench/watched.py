"""The process that ncu or compute-sanitizer watches: makes inputs, confines itself, imports kernel.py, and calls it.

python bench/watched.py '{"kernel": ..., "op": ..., "shape": [...], "level": "full", ...}'
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "kernels"))
sys.path.insert(0, str(HERE.parent / "models"))

import baselines  # noqa: E402
import sandbox  # noqa: E402
import trials  # noqa: E402
from candidate import import_kernel  # noqa: E402

from op import DTYPES, Case  # noqa: E402

CPU_SECONDS = 600


def main() -> None:
    order = json.loads(sys.argv[1])
    op = baselines.find_op(order["op"], order["op_file"])
    torch.backends.cuda.matmul.allow_tf32 = bool(order["allow_tf32"])
    trial = trials.Trial(Case(tuple(order["shape"]), order["options"]), DTYPES[order["dtype"]])
    inputs = trials.draw(op, trial, torch.Generator(device="cuda").manual_seed(1))
    options = {**op.options, **order["options"]}
    torch.cuda.synchronize()  # the tool has connected by now
    if order["level"] != "none":
        print(f"confined: {confine(order)}", flush=True)
    fn = import_kernel(Path(order["kernel"])).kernel_fn
    for _ in range(3):  # compiled, tuned, allocated
        fn(*inputs, **options)
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    fn(*inputs, **options)
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()
    print("watched to the end", flush=True)


def confine(order: dict[str, Any]) -> str:
    """What is possible for a process that is being watched: it stays in the tool's PID and mount namespaces."""
    names = sandbox.unshare_namespaces(only_net=True)
    if order["level"] == "full":
        sandbox.drop_capabilities()
    sandbox.limit_resources(None, CPU_SECONDS)
    sandbox.prctl(sandbox.PR_SET_NO_NEW_PRIVS, 1)
    abi = sandbox.landlock(order["writable"], order["readable"])
    return sandbox.describe(names, [], abi, sandbox.seccomp())


if __name__ == "__main__":
    main()
