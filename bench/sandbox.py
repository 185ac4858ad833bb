"""Confines one candidate with what the kernel offers (namespaces, Landlock, seccomp, limits), and says what held."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
from collections.abc import Sequence
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)

NEWNS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x4000, 0x40000, 2, 4, 8
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_DUMPABLE = (
    1,
    36,
    38,
    22,
    24,
    4,
)

# Landlock: everything that changes the file system, and reading files, in the order of the kernel's bits.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
FS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
SYSTEM_ROOTS = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/opt",
    "/etc",
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/nix",
)
WRITABLE_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/shm", "/dev/kfd", "/dev/dri")

# Calls that no kernel needs and that reach into other processes or the machine; numbers per architecture.
FORBIDDEN_CALLS = {
    "x86_64": "101 103 155 161 163 165 166 167 169 175 176 246 248 249 250 272 298 304 308 310 311 313 320 321 323",
    "aarch64": "39 40 41 51 89 97 104 105 106 116 117 142 217 218 219 224 225 241 265 268 270 271 273 280 282 294",
}
# Namespaces that a process makes and drops are taken apart by the kernel's own threads, while somebody else is timed.
CLONE, CLONE3, ANY_NAMESPACE = {"x86_64": 56, "aarch64": 220}, 435, 0x7E020000
IO_URING = (425, 426, 427)  # the same everywhere; it would make other calls unseen
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def prctl(option: int, *args: int) -> bool:
    padded = [ctypes.c_ulong(value) for value in (*args, 0, 0, 0, 0)[:4]]
    return libc.prctl(option, *padded) == 0


def die_with_parent() -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def first_to_go() -> None:
    """Where the machine runs out of memory, the candidate ends and nobody else."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def adopt_orphans() -> None:
    """Descendants that lose their parent become ours, so that none of them can slip out of the tree we kill."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def unshare_namespaces(only_net: bool = False) -> list[str]:
    """Called by the keeper just before it forks the candidate. Returns the names of what was entered."""
    uid, gid = os.geteuid(), os.getegid()
    choices: list[tuple[int, list[str]]] = [
        (NEWUSER | NEWNS | NEWNET | NEWIPC | NEWPID, ["user", "mount", "net", "ipc", "pid"]),
        (NEWNS | NEWNET | NEWIPC | NEWPID, ["mount", "net", "ipc", "pid"]),
        (NEWUSER | NEWNET, ["user", "net"]),
        (NEWNET, ["net"]),
    ]
    for flags, names in choices[-1:] if only_net else choices:
        if libc.unshare(flags) != 0:
            continue
        if flags & NEWUSER:
            # the same ids inside, so that files keep their owner and CUDA IPC sees one user
            with contextlib.suppress(OSError):
                Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        return names
    return []


def private_mounts() -> list[str]:
    """Inside the new mount and PID namespaces: a /proc of our own, and a /dev/shm nobody else reads."""
    held = []
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        return held
    if libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None) == 0:
        held.append("/proc")
    if libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", MS_NOSUID | MS_NODEV, b"size=1g") == 0:
        held.append("/dev/shm")
    return held


def drop_capabilities() -> None:
    for capability in range(64):
        prctl(PR_CAPBSET_DROP, capability)
    header = struct.pack("Ii", 0x20080522, 0)
    libc.capset(header, struct.pack("6I", *[0] * 6))


def landlock(writable: Sequence[str], readable: Sequence[str]) -> int:
    """Write only below `writable`; read also below `readable` and the system's folders. Returns the ABI, 0 is none."""
    abi = libc.syscall(444, None, 0, 1)
    if abi < 1:
        return 0
    handled = FS_BY_ABI[min(abi, 3)]
    net, scoped = (3 if abi >= 4 else 0), (3 if abi >= 6 else 0)
    attr = struct.pack("QQQ", handled, net, scoped)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = libc.syscall(444, attr, len(attr), 0)
    if ruleset < 0:
        return 0
    read = EXECUTE | READ_FILE | READ_DIR
    for path in (*SYSTEM_ROOTS, *readable):
        _allow(ruleset, path, read & handled)
    # its own entries only: CUDA names its threads through /proc/self/task/*/comm and gives up when it may not
    for path in (*writable, "/proc/self"):
        _allow(ruleset, path, handled)
    devices = [str(path) for path in Path("/dev").glob("nvidia*")]
    for path in (*WRITABLE_DEVICES, *devices):
        _allow(ruleset, path, (handled if path == "/dev/shm" else read | WRITE_FILE | TRUNCATE) & handled)
    failed = libc.syscall(446, ruleset, 0)
    os.close(ruleset)
    return 0 if failed else abi


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        access &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE  # directory rights on a file are refused as a whole
    libc.syscall(445, ruleset, 1, struct.pack("=Qi", access, fd), 0)
    os.close(fd)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def seccomp() -> bool:
    """A short list of refused system calls; everything else passes at full speed."""
    machine = platform.machine()
    calls = [int(number) for number in FORBIDDEN_CALLS.get(machine, "").split()]
    if not calls:
        return False
    calls += IO_URING
    load, equal, at_least, mask, ret = 0x20, 0x15, 0x35, 0x54, 0x06
    allow, refuse, unknown = 0x7FFF0000, 0x00050001, 0x00050026  # EPERM, ENOSYS
    code = [(load, 0, 0, 4), (equal, 1, 0, AUDIT_ARCH[machine]), (ret, 0, 0, refuse), (load, 0, 0, 0)]
    # clone3 hides its flags behind a pointer: where there is none, clone is used
    code += [(equal, 0, 1, CLONE3), (ret, 0, 0, unknown)]
    code += [(equal, 0, 5, CLONE[machine]), (load, 0, 0, 16), (mask, 0, 0, ANY_NAMESPACE)]
    code += [(equal, 1, 0, 0), (ret, 0, 0, refuse), (ret, 0, 0, allow)]
    # on x86 the same calls have other numbers, from 2^30 on, for programs with short pointers
    code.append((at_least, len(calls) + 1, 0, 1 << 30))
    for position, number in enumerate(calls):
        code.append((equal, len(calls) - position, 0, number))
    code += [(ret, 0, 0, allow), (ret, 0, 0, refuse)]
    raw = b"".join(struct.pack("HBBI", *line) for line in code)
    buffer = ctypes.create_string_buffer(raw, len(raw))
    program = _Program(len(code), ctypes.cast(buffer, ctypes.c_void_p))
    return (
        libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(2), ctypes.byref(program), ctypes.c_ulong(0), ctypes.c_ulong(0)) == 0
    )


def limit_resources(
    address_space: int | None, cpu_seconds: int, file_bytes: int = 1 << 30, processes: int = 1024
) -> None:
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_NOFILE, 4096),
    ]
    if address_space is not None:
        limits.append((resource.RLIMIT_AS, address_space))
    for which, value in limits:
        _soft, hard = resource.getrlimit(which)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(which, (value, value))


def describe(namespaces: Sequence[str], mounts: Sequence[str], landlock_abi: int, filtered: bool) -> str:
    parts = []
    if namespaces:
        parts.append("namespaces " + "+".join(namespaces) + (" with own " + " and ".join(mounts) if mounts else ""))
    if landlock_abi:
        parts.append(f"landlock abi {landlock_abi}")
    if filtered:
        parts.append("seccomp")
    return ", ".join([*parts, "own process group, resource limits, clean environment"])


def is_strong(description: str) -> bool:
    """What `--sandbox require` asks for: no network, no processes of others in sight, no writing outside scratch."""
    return "net" in description and "pid" in description and "landlock" in description
