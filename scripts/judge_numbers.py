"""Measures what the judge is held to: how long verdicts take, what identical kernels look like, what hung ones cost.

    python scripts/judge_numbers.py [--device cpu] [--part verdicts|refusals|bad|null|gains|samples]... [--small]

Needs torch and the repository; null and gains also `npm run build` and a node on the PATH, for the daemon's rule.
Writes one JSON document (bench/samples/<device>.json unless told) and prints its table;
parts that are not asked for are taken over from that file. `npx tsx scripts/judge-power.ts bench/samples` then puts the
recorded pairs to the daemon's own rule: what it keeps of nothing, and of true gains. `gains` and `samples` add an
occasion each time, so that the same kernels measured after a restart of the machine can be compared; `null` adds to
what is there, one after the other, so that a machine that is lent for minutes gets there. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "test" / "python"))

from daemon_rule import DaemonRule  # noqa: E402
from judge_client import Client  # noqa: E402

BACKENDS = {"cuda": ("triton", "cuda"), "cpu": ("cpp",)}
DTYPE = {"cuda": "fp16", "cpu": "fp32"}
# About 20 and 70 us on an H200; on a CPU as many rows as keep a core's cache out of it.
NULL_KERNELS = {
    "cuda": (("rmsnorm", (4096, 4096)), ("softmax", (8192, 8192))),
    "cpu": (("rmsnorm", (1024, 2048)), ("softmax", (1024, 1024))),
}
# The same kernel with a share of its rows computed twice: a slower incumbent, over which the starter is a true gain.
TWICE = (
    ("tl.program_id(0).to(tl.int64) * ROWS", "(tl.program_id(0) % tl.cdiv(n_rows, ROWS)).to(tl.int64) * ROWS"),
    ("grid = (triton.cdiv(n_rows, tile_rows),)", "grid = (triton.cdiv(n_rows, tile_rows) * {percent} // 100,)"),
)
TWICE_PERCENT = 103
CALL_TIMEOUT_S = 6
BAD = {
    "hangs": "import time; time.sleep(1000)",
    "crashes": "import ctypes; ctypes.string_at(8)",
    "poisons the context": "torch.zeros(4, device=x.device)[torch.full((4,), 1 << 30, device=x.device)].sum().item()",
}
BAD_ON_A_GPU = {"hangs on the device": "torch.cuda._sleep(1 << 60); torch.cuda.synchronize()"}
REFUSED = {"does not parse": "return (", "fails smoke": "return x * 0"}

OCCASIONS = ("gains", "samples")
PARTS = ("verdicts", "refusals", "bad", "null", "gains", "samples")

Record = dict[str, Any]


class Numbers:
    def __init__(self, device: str, small: bool, folder: Path) -> None:
        self.device, self.small, self.folder = device, small, folder
        self.backends, self.rule = BACKENDS[device], DaemonRule()
        self.client = Client(folder / "cache", "--call-timeout", str(CALL_TIMEOUT_S), device=device)
        self.facts = self.client.ask("hello")["result"]["device"]

    def kernel(self, op: str, backend: str, name: str) -> Path:
        """A copy of a starter: the same kernel under another hash, and so with a compile cache of its own."""
        path = self.folder / f"{op}_{backend}_{name}.py"
        path.write_text((ROOT / "kernels" / op / f"starter_{backend}.py").read_text() + f"\n# {name}\n")
        return path

    def stub(self, body: str, name: str) -> Path:
        path = self.folder / f"{name.replace(' ', '_')}.py"
        path.write_text(f"import torch\n\n\ndef kernel_fn(x, weight, eps=1e-6):\n    {body}\n")
        return path

    def verdicts(self) -> list[Record]:
        """Check and screening pair of each starter, first with nothing compiled, then as often as it is asked for."""
        rows = []
        ops = sorted(path.name for path in (ROOT / "kernels").iterdir() if (path / "starter_cpp.py").exists())
        for op in ops[:: 4 if self.small else 1]:
            for backend in self.backends:
                incumbent, candidate = (self.kernel(op, backend, name) for name in ("incumbent", "candidate"))
                cold = self._verdict(op, incumbent, candidate)
                warm = [self._verdict(op, incumbent, candidate) for _ in range(1 if self.small else 3)]
                best = {key: statistics.median(run[key] for run in warm) for key in ("check_s", "screen_s")}
                stages = {stage["name"]: stage["seconds"] for stage in warm[0]["stages"]}
                wrong = next((run["detail"] for run in (cold, *warm) if run["detail"]), "")
                rows.append(
                    {"op": op, "backend": backend, **best, "stages": stages, "detail": wrong}
                    | {"verdict_s": best["check_s"] + best["screen_s"]}
                    | {"compile_s": max(0.0, cold["check_s"] - best["check_s"])}
                )
                say(f"{op} {backend}: {rows[-1]['verdict_s']:.2f} s, compiling {rows[-1]['compile_s']:.2f} s {wrong}")
        return rows

    def _verdict(self, op: str, incumbent: Path, candidate: Path) -> Record:
        check = self.client.check(candidate, op, DTYPE[self.device])
        timing = self._pairs(op, incumbent, candidate, 1, []) if check["verdict"] == "pass" else None
        detail = check["detail"] or str((timing and timing["failure"]) or "")
        screen_s = timing["wall_s"] if timing else 0.0
        return {"check_s": check["wall_s"], "screen_s": screen_s, "stages": check["stages"], "detail": detail}

    def refusals(self) -> list[Record]:
        rows = []
        for name, body in REFUSED.items():
            runs = [self._seconds(self.stub(body, name)) for _ in range(3 if self.small else 10)]
            rows.append({"what": name, "seconds": [seconds for seconds, _ in runs], "verdict": runs[0][1]})
        return rows

    def bad(self) -> list[Record]:
        """What each costs, and whether the next candidate is judged as if nothing had been."""
        rows = []
        good = self.stub("return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)", "good")
        for name, body in (BAD | (BAD_ON_A_GPU if self.device == "cuda" else {})).items():
            seconds, verdict = self._seconds(self.stub(body, name))
            rows.append({"what": name, "seconds": [seconds], "verdict": verdict, "next": self._seconds(good)[1]})
        return rows

    def _seconds(self, path: Path) -> tuple[float, str]:
        began = time.monotonic()
        verdict = self.client.check(path, "rmsnorm", DTYPE[self.device])["verdict"]
        return round(time.monotonic() - began, 3), verdict

    def null(self) -> list[Record]:
        """A whole judgement of each null kernel against itself."""
        return [
            self._judged(op, shape, *(self.kernel(op, self.backends[0], name) for name in ("incumbent", "candidate")))
            for op, shape in NULL_KERNELS[self.device]
        ]

    def gains(self, count: int) -> list[Record]:
        """Whole judgements of a kernel against one that is a little slower in truth."""
        if self.device != "cuda":
            return []
        op, shape = NULL_KERNELS[self.device][0]
        slower, faster = (self.kernel(op, self.backends[0], name) for name in ("slower", "candidate"))
        text = slower.read_text()
        for usual, twice in TWICE:
            assert text.count(usual) == 1, f"the {op} starter has changed: {usual!r} is not in it once"
            text = text.replace(usual, twice.format(percent=TWICE_PERCENT))
        slower.write_text(text)
        return [self._judged(op, shape, slower, faster) for _ in range(count)]

    def _judged(self, op: str, shape: tuple[int, ...], incumbent: Path, candidate: Path) -> Record:
        """Pairs for as long as the daemon's rule asks for more."""
        rounds: list[Record] = []
        while (decision := self.rule.decide(rounds))["kind"] == "more":
            found = self._rounds(op, incumbent, candidate, decision["rounds"], shape)
            if not found:
                break
            rounds += found
        verdict = decision.get("verdict", {"kind": "none"})
        say(f"{op}: {verdict['kind']} after {len(rounds)} pairs")
        return {"op": op, "shape": shape, "rounds": rounds}

    def samples(self, rounds: int) -> list[Record]:
        """Pairs of processes that run the same kernel, to be drawn from again and again."""
        rows = []
        for op, shape in NULL_KERNELS[self.device]:
            a, b = (self.kernel(op, self.backends[0], name) for name in ("incumbent", "candidate"))
            rows.append({"op": op, "shape": shape, "rounds": self._rounds(op, a, b, rounds, shape)})
            say(f"samples {op}: {len(rows[-1]['rounds'])} pairs of processes")
        return rows

    def _rounds(self, op: str, incumbent: Path, candidate: Path, rounds: int, shape: tuple[int, ...]) -> list[Record]:
        timing = self._pairs(op, incumbent, candidate, rounds, [{"shape": shape, "options": {}, "weight": 1.0}])
        if timing["failure"]:
            say(f"{op}: {timing['failure']}")
        return [
            {**r, "us": {k: [[round(v, 3) for v in s] for s in us] for k, us in r["us"].items()}}
            for r in timing["rounds"]
        ]

    def _pairs(self, op: str, incumbent: Path, candidate: Path, rounds: int, shapes: list[Record]) -> Record:
        sides = {"incumbent": str(incumbent), "candidate": str(candidate)}
        return self.client.time(sides, op, DTYPE[self.device], rounds=rounds, shapes=shapes)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(document: Record) -> str:
    """What this file alone can say; kept shares are judge-power.ts's to say."""
    lines = [f"{document['device']['name']}, torch {document['device']['torch']}", "| what | measured |", "|---|---|"]
    rows = document.get("verdicts", [])
    for backend in sorted({row["backend"] for row in rows}):
        mine = [row for row in rows if row["backend"] == backend]
        for key, what in (("verdict_s", "verdict, all stages and screening, compiled"), ("compile_s", "compiling")):
            seconds = sorted(row[key] for row in mine)
            tail = seconds[round(0.95 * (len(seconds) - 1))]
            said = f"median {statistics.median(seconds):.2f} s, p95 {tail:.2f} s"
            lines.append(f"| {what}, {backend}, {len(mine)} operations | {said} |")
    for row in document.get("refusals", []):
        what = f"verdict of one that {row['what']} ({row['verdict']})"
        lines.append(f"| {what} | median {statistics.median(row['seconds']):.2f} s |")
    for row in document.get("bad", []):
        what = f"one that {row['what']} ({row['verdict']}), timeout {CALL_TIMEOUT_S} s"
        lines.append(f"| {what} | {row['seconds'][0]:.2f} s, the next one: {row['next']} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(BACKENDS), default="cuda")
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--small", action="store_true", help="a few of each, to see that it works")
    parser.add_argument("--null", type=int, help="judgements of each null kernel; default 100, small 2")
    parser.add_argument("--gains", type=int, help="judgements of a true gain; default 20, small 2")
    parser.add_argument("--rounds", type=int, help="pairs of processes that are sampled; default 60, small 4")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    small = arguments.small
    with tempfile.TemporaryDirectory(prefix="judge-numbers-") as folder:
        numbers = Numbers(arguments.device, small, Path(folder))
        label = "".join(c if c.isalnum() else "-" for c in numbers.facts["name"].split(" (")[0])
        out = arguments.out or ROOT / "bench" / "samples" / f"{label}.json"
        document: Record = json.loads(out.read_text()) if out.exists() else {}
        document["device"] = {key: numbers.facts[key] for key in ("kind", "name", "torch", "triton")}
        work: dict[str, Callable[[], list[Record]]] = {
            "verdicts": numbers.verdicts,
            "refusals": numbers.refusals,
            "bad": numbers.bad,
            "null": numbers.null,
            "gains": lambda: numbers.gains(arguments.gains or (2 if small else 20)),
            "samples": lambda: numbers.samples(arguments.rounds or (4 if small else 60)),
        }
        times = {"null": arguments.null or (2 if small else 100)}
        wanted = [[part] * times.get(part, 1) for part in arguments.part or work]
        try:
            for part in itertools.chain(*wanted):
                found, before = work[part](), document.get(part, [])
                document[part] = before + found if part == "null" else found
                if part in OCCASIONS:
                    document[part] = [*before, found]
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps(document, separators=(",", ":")))
        finally:
            numbers.client.close()
            numbers.rule.close()
    say(f"written to {out}")
    print(table(document))


if __name__ == "__main__":
    main()
