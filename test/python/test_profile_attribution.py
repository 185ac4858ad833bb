"""Whose time it is, on traces written by hand: every nanosecond once, to the outermost that explains it."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

sys.path.extend(str(Path(__file__).resolve().parents[2] / folder) for folder in ("profile", "models"))

from attribute import Owner, Tally, attribute, ranges_of_sites
from profile_rows import Peaks, amdahl, make_rows
from torch._C._autograd import DeviceType
from trace_events import Event, nest, read_kineto, spent_on_cpu, spent_on_gpu

MATRICES = {"shapes": [[8, 64], [64, 32]], "dtypes": ["float", "float"], "values": [None, None]}
LINEAR = {"shapes": [[8, 64], [32, 64], []], "dtypes": ["float", "float", ""], "values": [None, None, None]}
VECTOR = {"shapes": [[8, 64], []], "dtypes": ["float", "Scalar"], "values": [None, 1]}
NORM = Owner("rmsnorm", "rmsnorm", (8, 64), "fp32", site="norm")


def on_cpu(*events: Event) -> dict[Owner, Tally]:
    nodes = nest(events)
    return attribute(nodes, spent_on_cpu(nodes), sites(nodes))


def on_gpu(*events: Event) -> dict[Owner, Tally]:
    nodes = nest(events)
    return attribute(nodes, spent_on_gpu(events, nodes), sites(nodes))


def sites(nodes: list) -> dict[int, Owner]:
    return {id(node): NORM for ranges in ranges_of_sites(nodes).values() for node in ranges}


def seen(tallies: dict[Owner, Tally]) -> dict[tuple[str, str], tuple[int, int]]:
    found: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for owner, tally in tallies.items():
        ns, calls = found[owner.op, owner.name]
        found[owner.op, owner.name] = (ns + tally.ns, calls + len(tally.calls))
    return found


def test_on_a_cpu_an_operators_time_is_counted_once_and_gaps_are_nobodys() -> None:
    tallies = on_cpu(
        Event("range", "ProfilerStep#1", 0, 1000),
        Event("op", "aten::linear", 100, 400, id=1, **LINEAR),
        Event("op", "aten::addmm", 150, 390, id=2, **MATRICES),
        Event("op", "aten::mul", 500, 600, id=3, **VECTOR),
        Event("op", "aten::mul", 700, 760, id=4, **VECTOR),
    )
    assert seen(tallies) == {("linear", "aten::linear"): (300, 1), ("other", "aten::mul"): (160, 2)}


def test_all_that_happens_inside_a_site_is_the_sites_and_one_call_of_it() -> None:
    tallies = on_cpu(
        Event("range", "autokernel::rmsnorm::norm", 0, 500),
        Event("op", "aten::pow", 10, 110, id=1, **VECTOR),
        Event("op", "aten::mean", 150, 250, id=2, **VECTOR),
        Event("op", "aten::sum", 160, 240, id=3, **VECTOR),
        Event("range", "autokernel::rmsnorm::norm", 600, 900),
        Event("op", "aten::mul", 650, 700, id=4, **VECTOR),
    )
    assert seen(tallies) == {("rmsnorm", "rmsnorm"): (250, 2)}


def test_of_a_composite_operator_the_part_that_is_an_operation_is_told_from_the_rest() -> None:
    tallies = on_cpu(
        Event("op", "aten::einsum", 0, 300, id=1),
        Event("op", "aten::bmm", 50, 250, id=2, shapes=[[12, 8, 64], [12, 64, 32]], dtypes=["float"], values=[]),
    )
    assert seen(tallies) == {("matmul", "aten::bmm x12"): (200, 1), ("other", "aten::einsum"): (100, 1)}


def test_a_copy_that_a_product_makes_is_not_the_products_time() -> None:
    tallies = on_cpu(
        Event("op", "aten::matmul", 0, 300, id=1, **MATRICES),
        Event("op", "aten::copy_", 0, 90, id=2, **VECTOR),
        Event("op", "aten::mm", 100, 300, id=3, **MATRICES),
    )
    assert seen(tallies) == {
        ("matmul", "aten::mm"): (200, 1),
        ("other", "aten::copy_ in aten::matmul"): (90, 1),
        ("other", "aten::matmul"): (10, 1),
    }


def test_threads_do_not_nest_in_each_other() -> None:
    tallies = on_cpu(
        Event("op", "aten::mul", 0, 100, thread=1, id=1, **VECTOR),
        Event("op", "aten::add", 10, 60, thread=2, id=2, **VECTOR),
    )
    assert seen(tallies) == {("other", "aten::mul"): (100, 1), ("other", "aten::add"): (50, 1)}


def test_on_a_gpu_a_kernel_belongs_to_what_launched_it_whenever_it_ran() -> None:
    tallies = on_gpu(
        Event("range", "autokernel::rmsnorm::norm", 0, 100),
        Event("op", "aten::mul", 10, 50, id=1, **VECTOR),
        Event("launch", "cudaLaunchKernel", 20, 30, id=101, link=1),
        Event("op", "aten::linear", 200, 300, id=2, **LINEAR),
        Event("op", "aten::mm", 210, 290, id=3, **MATRICES),
        Event("launch", "cudaLaunchKernelExC", 220, 230, id=102, link=3),
        Event("launch", "cudaLaunchKernel", 240, 250, id=103, link=3),
        Event("device", "vectorized_elementwise_kernel", 5000, 5040, id=101, link=1),
        Event("device", "nvjet_tst_64x8", 5040, 5540, id=102, link=3),
        Event("device", "void cublasLt::splitKreduce_kernel<32>()", 5540, 5600, id=103, link=3),
    )
    assert seen(tallies) == {("rmsnorm", "rmsnorm"): (40, 1), ("linear", "aten::linear"): (560, 1)}


def test_a_kernel_that_no_operator_launched_belongs_to_the_range_around_its_launch() -> None:
    tallies = on_gpu(
        Event("range", "autokernel::rmsnorm::norm", 0, 100, thread=7),
        Event("launch", "cuLaunchKernel", 20, 30, thread=4242, id=101),
        Event("device", "my_triton_kernel", 900, 950, id=101),
    )
    assert seen(tallies) == {("rmsnorm", "rmsnorm"): (50, 1)}


@pytest.mark.parametrize(
    ("around", "kernel", "owner"),
    [
        (None, "_rope_fwd_kernel", ("rotary_embedding", "_rope_fwd_kernel")),
        (None, "void mine::secret<float>(float*)", ("other", "secret")),
        (None, "Memcpy HtoD (Pageable -> Device)", ("other", "memcpy: Memcpy HtoD")),
        ("module::layers.0.norm::FastRMSNorm", "secret", ("rmsnorm", "secret")),
        ("module::layers.0.norm::FastRMSNorm", "Memset (Device)", ("other", "memset: Memset")),
        ("module::layers.0::Block", "secret", ("other", "secret")),
    ],
)
def test_without_an_operator_a_kernels_name_and_then_its_module_say_what_it_is(
    around: str | None, kernel: str, owner: tuple[str, str]
) -> None:
    ranges = [Event("range", around, 0, 100)] if around else []
    tallies = on_gpu(*ranges, Event("launch", "cuLaunchKernel", 20, 30, id=9), Event("device", kernel, 900, 950, id=9))
    assert seen(tallies) == {owner: (50, 1)}


def test_a_custom_operator_keeps_its_name_unless_that_says_what_it_computes() -> None:
    tallies = on_cpu(Event("op", "mine::rms_norm", 0, 50, id=1), Event("op", "mine::thing", 60, 80, id=2))
    assert seen(tallies) == {("rmsnorm", "mine::rms_norm"): (50, 1), ("other", "mine::thing"): (20, 1)}


class Recorded:
    """A line of the profiler's record, as much of it as is read."""

    def __init__(self, where: DeviceType, name: str, annotation: bool = False, **line: Any) -> None:
        self.device_type, self.name, self.is_user_annotation = (lambda: where), (lambda: name), (lambda: annotation)
        self.start_ns, self.duration_ns = (lambda: line.get("start", 5)), (lambda: line.get("duration", 7))
        self.correlation_id, self.linked_correlation_id = (lambda: line.get("id", 2)), (lambda: line.get("link", 3))
        self.shapes, self.dtypes = (lambda: line.get("shapes", [])), (lambda: line.get("dtypes", []))
        self.concrete_inputs, self.start_thread_id = (lambda: line.get("values", [])), (lambda: line.get("thread", 1))
        self.is_async = lambda: False


@pytest.mark.parametrize(
    ("where", "name", "annotation", "kind"),
    [
        (DeviceType.CPU, "aten::mm", False, "op"),
        (DeviceType.CPU, "autokernel::rmsnorm::norm", True, "range"),
        (DeviceType.CPU, "cudaLaunchKernel", False, "launch"),
        (DeviceType.CPU, "cuLaunchKernelEx", False, "launch"),
        (DeviceType.CPU, "hipModuleLaunchKernel", False, "launch"),
        (DeviceType.CUDA, "nvjet_tst", False, "device"),
        (DeviceType.HIP, "Cijk_Ailk_Bljk", False, "device"),
        (DeviceType.CUDA, "Memset (Device)", False, "device"),
    ],
)
def test_each_line_of_a_record_is_what_it_is(where: DeviceType, name: str, annotation: bool, kind: str) -> None:
    (event,) = read_kineto([Recorded(where, name, annotation)])
    assert (event.kind, event.name, event.start, event.end) == (kind, name, 5, 12)


def test_a_range_is_not_counted_again_in_the_gpus_own_row_nor_the_profilers_own_work() -> None:
    record = [
        Recorded(DeviceType.CUDA, "autokernel::rmsnorm::norm", annotation=True),
        Recorded(DeviceType.CPU, "Activity Buffer Request"),
        Recorded(DeviceType.CPU, "[memory]"),
    ]
    assert read_kineto(record) == []


def test_a_trace_recorded_on_an_h200_goes_to_its_owners_to_the_nanosecond() -> None:
    """An fp32 linear (64x64x64, split along K) and a softmax between two Triton kernels, the first in a site."""
    fixtures = Path(__file__).resolve().parents[1] / "fixtures"
    lines = json.loads((fixtures / "gpu_trace.json").read_text())
    record = [Recorded(DeviceType.CPU if line.pop("on_cpu") else DeviceType.CUDA, **line) for line in lines]
    tallies = on_gpu(*read_kineto(record))
    assert seen(tallies) == {
        ("rmsnorm", "rmsnorm"): (800, 1),
        ("linear", "aten::linear"): (3807 + 1440, 1),
        ("softmax", "aten::softmax"): (2752, 1),
        ("other", "my_triton_kernel"): (832, 1),
        ("other", "aten::to"): (864 + 1472, 2),
        ("other", "aten::zero_"): (736, 1),
        ("matmul", "aten::mm"): (3295, 1),
        ("reduce", "aten::sum"): (1952, 1),
    }


def test_rows_are_per_forward_and_what_differs_only_in_its_place_is_one_row() -> None:
    tallies = {
        Owner("rmsnorm", "rmsnorm", (8, 64), "fp32", (("eps", 1e-5),), site="a"): Tally(40_000, {1, 2}),
        Owner("rmsnorm", "rmsnorm", (8, 64), "fp32", (("eps", 1e-5),), site="b"): Tally(20_000, {3, 4}),
        Owner("rmsnorm", "rmsnorm", (8, 64), "fp32", (("eps", 1e-6),), site="c"): Tally(20_000, {5, 6}),
        Owner("matmul", "aten::bmm x3", (8, 32, 64), "fp32", batch=3): Tally(120_000, {7, 8}),
    }
    matmul, norm, other_norm = make_rows(tallies, 2, Peaks(gbps=1.0, tflops={"fp32": 1.0}))
    assert (norm["calls"], norm["time_us"], norm["sites"], norm["options"]) == (2, 30, ["a", "b"], {"eps": 1e-5})
    assert (other_norm["sites"], matmul["sites"]) == (["c"], [])
    assert [row["share"] for row in (matmul, norm, other_norm)] == [0.6, 0.3, 0.1]
    # three products, memory-bound at these peaks: (8*64 + 64*32 + 8*32) floats at 1 GB/s
    assert (matmul["bound"], matmul["limit_us"]) == ("memory", pytest.approx(3 * 2816 * 4 / 1000))


def test_amdahls_law_bounds_the_whole_by_what_is_left() -> None:
    assert amdahl(0.5, 2) == pytest.approx(4 / 3)
    assert amdahl(1, 5) == pytest.approx(5)
    assert amdahl(0, 5) == 1
