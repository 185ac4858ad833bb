"""THE JUDGE. Judges one kernel.py by hand, or stays warm and answers one JSON request a line.

python bench/bench.py kernels/rmsnorm/starter_cpp.py [--op rmsnorm] [--dtype fp32] [--quick] [--against FILE] [--json]
python bench/bench.py --serve --device cpu
"""

from __future__ import annotations

import argparse
import json
import math
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
PATIENCE_S = 2.0
REQUESTS = ("hello", "check", "time", "verify", "counters", "sanitize")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read once, when torch is imported: idle threads must not spin


def main() -> int:
    arguments = _parse()
    # whatever prints to stdout from here on, a library or a child, lands on stderr; answers have their own descriptor
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path.insert(0, str(BENCH.parent / "kernels"))
    from correctness import Limits
    from service import Judge
    from worker import JudgeError

    if arguments.device == "auto":
        import torch

        arguments.device = "cpu" if not torch.cuda.is_available() else "rocm" if torch.version.hip else "cuda"
    try:
        judge = Judge(arguments.device, arguments.sandbox, Limits(arguments.build_timeout, arguments.call_timeout))
    except JudgeError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    try:
        if arguments.serve:
            return _serve(judge, answers)
        import by_hand

        return by_hand.judge_file(judge, arguments, answers)
    except (JudgeError, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    finally:
        judge.close()


def _serve(judge: Any, answers: Any) -> int:
    threading.Thread(target=_end_with_daemon, daemon=True).start()
    for line in sys.stdin:
        if line.strip():
            answers.write(_encode(_answer(judge, line)) + "\n")
            answers.flush()
    return 0


def _end_with_daemon() -> None:
    """A daemon that was killed has let go of the device: what is being measured ends now, not when it is done."""
    daemon = os.getppid()
    watch = select.poll()
    watch.register(0, 0)  # no event but the hang-up, which is always told; until then this thread disturbs nothing
    watch.poll()
    while os.getppid() == daemon:  # it has only closed the pipe, and then all requests are answered first
        time.sleep(0.01)
    main_thread = threading.main_thread().ident
    if main_thread is not None:
        signal.pthread_kill(main_thread, signal.SIGINT)  # wakes it wherever it waits, and it closes what it opened
    time.sleep(PATIENCE_S)
    os._exit(1)


def _answer(judge: Any, line: str) -> dict[str, Any]:
    """Every request gets exactly one reply; what the judge cannot do is said in it and ends nothing."""
    number = -1
    try:
        request = json.loads(line)
        number = request["id"]
        handlers = {name: getattr(judge, name) for name in REQUESTS}
        if request["type"] not in handlers:
            raise ValueError(f"expected one of {', '.join(handlers)}, got '{request['type']}'")
        return {"id": number, "ok": True, "result": handlers[request["type"]](request)}
    except Exception as error:
        import traceback

        traceback.print_exc(file=sys.stderr)
        return {"id": number, "ok": False, "error": f"{type(error).__name__}: {error}"}


def _encode(reply: dict[str, Any]) -> str:
    return json.dumps(_finite(reply), allow_nan=False)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null says that there is no number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help="a kernel.py to judge by hand")
    parser.add_argument("--serve", action="store_true", help="answer requests from stdin until it closes")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "rocm"], default="auto")
    parser.add_argument("--sandbox", choices=["auto", "require", "none"], default="auto")
    parser.add_argument("--op", help="operation; default: the file's KERNEL_TYPE")
    parser.add_argument("--op-file", type=lambda path: str(Path(path).resolve()), help="a Python file that defines OP")
    parser.add_argument("--dtype", choices=["fp16", "bf16", "fp32"], help="default: bf16 on a GPU, fp32 on a CPU")
    parser.add_argument("--against", help="another kernel.py to be timed against")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="stop after the primary shape")
    parser.add_argument("--large", action="store_true", help="also beyond 2^31 elements; a GPU does that unasked")
    parser.add_argument("--counters", action="store_true", help="also what ncu counts at the primary shape")
    parser.add_argument("--sanitize", action="store_true", help="also what compute-sanitizer finds there")
    parser.add_argument("--allow-tf32", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int, help="for tests: the same inputs again")
    parser.add_argument("--build-timeout", type=float, default=180.0)
    parser.add_argument("--call-timeout", type=float, default=30.0)
    arguments = parser.parse_args()
    if arguments.serve == bool(arguments.file):
        parser.error("expected a kernel.py, or --serve and no file")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
