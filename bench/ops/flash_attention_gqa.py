"""flash_attention_gqa: attention whose key/value heads each serve a group of query heads. Bound by arithmetic."""

from __future__ import annotations

import op_attention
import op_costs

from op import Op, Rows

OP = Op(
    name="flash_attention_gqa",
    arguments=("Q", "K", "V"),
    reference=op_attention.reference,
    eager=op_attention.eager,
    vendor=op_attention.vendor,
    make_inputs=lambda shape, dtype, g, kind: op_attention.inputs(op_costs.attention_sizes(shape), dtype, g, kind),
    dims=("B", "H", "Hkv", "Sq", "Skv", "D"),
    primary=(2, 32, 8, 1024, 1024, 64),
    gpu_shapes=(
        *((1, 4, 2, 64, 64, 64), (2, 8, 2, 256, 256, 64), (2, 16, 4, 512, 512, 64), (2, 32, 8, 1024, 1024, 64)),
        *((2, 32, 8, 2048, 2048, 128), (1, 32, 8, 4096, 4096, 128), (2, 32, 1, 1024, 1024, 128)),
        *((4, 32, 8, 256, 2048, 128), (2, 16, 4, 1024, 512, 64)),
    ),
    gpu_edges=((1, 8, 2, 127, 127, 64), (1, 8, 2, 1023, 1023, 64), (1, 12, 4, 1, 1023, 128)),
    cpu_primary=(1, 8, 2, 256, 256, 64),
    cpu_shapes=((1, 4, 2, 64, 64, 64), (2, 4, 1, 128, 128, 64), (1, 8, 2, 256, 256, 64), (1, 4, 2, 96, 160, 64)),
    cpu_edges=((1, 4, 2, 127, 127, 64), (1, 6, 2, 255, 255, 64), (1, 4, 2, 160, 96, 64), (1, 4, 4, 1, 127, 32)),
    flops=lambda shape, options: op_costs.flops("flash_attention_gqa", shape, options),
    bytes_moved=lambda shape, dtype, o: op_costs.bytes_moved("flash_attention_gqa", shape, dtype.itemsize, o),
    depth=lambda shape: max(op_costs.attention_sizes(shape)[4:]),
    stability=op_attention.STABILITY,
    options={"causal": True, "sm_scale": None},
    variants=({"causal": False}, {"causal": True, "sm_scale": 0.2}, {"causal": False, "sm_scale": 0.2}),
    roundings=op_attention.roundings,
    matmul_like=True,
    rows=Rows(arguments=(0, 1, 2)),
)
