//! Norms, activations and rotations: one pass over memory each.

use burn::tensor::DType;
use tritburn_quant::config::HiddenAct;

use super::launch::{Buffer, Launch, Source, element, empty, word};

/// Widest row of a norm, which is kept in registers.
pub(super) const MAX_NORM: usize = 3072;
/// Threads of a block of a norm.
const NORM_THREADS: usize = 128;
/// Blocks of a pass over values.
const BLOCKS: usize = 2048;

fn launch(entry: &'static str, threads: u32, dtype: DType, share: Share, act: u8) -> Launch {
    Launch::new(Source::Rows, entry, threads)
        .define("IN", element(dtype))
        .define("LANES", share.lanes)
        .define("RUNS", share.runs)
        .define("ACT", act)
}

/// How lanes of a warp share a row of a norm.
#[derive(Clone, Copy)]
struct Share {
    /// Lanes of a row.
    lanes: usize,
    /// Eights of the row that each takes.
    runs: usize,
}

impl Share {
    /// What kernels without rows are compiled with.
    const NONE: Self = Self { lanes: 32, runs: 1 };

    fn of(cols: usize) -> Self {
        let eights = cols.div_ceil(8);
        let lanes = eights.next_power_of_two().min(32);
        let runs = eights.div_ceil(lanes);
        Self { lanes, runs }
    }

    /// Rows that a block computes at a time.
    fn rows(self) -> usize {
        NORM_THREADS / self.lanes
    }
}

/// See [`Kernels::rms_norm`](crate::ops::Kernels::rms_norm).
pub(super) fn rms_norm(x: &Buffer, weight: &Buffer, eps: f64, [rows, cols]: [usize; 2]) -> Buffer {
    let (out, share) = (empty(x, [rows, cols], x.dtype), Share::of(cols));
    launch("rms_norm", NORM_THREADS as u32, x.dtype, share, 0)
        .buffer(x)
        .buffer(weight)
        .buffer(&out)
        .run(
            &x.client,
            rows.div_ceil(share.rows()),
            &[rows, cols, word(eps as f32)],
        );
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
    let share = Share::of(cols);
    // Wide rows take so many registers that no more blocks run at once.
    let most = if share.runs > 4 { 264 } else { 528 };
    let blocks = rows.div_ceil(share.rows()).min(most);
    let out = empty(x, [rows, cols], x.dtype);
    let parts = empty(x, [blocks, cols], DType::F32);
    launch("rms_norm_grad", NORM_THREADS as u32, x.dtype, share, 0)
        .buffer(x)
        .buffer(weight)
        .buffer(grad)
        .buffer(&out)
        .buffer(&parts)
        .run(&x.client, blocks, &[rows, cols, word(eps as f32)]);
    let grad_weight = empty(x, [cols], DType::F32);
    launch("sum_rows", 32, DType::F32, Share::NONE, 0)
        .buffer(&parts)
        .buffer(&grad_weight)
        .run(&x.client, cols / 8, &[blocks, cols, 0]);
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
    launch("gated_act", 256, gate.dtype, Share::NONE, kind(act))
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
    launch("gated_act_grad", 256, gate.dtype, Share::NONE, kind(act))
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
    launch("rope", 256, x.dtype, Share::NONE, 0)
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
