"""flash_attention: softmax(Q K^T * sm_scale) V, causal unless told otherwise. Bound by arithmetic."""

from __future__ import annotations

import op_attention
import op_costs

from op import Op, Rows

OP = Op(
    name="flash_attention",
    arguments=("Q", "K", "V"),
    reference=op_attention.reference,
    eager=op_attention.eager,
    vendor=op_attention.vendor,
    make_inputs=lambda shape, dtype, g, kind: op_attention.inputs(op_costs.attention_sizes(shape), dtype, g, kind),
    dims=("B", "H", "S", "D"),
    primary=(2, 32, 1024, 64),
    gpu_shapes=(
        *((1, 4, 64, 64), (2, 8, 256, 64), (2, 16, 512, 64), (2, 32, 1024, 64), (2, 32, 2048, 64)),
        *((1, 32, 4096, 64), (2, 32, 1024, 128), (1, 32, 2048, 128), (2, 16, 512, 1024, 64), (2, 16, 1024, 512, 64)),
    ),
    gpu_edges=((1, 8, 127, 64), (1, 8, 1023, 64)),
    cpu_primary=(1, 8, 256, 64),
    cpu_shapes=((1, 4, 64, 64), (2, 4, 128, 64), (1, 8, 256, 64), (1, 2, 512, 128), (1, 4, 96, 160, 64)),
    cpu_edges=((1, 4, 127, 64), (1, 2, 255, 64), (1, 2, 160, 96, 64), (2, 3, 33, 32), (1, 1, 1, 64)),
    flops=lambda shape, options: op_costs.flops("flash_attention", shape, options),
    bytes_moved=lambda shape, dtype, options: op_costs.bytes_moved("flash_attention", shape, dtype.itemsize, options),
    depth=lambda shape: max(op_costs.attention_sizes(shape)[4:]),
    stability=op_attention.STABILITY,
    options={"causal": True, "sm_scale": None},
    variants=({"causal": False}, {"causal": True, "sm_scale": 0.2}, {"causal": False, "sm_scale": 0.2}),
    roundings=op_attention.roundings,
    matmul_like=True,
    rows=Rows(arguments=(0, 1, 2)),
)
