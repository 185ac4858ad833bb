"""A model in, its kernels out: which operations take its time, at which shapes, and what faster ones would give.

Run: python profile/profile_model.py --model models/llama.py --device cpu --out profile.json
The table on stdout is for people, --out is for programs. Exit 2: the model or the arguments are at fault; 3: the
machine is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        fail(2, message)


def fail(code: int, message: str) -> NoReturn:
    print(f"profile: {message}", file=sys.stderr)
    raise SystemExit(code)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog="profile_model.py", description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", required=True, metavar="FILE[:CLASS]")
    parser.add_argument("--class", dest="class_name", metavar="CLASS")
    parser.add_argument("--input-shape", type=_sizes, metavar="1,512")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), help="default: fp32 on a CPU, bf16 on a GPU")
    parser.add_argument("--device", choices=("cpu", "cuda", "rocm"), default="cpu")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the profile as JSON")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="a Chrome trace (chrome://tracing, ui.perfetto.dev)")
    parser.add_argument(
        "--memory-snapshot", type=Path, metavar="FILE", help="GPU: for pytorch.org/memory_viz; CPU: JSON"
    )
    parser.add_argument("--compile-log", type=Path, metavar="FILE", help="what torch.compile says about the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warmup", type=_count(0), default=5)
    parser.add_argument("--iterations", type=_count(1), default=10)
    args = parser.parse_args(argv)
    args.dtype = args.dtype or ("fp32" if args.device == "cpu" else "bf16")
    file, _, named = args.model.rpartition(":")
    if file and named.isidentifier():
        args.model, args.class_name = file, args.class_name or named
    return args


def _sizes(text: str) -> tuple[int, ...]:
    sizes = text.replace("x", ",").split(",")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"expected positive sizes such as 1,512, got '{text}'")
    return tuple(int(size) for size in sizes)


def _count(least: int):
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a number of at least {least}, got '{text}'")
        return int(text)

    return count


def main(argv: list[str]) -> None:
    args = parse(argv)
    for file in (args.out, args.trace, args.memory_snapshot, args.compile_log):
        if file and not file.parent.is_dir():  # said now, not after minutes of work
            fail(2, f"cannot write {file}: there is no folder {file.parent}")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # before torch: its profiler's chatter is not for our stderr
    sys.path[1:1] = [str(ROOT / "models"), str(ROOT / "kernels")]
    from model_loader import ModelError
    from profile_run import DeviceError, Request, profile_model
    from profile_table import render

    request = Request(
        file=args.model,
        class_name=args.class_name,
        input_shape=args.input_shape,
        dtype=args.dtype,
        device=args.device,
        seed=args.seed,
        warmup=args.warmup,
        iterations=args.iterations,
        trace=args.trace,
        memory_snapshot=args.memory_snapshot,
        compile_log=args.compile_log,
    )
    try:
        profile = profile_model(request, lambda text: print(f"profile: {text}", file=sys.stderr))
        if args.out:
            args.out.write_text(json.dumps(profile, indent=1) + "\n")
    except ModelError as error:
        fail(2, str(error))
    except DeviceError as error:
        fail(3, str(error))
    except OSError as error:
        fail(3, str(error))
    print(render(profile))


if __name__ == "__main__":
    main(sys.argv[1:])
