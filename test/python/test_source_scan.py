"""What the judge reads in a kernel.py before it runs: what is refused, what makes a win held."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from source_scan import scan  # noqa: E402

KERNEL = b"\ndef kernel_fn(x):\n    return x\n"


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("import torch\nimport triton\nimport triton.language as tl\n", ""),
        ("import ctypes\nlib = ctypes.CDLL('kernel.so')\n", ""),
        ("import torch\ntorch.backends.cuda.matmul.allow_tf32 = True\n", ""),
        ("import subprocess\n", ""),
        ("import ctypes\nctypes.CDLL(None)\n", "the process itself"),
        ("import ctypes as c\nc.pythonapi.Py_Exit(0)\n", "interpreter"),
        ("from sys import _getframe\n", "frames"),
        ("import torch as t\nt.cuda.synchronize = None\n", "patching torch"),
        ("import time\ndel time.perf_counter\n", "patching time"),
        ("import os\nos.kill(1, 9)\n", "signals"),
        ("import socket\n", "connections"),
        ("import timed_calls\n", "harness"),
        ("from arena import schedule\n", "harness"),
        ("e = ValueError()\nf = e.__traceback__.tb_frame\n", "frames"),
        ("S = 'PyObject* f = PyEval_GetFrame();'\n", "interpreter"),
        ('import sys\nf = getattr(sys, "_getframe")(0)\n', "_getframe reads other functions' frames"),
        ("import torch\nf = torch.sys._getframe(0)\n", "_getframe reads other functions' frames"),
        ("import torch\ntorch.os.fork()\n", "torch.os.fork starts another process"),
        ('import operator\nb = operator.attrgetter("f_back.f_locals")\n', "f_back reads other functions' frames"),
        ("import torch\nx = torch._dynamo.utils.gc.get_objects()\n", "looks through the harness's objects"),
        ("import threading\nf = threading._sys._current_frames()\n", "_current_frames reads other functions' frames"),
        ("import traceback\nf = traceback.walk_stack(None)\n", "traceback.walk_stack reads other functions' frames"),
        ('S = "int PyGILState_Ensure();"\n', "'PyGILState_Ensure' in a string"),
    ],
)
def test_the_text_scan_refuses_the_plainly_hostile_and_nothing_else(text: str, refused: str) -> None:
    found = scan(text.encode() + KERNEL)
    assert (refused in found.refused) if refused else found.refused == ""


def test_the_text_scan_flags_what_deserves_a_closer_look() -> None:
    assert any("threading" in flag for flag in scan(b"import threading\n" + KERNEL).flags)
    assert any("eval" in flag for flag in scan(b"eval('1')\n" + KERNEL).flags)


@pytest.mark.parametrize(
    "text",
    [
        "getattr(object, 'a' + 'b', 0)\n",
        "eval('1')\n",
        "import gc\n",
        "KERNEL = vars()\n",
        "x.__globals__\n",
        "import torch\nm = torch.sys.modules\n",
        "import threading\nm = threading._sys.modules\n",
        "import sys\nm = sys.__dict__['modules']\n",
        "import builtins\nb = builtins.__import__('gc')\n",
        "s = setattr\n",
        "import ctypes\nc = ctypes.CDLL('libc.so.6')\n",
        "import torch\nt = torch.library.Library('aten', 'IMPL')\n",
    ],
)
def test_a_win_is_held_where_the_source_says_something_without_writing_it(text: str) -> None:
    assert scan(text.encode() + KERNEL).held
    assert scan(b"import threading\ngetattr(object, 'name', 0)\n" + KERNEL).held is None
