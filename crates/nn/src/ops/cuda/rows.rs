//! Norms, activations and rotations: one pass over memory each.

use burn::tensor::DType;
use tritburn_quant::config::HiddenAct;

use super::launch::{Buffer, Launch, Source, element, empty, word};

/// Values of a row that one warp takes at a time.
const RUN: usize = 256;
/// Widest row of a norm, which is kept in registers.
pub(super) const MAX_NORM: usize = 12 * RUN;
/// Blocks of a pass over values.
const BLOCKS: usize = 2048;

fn launch(entry: &'static str, threads: u32, dtype: DType, runs: usize, act: u8) -> Launch {
    Launch::new(Source::Rows, entry, threads)
        .define("IN", element(dtype))
        .define("RUNS", runs)
        .define("ACT", act)
}

/// See [`Kernels::rms_norm`](crate::ops::Kernels::rms_norm).
pub(super) fn rms_norm(x: &Buffer, weight: &Buffer, eps: f64, [rows, cols]: [usize; 2]) -> Buffer {
    let out = empty(x, [rows, cols], x.dtype);
    launch("rms_norm", 128, x.dtype, cols.div_ceil(RUN), 0)
        .buffer(x)
        .buffer(weight)
        .buffer(&out)
        .run(&x.client, rows.div_ceil(4), &[rows, cols, word(eps as f32)]);
    out
}

/// See [`Kernels::rms_norm_grad`](crate::ops::Kernels::rms_norm_grad).
pub(super) fn rms_norm_grad(
    x: &Buffer,
    weight: &Buffer,
    eps: f64,
    grad: &Buffer,
    [rows, cols]: [usize; 2],
) -> [Buffer; 2] {
    let blocks = rows.div_ceil(4).min(264);
    let out = empty(x, [rows, cols], x.dtype);
    let parts = empty(x, [blocks * 4, cols], DType::F32);
    launch("rms_norm_grad", 128, x.dtype, cols.div_ceil(RUN), 0)
        .buffer(x)
        .buffer(weight)
        .buffer(grad)
        .buffer(&out)
        .buffer(&parts)
        .run(&x.client, blocks, &[rows, cols, word(eps as f32)]);
    let grad_weight = empty(x, [cols], DType::F32);
    launch("sum_rows", 32, DType::F32, 1, 0)
        .buffer(&parts)
        .buffer(&grad_weight)
        .run(&x.client, cols / 8, &[blocks * 4, cols, 0]);
    [out, grad_weight]
}

fn kind(act: HiddenAct) -> u8 {
    match act {
        HiddenAct::Silu => 0,
        HiddenAct::Relu2 => 1,
        HiddenAct::GeluTanh => 2,
    }
}

/// See [`Kernels::gated_act`](crate::ops::Kernels::gated_act).
pub(super) fn gated_act(gate: &Buffer, up: &Buffer, act: HiddenAct, dims: [usize; 2]) -> Buffer {
    let count = dims[0] * dims[1];
    let out = empty(gate, dims, gate.dtype);
    launch("gated_act", 256, gate.dtype, 1, kind(act))
        .buffer(gate)
        .buffer(up)
        .buffer(&out)
        .run(&gate.client, count.div_ceil(2048).min(BLOCKS), &[count]);
    out
}

/// See [`Kernels::gated_act_grad`](crate::ops::Kernels::gated_act_grad).
pub(super) fn gated_act_grad(
    gate: &Buffer,
    up: &Buffer,
    act: HiddenAct,
    grad: &Buffer,
    dims: [usize; 2],
) -> [Buffer; 2] {
    let count = dims[0] * dims[1];
    let grads = [(); 2].map(|()| empty(gate, dims, gate.dtype));
    launch("gated_act_grad", 256, gate.dtype, 1, kind(act))
        .buffer(gate)
        .buffer(up)
        .buffer(grad)
        .buffer(&grads[0])
        .buffer(&grads[1])
        .run(&gate.client, count.div_ceil(2048).min(BLOCKS), &[count]);
    grads
}

/// See [`Kernels::rope`](crate::ops::Kernels::rope); heads of a multiple of 16.
pub(super) fn rope(
    x: &Buffer,
    cos: &Buffer,
    sin: &Buffer,
    [seq, head_dim]: [usize; 2],
    [rows, width]: [usize; 2],
) -> Buffer {
    let out = empty(x, [rows, width], x.dtype);
    let eights = rows * width / 16;
    launch("rope", 256, x.dtype, 1, 0)
        .buffer(x)
        .buffer(cos)
        .buffer(sin)
        .buffer(&out)
        .run(
            &x.client,
            eights.div_ceil(256),
            &[eights, width / head_dim, head_dim, seq],
        );
    out
}
