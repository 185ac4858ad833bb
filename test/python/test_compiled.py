"""What a report says of the compilers' work, from what a candidate's process noted."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import compiled  # noqa: E402


def test_the_triton_kernels_of_a_noted_call_are_reported_and_no_others() -> None:
    compiler = pytest.importorskip("triton.compiler.compiler")

    def kernel(name: str, registers: int, spills: int) -> Any:
        made = compiler.CompiledKernel.__new__(compiler.CompiledKernel)
        made.metadata = SimpleNamespace(name=name, num_warps=4, shared=2048, target=SimpleNamespace(warp_size=32))
        made.name, made.n_regs, made.n_spills, made.module, made.function, made.src = name, registers, spills, 1, 0, 0
        return made

    notes, untouched = compiled.Notes(), compiler.CompiledKernel.launch_metadata
    with notes.taking():
        kernel("one", 32, 0).launch_metadata((1,), 0)
        kernel("two\x1b[2J", 255, 12).launch_metadata((1,), 0)
    assert compiler.CompiledKernel.launch_metadata is untouched
    found = compiled.accept(notes.report())
    assert found is not None
    assert [k["name"] for k in found["kernels"]] == ["one", "two?[2J"]
    assert (found["registers"], found["spills"], found["shared_bytes"]) == (255, 12, 2048)
    assert compiled.words(found)[0] == "one: 32 registers, none spilled, 2048 bytes shared"


def test_packed_instructions_are_told_from_scalar_ones_in_the_same_registers() -> None:
    scalar = "\tvaddss %xmm1,%xmm0,%xmm0\n\tvmovss %xmm0,(%rdi)\n"
    packed = "\tvfmadd231ps %zmm2,%zmm1,%zmm0\n\tvmovaps %ymm3,-0x40(%rbp)\n\tvaddps (%rax),%ymm1,%ymm0\n"
    assert set(compiled.PACKED.findall(scalar)) == set()
    assert set(compiled.PACKED.findall(packed)) == {"z", "y"}
    assert len(compiled.TO_STACK.findall(packed)) == 1
