"""Builds an `optimized/` folder as a run leaves it, with toy kernels in plain torch, and imports it."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "models"))
sys.path.append(str(Path(__file__).resolve().parents[2] / "kernels"))

ROOT = Path(__file__).resolve().parents[2]
# Each writes its formula out, so that it shares nothing with the code it replaces.
TOYS = {
    "linear": """def kernel_fn(x, weight, bias=None):
    y = x @ weight.t()
    return y if bias is None else y + bias""",
    "softmax": """def kernel_fn(x):
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)""",
    "layernorm": """def kernel_fn(x, weight, bias, eps=1e-5):
    c = x - x.mean(-1, keepdim=True)
    return c / torch.sqrt((c * c).mean(-1, keepdim=True) + eps) * weight + bias""",
    "rmsnorm": """def kernel_fn(x, weight, eps=1e-6):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight""",
    "fused_mlp": """def kernel_fn(x, w_gate, w_up, w_down, activation="silu"):
    act = {"silu": F.silu, "gelu": lambda g: F.gelu(g, approximate="tanh"), "relu": F.relu}[activation]
    return (act(x @ w_gate.t()) * (x @ w_up.t())) @ w_down.t()""",
    "flash_attention": """def kernel_fn(q, k, v, causal=True, sm_scale=None):
    s = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if sm_scale is None else sm_scale)
    if causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool).triu(1), float("-inf"))
    return s.softmax(-1) @ v""",
    "rotary_embedding": """def kernel_fn(x, cos, sin):
    y = torch.empty_like(x)
    y[..., ::2] = x[..., ::2] * cos - x[..., 1::2] * sin
    y[..., 1::2] = x[..., ::2] * sin + x[..., 1::2] * cos
    return y.contiguous()""",
}
TOYS["flash_attention_gqa"] = TOYS["flash_attention"].replace(
    "    s = q", "    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))\n    s = q", 1
)
NAN = "def kernel_fn(x, *rest, **options):\n    return torch.full_like(x, float('nan'))"
HEAD = "import torch\nimport torch.nn.functional as F\nimport autokernel_rt\n\n\n"
_serial = itertools.count()


def entry(op: str, kernel: str | None = None, **changes: Any) -> dict[str, Any]:
    plain = {"kernel": kernel or op, "op": op, "dtype": "fp32", "backend": "cpp", "shapes": [], "active": True}
    return plain | changes


def export(folder: Path, entries: list[dict[str, Any]], sources: dict[str, str] | None = None) -> ModuleType:
    """Writes the folder and imports it under a name of its own."""
    home = folder / "optimized"
    home.mkdir(parents=True)
    for file in (ROOT / "kernels").glob("autokernel_*.py"):
        shutil.copy(file, home / ("__init__.py" if file.stem == "autokernel_apply" else file.name))
    (home / "manifest.json").write_text(json.dumps({"format": 1, "kernels": entries}))
    for kernel in entries:
        (home / kernel["kernel"]).mkdir()
        source = (sources or {}).get(kernel["kernel"], TOYS.get(kernel["op"], ""))
        (home / kernel["kernel"] / "kernel.py").write_text(HEAD + source + "\n")
    name = f"optimized_{next(_serial)}"
    spec = importlib.util.spec_from_file_location(name, home / "__init__.py", submodule_search_locations=[str(home)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
