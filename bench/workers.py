"""Where child processes come from: a zygote that forks them, with an environment, folders and limits of their own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import sandbox
import wire
from arena import Arena
from worker import JudgeError, Worker, WorkerFailed

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
PASSED_ON = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "CXX",
    "CC",
    "CPATH",
    "LIBRARY_PATH",
    "ROCM_PATH",
    "ROCM_HOME",
    "HIP_VISIBLE_DEVICES",
)
PREFIXES = ("HF_", "CUDA_", "OMP_", "KMP_", "GOMP_", "MKL_", "TRITON_", "NVIDIA_", "HSA_")
# Freed memory stays with the process, as in one that has run for a while: else large results cost a page fault each
# 4 KiB in some processes and none in others.
STEADY_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
THREADS_WAIT_QUIETLY = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}


class Pool:
    """Forks workers from a warm zygote, and starts another one when it dies."""

    def __init__(self, gpu: bool, sandbox_mode: str, work: Path) -> None:
        self.gpu, self.mode, self.work = gpu, sandbox_mode, work
        self.level = "none" if sandbox_mode == "none" else "full"  # what candidates get; lowered where a probe fails
        # the daemon names one, and removes it where we were killed before we could
        self.scratch = Path(os.environ.get("AUTOKERNEL_SCRATCH") or tempfile.mkdtemp(prefix="autokernel-judge-"))
        self.zygote: subprocess.Popen[bytes] | None = None
        self.socket: socket.socket | None = None
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, str(BENCH / "zygote.py"), str(theirs.fileno()), *(["--triton"] if self.gpu else [])]
        environment = {**os.environ, **THREADS_WAIT_QUIETLY, **STEADY_MALLOC}
        self.zygote = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        theirs.close()
        self.socket, self.ready = ours, False

    def spawn(
        self, arena: Arena, cache_key: str, role: str = "kernel", trusted: bool = False, readable: tuple[str, ...] = ()
    ) -> Worker:
        for attempt in (1, 2):
            try:
                return self._spawn(arena, cache_key, role, trusted, readable)
            except (wire.Closed, wire.TimedOut, wire.BadMessage) as error:
                self._stop_zygote()
                if attempt == 2:
                    raise JudgeError(f"the process that forks candidates does not start: {error}") from error
                self._start()
        raise AssertionError

    def _spawn(self, arena: Arena, cache_key: str, role: str, trusted: bool, readable: tuple[str, ...]) -> Worker:
        assert self.socket is not None
        if not self.ready:
            wire.recv(self.socket, 120)
            self.ready = True
        scratch = Path(tempfile.mkdtemp(prefix="candidate-", dir=self.scratch))
        cache = self.work / "cache" / cache_key
        cache.mkdir(parents=True, exist_ok=True)
        (scratch / "tmp").mkdir()
        control, their_control = socket.socketpair()
        status, their_status = socket.socketpair()
        null = os.open(os.devnull, os.O_RDONLY)
        imports = [str(ROOT / "kernels"), *([str(BENCH), str(ROOT / "models")] if trusted or role == "model" else [])]
        request = {
            "role": role,
            "sandbox": "none" if trusted else self.level,
            "scratch": str(scratch),
            "env": self.environment(scratch, cache, role),
            "address_space": None if self.gpu else _address_space(arena.size),
            "cpu_seconds": 1800,
            "writable": [str(scratch), str(cache)],
            "readable": [*imports, *readable, *python_folders()],
            "import_path": imports,
            "arena_bytes": arena.size,
            "arena_handle": arena.handle,
        }
        try:
            fds = [their_control.fileno(), their_status.fileno(), null if arena.fd is None else arena.fd]
            wire.send(self.socket, request, fds)
        finally:
            their_control.close()
            their_status.close()
            os.close(null)
        worker = Worker(control, status, scratch, trusted)
        try:
            worker.await_keeper()
        except BaseException:
            worker.kill()
            raise
        return worker

    def environment(self, scratch: Path, cache: Path, role: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k in PASSED_ON or k.startswith(PREFIXES)}
        kept = {k: v for k, v in kept.items() if "KEY" not in k and "TOKEN" not in k and "SECRET" not in k}
        folders = {
            "HOME": Path.home() if role == "model" else scratch,  # a model may read its weights from there
            "TMPDIR": scratch / "tmp",
            "AUTOKERNEL_CACHE": cache / "cpp",
            "TRITON_CACHE_DIR": cache / "triton",
            "TORCHINDUCTOR_CACHE_DIR": cache / "inductor",
            "TORCH_EXTENSIONS_DIR": cache / "extensions",
            "CUDA_CACHE_PATH": cache / "cuda",
        }
        # no pool of compile processes: they would outlive the build and run beside the measurement
        return {
            **kept,
            **THREADS_WAIT_QUIETLY,
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            # torch keeps precompiled headers under TMPDIR, which is new for each process: 5 s a round for nothing
            "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",
            **{k: str(v) for k, v in folders.items()},
        }

    def _stop_zygote(self) -> None:
        if self.socket:
            self.socket.close()
        if self.zygote:
            self.zygote.kill()
            self.zygote.wait()

    def close(self) -> None:
        self._stop_zygote()
        shutil.rmtree(self.scratch, ignore_errors=True)


def _address_space(block: int) -> int:
    """Virtual memory of one candidate on a CPU: torch's own mappings, the block, and half of the machine."""
    return (30 << 30) + block + os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def python_folders() -> list[str]:
    return sorted({sys.prefix, sys.base_prefix, *(p for p in sys.path if "-packages" in p)})


def work_folder() -> Path:
    """Where compile caches and measured peaks survive from one judge to the next."""
    base = os.environ.get("AUTOKERNEL_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    for folder in (Path(base) / "autokernel" / "judge", Path(tempfile.gettempdir()) / f"autokernel-{os.getuid()}"):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise JudgeError("no folder to write to: set AUTOKERNEL_CACHE")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def judge_hash() -> str:
    """One hash over every file that decides a verdict."""
    digest = hashlib.sha256()
    files = [*BENCH.glob("*.py"), *BENCH.glob("ops/*.py"), ROOT / "models" / "op_costs.py"]
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def probe_sandbox(pool: Pool, arena: Arena) -> str:
    """What confines a candidate here, as a real child reports it before any candidate's code is in it.

    Where a child cannot reach the device from inside the full sandbox, the next lighter one is tried, and said.
    """
    if pool.mode == "none":
        return "none (asked for): own process group, resource limits, clean environment"
    failures = []
    for level in ("full",) if pool.mode == "require" else ("full", "light", "none"):
        pool.level = level
        with pool.spawn(arena, "probe") as worker:
            try:
                worker.await_ready()
            except WorkerFailed as error:
                failures.append(f"{pool.level}: {error.detail.splitlines()[-1]}")
                continue
            found = worker.sandbox + (f" (stronger ones failed: {'; '.join(failures)})" if failures else "")
        if pool.mode == "require" and not sandbox.is_strong(found):
            raise JudgeError(f"--sandbox require: this machine only offers {found}")
        return found
    raise JudgeError(f"no candidate process can be started: {'; '.join(failures)}")
