"""CUDA C++ to machine code in a fraction of a second: NVRTC where it is found, else nvcc, hiprtc under ROCm.

Neither needs a GPU: the architecture is named, so a machine without one compiles for any.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from autokernel_cache import CompileError, cached, first_errors

HIP = torch.version.hip is not None
RTC = "hiprtc" if HIP else "nvrtc"
UNUSED = "--diag-suppress=177"  # a constant of the prelude that a kernel does not use is not worth a warning
WHEELS = Path(torch.__file__).resolve().parent.parent  # pip's CUDA lies beside torch


def machine_code(source: str, defines: Mapping[str, object], arch: str) -> bytes:
    """The cubin (a code object under ROCm) for one architecture, such as sm_90a; cached on disk."""
    options = [f"-D{name}={value}" for name, value in sorted(defines.items())] + ["--std=c++17"]
    options += [f"-I{folder}" for folder in _include_folders()]
    rtc = _runtime_compiler()
    identity = _rtc_version(rtc) if rtc is not None else _nvcc()

    def build(code: Path) -> None:
        if rtc is not None:
            code.write_bytes(_compile_in_process(rtc, source, options, arch))
            return
        text = code.with_suffix(".cu")
        text.write_text(source)
        virtual = f"-gencode=arch={arch.replace('sm', 'compute')},code={arch}"
        command = [identity, "-cubin", virtual, UNUSED, *options, str(text), "-o", str(code)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise CompileError(first_errors(done.stderr or done.stdout) or f"nvcc exited with {done.returncode}")

    return cached("\0".join([source, *options, arch, identity]), ".cubin", build).read_bytes()


def _compile_in_process(rtc: ctypes.CDLL, source: str, options: list[str], arch: str) -> bytes:
    program = ctypes.c_void_p()
    _call(rtc, "CreateProgram", ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    cuda = (f"--gpu-architecture={arch}", "-default-device", UNUSED)
    flags = [*options, *((f"--offload-arch={arch}",) if HIP else cuda)]
    try:
        array = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
        if getattr(rtc, f"{RTC}CompileProgram")(program, len(flags), array):
            log = _read(rtc, "ProgramLog", program).decode(errors="replace")
            raise CompileError(first_errors(log) or f"{RTC} refused the source and did not say why")
        return _read(rtc, "Code" if HIP else "CUBIN", program)
    finally:
        _call(rtc, "DestroyProgram", ctypes.byref(program))


def _read(rtc: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _call(rtc, f"Get{what}Size", program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    _call(rtc, f"Get{what}", program, text)
    return text.raw.rstrip(b"\0") if what == "ProgramLog" else text.raw


def _call(rtc: ctypes.CDLL, name: str, *arguments: object) -> None:
    status = getattr(rtc, f"{RTC}{name}")(*arguments)
    if status:
        raise CompileError(f"{RTC}{name} failed with status {status}")


@functools.cache
def _runtime_compiler() -> ctypes.CDLL | None:
    for candidate in _libraries():
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    return None


def _libraries() -> Iterator[str]:
    """Where the library may be: beside torch, in the toolkit, wherever the loader looks."""
    if HIP:
        yield from (str(file) for file in sorted((Path(torch.__file__).parent / "lib").glob("libhiprtc.so*")))
        yield from (f"{os.environ.get('ROCM_PATH', '/opt/rocm')}/lib/libhiprtc.so", "libhiprtc.so")
        return
    wheels = [str(file) for file in sorted(WHEELS.glob("nvidia/*/lib/libnvrtc.so.*"), reverse=True)]
    yield from (file for file in wheels if ".alt." not in file)  # .alt is a variant for other drivers
    yield from (f"{folder}/lib64/libnvrtc.so" for folder in _toolkits())
    major = (torch.version.cuda or "13").split(".")[0]
    yield from (f"libnvrtc.so.{major}", "libnvrtc.so")


def _toolkits() -> list[str]:
    named = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    return [folder for folder in named if folder and Path(folder).is_dir()]


@functools.cache
def _include_folders() -> tuple[str, ...]:
    """A folder with cuda_fp16.h, and mma.h whole if it can be. The starters include nothing, others may."""
    if HIP:
        return ()  # built into hiprtc
    wheels = sorted(str(file.parent) for file in WHEELS.glob("nvidia/*/include/cuda_fp16.h"))
    places = [*wheels, *(f"{t}/include" for t in _toolkits()), str(WHEELS / "triton/backends/nvidia/include")]
    found = [place for place in places if (Path(place) / "cuda_fp16.h").is_file()]
    return tuple(sorted(found, key=lambda place: not (Path(place) / "crt" / "mma.h").is_file())[:1])


@functools.cache
def _rtc_version(rtc: ctypes.CDLL) -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call(rtc, "Version", ctypes.byref(major), ctypes.byref(minor))
    return f"{RTC} {major.value}.{minor.value}"


@functools.cache
def _nvcc() -> str:
    places = [*(f"{folder}/bin/nvcc" for folder in _toolkits()), shutil.which("nvcc")]
    found = next((place for place in places if place and Path(place).is_file()), None)
    if HIP or found is None:
        wanted, variable = ("libhiprtc.so", "ROCM_PATH") if HIP else ("libnvrtc.so and no nvcc", "CUDA_HOME")
        raise CompileError(f"nothing to compile CUDA with: no {wanted} found; set {variable}")
    return found
