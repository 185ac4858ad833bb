"""What an event is by its operator, its kernel's name or its module, on names recorded from real traces."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "profile"))

from classify import Work, classify_kernel, classify_module, classify_op, dtype_of, short_name

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
RECORDED = json.loads((FIXTURES / "kernel_names.json").read_text())


@pytest.mark.parametrize(("name", "kind"), RECORDED.items())
def test_a_recorded_kernel_is_the_kind_it_is(name: str, kind: str) -> None:
    assert classify_kernel(name) == kind


QKV = [[2, 12, 256, 64]] * 3
CALLS = [
    ("aten::mm", [[8, 64], [64, 32]], [None, None], Work("matmul", (8, 32, 64))),
    ("aten::addmm", [[32], [8, 64], [64, 32], [], []], [None, None, None, 1, 1], Work("matmul", (8, 32, 64))),
    ("aten::bmm", [[12, 8, 64], [12, 64, 32]], [None, None], Work("matmul", (8, 32, 64), batch=12)),
    (
        "aten::baddbmm",
        [[1], [3, 8, 4], [3, 4, 5], [], []],
        [None, None, None, 1, 1],
        Work("matmul", (8, 5, 4), batch=3),
    ),
    ("aten::linear", [[2, 8, 64], [32, 64], [32]], [None, None, None], Work("linear", (16, 32, 64, 1))),
    ("aten::linear", [[2, 8, 64], [32, 64], []], [None, None, None], Work("linear", (16, 32, 64, 0))),
    ("aten::softmax", [[4, 8, 16], [], []], [None, -1, None], Work("softmax", (32, 16))),
    ("aten::_softmax", [[4, 8, 16], [], []], [None, 2, False], Work("softmax", (32, 16))),
    ("aten::softmax", [[4, 8, 16], [], []], [None, 1, None], None),
    (
        "aten::native_layer_norm",
        [[4, 8, 16], [], [16], [16], []],
        [None, [16], None, None, 1e-5],
        Work("layernorm", (32, 16)),
    ),
    ("aten::layer_norm", [[4, 8, 16], [], [8, 16]], [None, [8, 16], None], None),
    ("aten::rms_norm", [[4, 8, 16], [], [16], []], [None, [16], None, None], Work("rmsnorm", (32, 16))),
    (
        "aten::scaled_dot_product_attention",
        [*QKV, [], [], [], [], []],
        [None, None, None, None, 0.0, True, None, False],
        Work("flash_attention", (2, 12, 256, 64), {"causal": True}),
    ),
    (
        "aten::_scaled_dot_product_flash_attention",
        [*QKV, [], [], []],
        [None, None, None, 0.0, False, False],
        Work("flash_attention", (2, 12, 256, 64), {"causal": False}),
    ),
    (
        "aten::scaled_dot_product_attention",
        [[1, 8, 4, 64], [1, 2, 9, 64], [1, 2, 9, 64]],
        [None, None, None, None, 0.0, False, None, True],
        Work("flash_attention_gqa", (1, 8, 2, 4, 9, 64), {"causal": False}),
    ),
    ("aten::cross_entropy_loss", [[8, 100], [8]], [None, None, None, 1, -100, 0.0], Work("cross_entropy", (8, 100))),
    ("aten::sum", [[8, 100], [], []], [None, [-1], False, None], Work("reduce", (8, 100))),
    ("aten::sum", [[8, 100], []], [None, None], None),
    ("aten::amax", [[8, 100], [], []], [None, [1], False], Work("reduce_max", (8, 100))),
    ("aten::max", [[8, 100], [8, 100]], [None, None], None),
    ("aten::mul", [[8, 100], [8, 100]], [None, None], None),
    ("mine::mm", [[8, 64], [64, 32]], [None, None], None),
]


@pytest.mark.parametrize(("name", "shapes", "values", "work"), CALLS)
def test_an_operator_call_is_the_operation_it_computes(
    name: str, shapes: list, values: list, work: Work | None
) -> None:
    assert classify_op(name, shapes, values) == work


@pytest.mark.parametrize(
    ("class_name", "op"),
    [
        ("LlamaRMSNorm", "rmsnorm"),
        ("T5LayerNorm", "layernorm"),
        ("RotaryEmbedding", "rotary_embedding"),
        ("SwiGLU", "fused_mlp"),
        ("CausalSelfAttention", "flash_attention"),
        ("Block", None),
    ],
)
def test_a_class_claims_what_its_name_says(class_name: str, op: str | None) -> None:
    assert classify_module(class_name) == op


@pytest.mark.parametrize(
    ("kernel", "short"),
    [
        ("void at::native::(anonymous namespace)::softmax_warp_forward<float, 7>(float*, int)", "softmax_warp_forward"),
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::AddFunctor<float>, std::arr",
            "vectorized_elementwise_kernel",
        ),
        ("void cutlass::Kernel2<cutlass_80_simt_sgemm_128x64>(Params)", "cutlass_80_simt_sgemm_128x64"),
        ("std::enable_if<!(false), void>::type internal::gemvx::kernel<int, float>(float)", "gemvx::kernel"),
        ("Memcpy HtoD (Pageable -> Device)", "Memcpy HtoD"),
        ("triton_poi_fused_mul_silu_2", "triton_poi_fused_mul_silu_2"),
    ],
)
def test_a_kernel_has_a_short_name_a_person_can_read(kernel: str, short: str) -> None:
    assert short_name(kernel) == short


def test_a_number_format_is_the_first_tensors() -> None:
    assert dtype_of(["Scalar", "c10::BFloat16", "float"]) == "bf16"
    assert dtype_of(["ScalarList", ""]) == "-"
