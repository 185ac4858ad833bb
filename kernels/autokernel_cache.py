"""Where compiled kernels wait for the next process: one folder, one file a compilation, whole or not there at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


class CompileError(RuntimeError):
    """The compiler refused the source, or there is nothing to compile with or no place to compile to."""


def cached(key: str, suffix: str, build: Callable[[Path], None]) -> Path:
    """The file in $AUTOKERNEL_CACHE that `build` once wrote for this key, which names all that decides it."""
    cache = Path(os.environ.get("AUTOKERNEL_CACHE") or Path.home() / ".cache" / "autokernel")
    file = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}{suffix}"
    if not file.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            scratch = tempfile.TemporaryDirectory(dir=cache, prefix="build-")
        except OSError as error:
            advice = "set AUTOKERNEL_CACHE to a writable folder"
            raise CompileError(f"cannot write compiled kernels to {cache} ({error.strerror}): {advice}") from error
        with scratch as folder:
            built = Path(folder) / f"kernel{suffix}"
            build(built)
            built.replace(file)  # atomic: another process sees the whole file or none
    return file


def first_errors(text: str, limit: int = 12) -> str:
    """The compiler's first errors with their source lines, without the notes and template backtraces around them."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if "error:" in line), 0)
    return "\n".join(line[:240] for line in lines[first : first + limit])
