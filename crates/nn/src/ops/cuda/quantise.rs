//! The quantisers of b1.58 as one pass over memory.

use burn::tensor::DType;
use tritburn_quant::ternary::EPS;

use super::launch::{Buffer, Launch, Source, element, empty};
use super::many::{self, One};

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

/// Ternary codes of each weight `[rows, cols]` in int8 and in bf16, and its one scale `[1, 1]`. All are of one
/// type.
pub(super) fn weights(all: &[(Buffer, [usize; 2])]) -> Vec<[Buffer; 3]> {
    let Some((first, _)) = all.first() else {
        return Vec::new();
    };
    let parts = (all.iter())
        .map(|(_, [rows, cols])| many::blocks(rows * cols))
        .sum();
    let sums = empty(first, [parts], DType::F32);
    let out: Vec<_> = (all.iter())
        .map(|(w, shape)| {
            [
                empty(w, *shape, DType::I8),
                empty(w, *shape, DType::BF16),
                empty(w, [1, 1], DType::F32),
            ]
        })
        .collect();
    let launch = |entry| {
        Launch::new(Source::QuantiseWeights, entry, 256)
            .define("IN", element(first.dtype))
            .define("EPS", format!("{EPS:e}f"))
    };
    let inputs = all.iter().map(|(w, _)| One::new([w]));
    many::run(
        || launch("abs_sums"),
        &inputs.collect::<Vec<_>>(),
        &[&sums],
        &[],
    );
    let ones = (all.iter().zip(&out))
        .map(|((w, _), [codes, wide, scale])| One::new([w, codes, wide, scale]));
    many::run(
        || launch("quantise"),
        &ones.collect::<Vec<_>>(),
        &[&sums],
        &[],
    );
    out
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
