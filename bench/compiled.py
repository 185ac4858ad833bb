"""What the compilers made of a candidate: registers, spills, shared memory, occupancy; for C++ the width of vectors.

`Notes` gathers it in the candidate's own process. So it is information for whoever reads the report, bounded by
`accept`, and never part of a verdict.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MOST_KERNELS, MOST_CHARS, MOST_NUMBER = 8, 80, 1 << 40
MOST_LIBRARIES, LIBRARY_BYTES, OBJDUMP_S = 4, 2 << 20, 10
NUMBERS = ("registers", "spills", "shared_bytes", "occupancy")

PACKED = re.compile(r"\tv?(?:\w+p[sd]|p(?:add|sub|mul|madd|and|or|xor|cmp|max|min|s[lr])\w*)\s[^\n]*%([xyz])mm")
NEON = re.compile(r"\tf?\w+\s+v\d+\.(?:16b|8h|4s|2d)")
TO_STACK = re.compile(r"\tv?mov\w+\s+%[xyz]mm\d+,-?(?:0x)?[0-9a-f]*\(%r[sb]p\)|\tst[rp]\s+q\d+,[^\n]*\[sp")
UNPRINTABLE = re.compile(r"[^\x20-\x7e]")  # names go to terminals
WIDTHS = {"x": 128, "y": 256, "z": 512}


class Notes:
    """Watches calls in which it is worth knowing what was launched."""

    def __init__(self, folders: Sequence[str] = ()) -> None:
        self.folders = tuple(folders)  # where what this candidate compiled may lie
        self.triton: dict[int, Any] = {}

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        self.triton = {}
        if "autokernel_cuda" in sys.modules:
            sys.modules["autokernel_cuda"].launched.clear()
        compiler = sys.modules.get("triton.compiler.compiler")
        kept = getattr(getattr(compiler, "CompiledKernel", None), "launch_metadata", None)
        if compiler is None or kept is None:
            yield
            return
        notes = self.triton

        def noted(kernel: Any, *arguments: Any) -> Any:
            notes[id(kernel)] = kernel
            return kept(kernel, *arguments)

        compiler.CompiledKernel.launch_metadata = noted
        try:
            yield
        finally:
            compiler.CompiledKernel.launch_metadata = kept

    def report(self) -> dict[str, Any]:
        kernels = [*map(_triton_kernel, self.triton.values()), *_cuda_kernels()][:MOST_KERNELS]
        return {"kernels": kernels, **(_vectors(self.folders) or {})}


def _triton_kernel(kernel: Any) -> dict[str, Any]:
    meta = kernel.metadata
    threads = meta.num_warps * meta.target.warp_size
    return {
        "name": meta.name,
        "registers": getattr(kernel, "n_regs", None),
        "spills": getattr(kernel, "n_spills", None),
        "shared_bytes": meta.shared,
        "occupancy": _occupancy(kernel.function, threads, meta.shared),
    }


def _cuda_kernels() -> Iterator[dict[str, Any]]:
    cuda: Any = sys.modules.get("autokernel_cuda")
    for kernel, threads, shared in [*cuda.launched.values()] if cuda else []:
        with contextlib.suppress(RuntimeError):  # a driver that does not tell
            found = cuda.attributes(kernel)
            yield {
                "name": kernel.name,
                "registers": found["registers"],
                "spills": found["spilled"] // 4,
                "shared_bytes": found["shared"] + shared,
                "occupancy": _occupancy(kernel.function().value, threads, shared),
            }


def _occupancy(function: Any, threads: int, shared: int) -> float | None:
    try:
        import autokernel_cuda

        return round(autokernel_cuda.occupancy(function, threads, shared), 4)
    except Exception:  # a driver without this question, or a kernel that was never loaded
        return None


def _vectors(folders: Sequence[str]) -> dict[str, Any] | None:
    """Of libraries compiled here: the widest vectors they compute with, and how often vectors go to the stack."""
    texts = [text for path in _libraries(folders)[:MOST_LIBRARIES] if (text := _disassembled(path))]
    if not texts:
        return None
    widths = {WIDTHS[letter] for text in texts for letter in set(PACKED.findall(text))}
    widths |= {128 for text in texts if NEON.search(text)}
    return {"vector_width": max(widths, default=0), "vector_spills": sum(len(TO_STACK.findall(text)) for text in texts)}


def _libraries(folders: Sequence[str]) -> list[Path]:
    """Shared libraries in this process that lie where only the candidate writes."""
    with contextlib.suppress(OSError):
        mapped = {
            line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line
        }
        return sorted(Path(path) for path in mapped if path.startswith(tuple(folders)) and ".so" in Path(path).name)
    return []


def _disassembled(path: Path) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if path.stat().st_size <= LIBRARY_BYTES:
            command = ["objdump", "-d", "--no-show-raw-insn", "--no-addresses", str(path)]
            return subprocess.run(command, capture_output=True, timeout=OBJDUMP_S, check=True).stdout.decode("latin-1")
    return ""


def accept(answer: dict[str, Any]) -> dict[str, Any] | None:
    """The judge's side: what an untrusted process says of itself, cut to the report's form, or None."""
    listed = answer.get("kernels")
    kernels = [
        {
            "name": UNPRINTABLE.sub("?", str(item.get("name"))[:MOST_CHARS]),
            **{key: _number(item.get(key)) for key in NUMBERS},
        }
        for item in (listed if isinstance(listed, list) else [])[:MOST_KERNELS]
        if isinstance(item, dict)
    ]
    width, vector_spills = _number(answer.get("vector_width")), _number(answer.get("vector_spills"))
    if not kernels and width is None:
        return None
    found = {key: [k[key] for k in kernels if k[key] is not None] for key in NUMBERS}
    return {
        "registers": max(found["registers"], default=None),
        "spills": max(found["spills"], default=vector_spills),
        "shared_bytes": max(found["shared_bytes"], default=None),
        "occupancy": min(found["occupancy"], default=None),
        "vector_width": width,
        "kernels": kernels,
    }


def words(compiler: dict[str, Any]) -> list[str]:
    """For the terminal: a line a kernel, and one for vectors."""
    lines = []
    for kernel in compiler["kernels"]:
        said = [
            f"{kernel['registers']} registers" if kernel["registers"] is not None else "",
            f"{kernel['spills'] or 'none'} spilled" if kernel["spills"] is not None else "",
            f"{kernel['shared_bytes']} bytes shared" if kernel["shared_bytes"] is not None else "",
            f"occupancy {kernel['occupancy']:.0%}" if kernel["occupancy"] is not None else "",
        ]
        lines.append(f"{kernel['name']}: {', '.join(filter(None, said)) or 'the driver does not tell'}")
    if compiler["vector_width"] is not None:
        width = f"{compiler['vector_width']}-bit vectors" if compiler["vector_width"] else "no vectors"
        spilled = f", {compiler['spills']} stores of vectors to the stack" if not compiler["kernels"] else ""
        lines.append(f"C++: {width}{spilled}")
    return lines


def _number(value: Any) -> int | float | None:
    plain = type(value) in (int, float) and 0 <= value <= MOST_NUMBER
    return value if plain else None
