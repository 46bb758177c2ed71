//! The quantisers of b1.58 as one pass over memory.

use burn::tensor::DType;
use tritburn_quant::ternary::EPS;

use super::launch::{Buffer, Launch, Source, element, empty};

/// Values of a row that one warp takes at a time.
const RUN: usize = 256;

fn launch(entry: &'static str, threads: u32, input: &Buffer, runs: usize) -> Launch {
    Launch::new(Source::Quantise, entry, threads)
        .define("IN", element(input.dtype))
        .define("EPS", format!("{EPS:e}f"))
        .define("RUNS", runs)
}

/// INT8 codes of each token of `x` `[rows, cols]` (f32 or bf16), and steps `[rows, 1]`.
pub(super) fn acts(x: &Buffer, [rows, cols]: [usize; 2]) -> [Buffer; 2] {
    let codes = empty(x, [rows, cols], DType::I8);
    let step = empty(x, [rows, 1], DType::F32);
    launch("quantise_acts", 128, x, cols.div_ceil(RUN))
        .buffer(x)
        .buffer(&codes)
        .buffer(&step)
        .run(&x.client, rows.div_ceil(4), &[rows, cols]);
    [codes, step]
}

/// `codes · step` in bf16.
pub(super) fn dense_acts(codes: &Buffer, step: &Buffer, [rows, cols]: [usize; 2]) -> Buffer {
    let out = empty(codes, [rows, cols], DType::BF16);
    launch("dequantise_acts", 128, codes, cols.div_ceil(RUN))
        .buffer(codes)
        .buffer(step)
        .buffer(&out)
        .run(&codes.client, rows.div_ceil(4), &[rows, cols]);
    out
}

/// Ternary codes of `w` `[rows, cols]` in int8 and in bf16, and their one scale `[1, 1]`.
pub(super) fn weight(w: &Buffer, [rows, cols]: [usize; 2]) -> [Buffer; 3] {
    const PARTS: usize = 256;
    let sums = empty(w, [PARTS], DType::F32);
    let codes = empty(w, [rows, cols], DType::I8);
    let wide = empty(w, [rows, cols], DType::BF16);
    let scale = empty(w, [1, 1], DType::F32);
    launch("abs_sums", 256, w, 1)
        .buffer(w)
        .buffer(&sums)
        .run(&w.client, PARTS, &[rows, cols]);
    launch("quantise_weight", 256, w, 1)
        .buffer(w)
        .buffer(&sums)
        .buffer(&codes)
        .buffer(&wide)
        .buffer(&scale)
        .run(&w.client, PARTS, &[rows, cols]);
    [codes, wide, scale]
}

/// Codes `[rows, cols]` as `[cols, rows]`.
pub(super) fn turned(codes: &Buffer, [rows, cols]: [usize; 2]) -> Buffer {
    const TILE: usize = 64;
    let out = empty(codes, [cols, rows], DType::I8);
    let tiles = rows.div_ceil(TILE) * cols.div_ceil(TILE);
    launch("turn_codes", 256, codes, 1)
        .buffer(codes)
        .buffer(&out)
        .run(&codes.client, tiles, &[rows, cols]);
    out
}

/// `x` in bf16.
pub(super) fn to_bf16(x: &Buffer, [rows, cols]: [usize; 2]) -> Buffer {
    if x.dtype == DType::BF16 {
        return x.clone();
    }
    let out = empty(x, [rows, cols], DType::BF16);
    launch("to_bf16", 256, x, 1).buffer(x).buffer(&out).run(
        &x.client,
        (rows * cols).div_ceil(2048).min(2048),
        &[rows, cols],
    );
    out
}
