"""Judges all corpora and every starter on this machine's GPU, without pytest or Node: a table last, JSON on request.

    python scripts/gpu_suite.py [--only cheats|honest|hostile|starters]... [--named TEXT]... [--share 1/3] [--json FILE]

Needs torch, triton and the repository. `--named` takes those with the text in their names, `--share 1/3` every third
kernel from the first on, for machines that are lent for minutes; `--device cpu` needs no GPU. Exits 1 when a cheat was
accepted, an honest kernel turned away, or a starter failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "test" / "python"))

import corpus  # noqa: E402
from corpus import Kernel  # noqa: E402
from judge_client import Client  # noqa: E402

SECTIONS = ("cheats", "honest", "hostile", "starters")
BACKENDS = {"cuda": ("triton", "cuda"), "cpu": ("cpp",)}
NORMAL = Kernel(ROOT / "kernels" / "rmsnorm" / "starter_triton.py", "rmsnorm", "cuda", False, None)
HURRIED = ("--call-timeout", "10", "--build-timeout", "60")  # else each hanging cheat costs minutes


class Suite:
    def __init__(self, device: str, cache: Path) -> None:
        self.device, self.cache, self.clients = device, cache, dict[bool, Client]()
        self.rows: list[dict[str, Any]] = []

    def client(self, slow: bool) -> Client:
        if slow not in self.clients:
            self.clients[slow] = Client(self.cache, *(() if slow else HURRIED), device=self.device)
        return self.clients[slow]

    def close(self) -> None:
        for client in self.clients.values():
            client.close()
        self.clients.clear()

    def judge(self, section: str, name: str, slow: bool, judged: Callable[[Client], str]) -> None:
        began = time.monotonic()
        try:
            problem = judged(self.client(slow))
        except (AssertionError, OSError, ValueError) as error:
            problem = f"the judge failed: {type(error).__name__}: {str(error)[:300]}"
            self.close()  # a judge that is gone or confused is replaced
        seconds = round(time.monotonic() - began, 2)
        self.rows.append({"section": section, "name": name, "problem": problem, "seconds": seconds})
        print(f"{'FAIL' if problem else 'ok':4} {section:9} {name:40} {seconds:6.1f} s  {problem}", flush=True)

    def corpora(self, section: str, share: Callable[[list[Any]], list[Any]]) -> None:
        on_gpu = self.device == "cuda"
        for kernel in share([k for k in corpus.listed(section) if corpus.runs_on(k, self.device)]):
            self.judge(
                section, kernel.path.stem, kernel.slow, lambda client, k=kernel: _one(client, section, k, on_gpu)
            )

    def starters(self, share: Callable[[list[Any]], list[Any]]) -> None:
        large = self.device == "cuda"
        dtype = "bf16" if large else "fp32"
        paths = [p for b in BACKENDS[self.device] for p in sorted((ROOT / "kernels").glob(f"*/starter_{b}.py"))]
        for path in share(paths):
            kernel = Kernel(path, path.parent.name, self.device, False, None)
            name = f"{path.parent.name} {path.stem[8:]}"
            self.judge("starters", name, False, lambda client, k=kernel: corpus.passes(client, k, dtype, large))

    def table(self) -> str:
        lines = ["", f"{'section':9} {'judged':>7} {'right':>6} {'wrong':>6} {'seconds':>8}"]
        for section in SECTIONS:
            rows = [row for row in self.rows if row["section"] == section]
            wrong = sum(bool(row["problem"]) for row in rows)
            if rows:
                seconds = sum(row["seconds"] for row in rows)
                lines.append(f"{section:9} {len(rows):7} {len(rows) - wrong:6} {wrong:6} {seconds:8.0f}")
        return "\n".join(lines)


def _named(items: list[Any], texts: list[str]) -> list[Any]:
    """Of kernels, or of the paths of starters, those that were asked for."""
    paths = [(item, str(getattr(item, "path", item))) for item in items]
    return [item for item, path in paths if not texts or any(text in path.rpartition("/kernels/")[2] for text in texts)]


def _one(client: Client, section: str, kernel: Kernel, on_gpu: bool) -> str:
    if section == "honest":
        return corpus.passes(client, kernel)
    problem = corpus.turned_away(client, kernel, on_gpu)
    if section == "hostile" and not problem:
        problem = corpus.passes(client, NORMAL, "bf16")
        return f"the next one: {problem}" if problem else ""
    return problem


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(BACKENDS), default="cuda")
    parser.add_argument("--only", action="append", choices=SECTIONS)
    parser.add_argument("--named", action="append", default=[], metavar="TEXT")
    parser.add_argument("--share", default="1/1", metavar="I/N")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    first, every = (int(part) for part in arguments.share.split("/"))

    with tempfile.TemporaryDirectory(prefix="gpu-suite-") as folder:
        suite = Suite(arguments.device, Path(folder))
        try:
            device = suite.client(slow=False).ask("hello")["result"]["device"]
            for section in arguments.only or SECTIONS:
                share = lambda items: _named(items, arguments.named)[first - 1 :: every]  # noqa: E731
                suite.starters(share) if section == "starters" else suite.corpora(section, share)
        finally:
            suite.close()
    label = f"{device['name']}, torch {device['torch']}, triton {device['triton']}"
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": label, "share": arguments.share, "rows": suite.rows}, indent=1))
    print(f"\n{label}")
    for row in suite.rows:
        if row["problem"]:
            print(f"FAIL {row['section']} {row['name']}: {row['problem']}")
    print(suite.table())
    return int(any(row["problem"] for row in suite.rows))


if __name__ == "__main__":
    sys.exit(main())
