//! Attention without its square: which kernels, in which order.

use burn::tensor::DType;

use super::launch::{Buffer, Launch, Source, element, empty, hopper, word};
use crate::ops::AttentionShape;

/// Rows of a block.
const BLOCK: usize = 64;

/// Whether the kernels take heads of this shape.
pub(super) fn fits(shape: AttentionShape) -> bool {
    let width = shape.head_dim;
    width.is_multiple_of(16) && width <= 128 && shape.batch * shape.seq * shape.heads > 0
}

fn launch(entry: &'static str, like: &Buffer, shape: AttentionShape, starts: bool) -> Launch {
    let width = shape.head_dim;
    // Products of a warpgroup want rows in panels of 64, and keep the block's own rows in two tiles more.
    let group = width.is_multiple_of(64) && hopper(&like.device, &like.client).is_some();
    let (source, tiles, line) = if group {
        (Source::AttentionGroup, 6, width)
    } else {
        (Source::AttentionWarp, 4, width + 8)
    };
    // Tiles begin at a multiple of 1024; behind them are three words a row of each stage.
    let shared = 1024 + tiles * BLOCK * line * 2 + 6 * BLOCK * 4;
    Launch::new(source, entry, 128)
        .shared(shared)
        .define("IN", element(like.dtype))
        .define("D", width)
        .define("BLOCK", BLOCK)
        .define("CAUSAL", u8::from(shape.causal))
        .define("STARTS", u8::from(starts))
}

#[allow(clippy::cast_precision_loss)]
fn words(shape: AttentionShape) -> [usize; 6] {
    let window = shape.window.filter(|&w| shape.causal && w < shape.seq);
    [
        shape.batch,
        shape.seq,
        shape.heads,
        shape.kv_heads,
        window.unwrap_or(0),
        word(1.0 / (shape.head_dim as f32).sqrt()),
    ]
}

/// Output, and for each head and token the log₂ of the sum that its probabilities were divided by.
/// `starts` is one i32 a token.
pub(super) fn forward(
    [q, k, v]: [&Buffer; 3],
    shape: AttentionShape,
    starts: Option<&Buffer>,
) -> [Buffer; 2] {
    let rows = shape.batch * shape.seq;
    let out = empty(q, [rows, shape.heads * shape.head_dim], q.dtype);
    let sums = empty(q, [shape.batch * shape.heads, shape.seq], DType::F32);
    // A kernel without starts has the parameter too.
    let place = starts.unwrap_or(&sums);
    [q, k, v, place, &out, &sums]
        .into_iter()
        .fold(
            launch("attention", q, shape, starts.is_some()),
            Launch::buffer,
        )
        .run(
            &q.client,
            shape.seq.div_ceil(BLOCK) * shape.heads * shape.batch,
            &words(shape),
        );
    [out, sums]
}

/// Gradients of query, key and value, from what [`forward`] gave.
pub(super) fn backward(
    [q, k, v]: [&Buffer; 3],
    [out, sums]: [&Buffer; 2],
    grad: &Buffer,
    shape: AttentionShape,
    starts: Option<&Buffer>,
) -> [Buffer; 3] {
    let along = empty(sums, [shape.batch * shape.heads, shape.seq], DType::F32);
    let (rows, words) = (shape.batch * shape.seq, words(shape));
    launch("attention_along", q, shape, false)
        .buffer(out)
        .buffer(grad)
        .buffer(&along)
        .run(&q.client, (rows * shape.heads).div_ceil(4), &words);
    let blocks = shape.seq.div_ceil(BLOCK) * shape.batch;
    let inputs = |entry| {
        let all = [q, k, v, grad, sums, &along, starts.unwrap_or(sums)];
        let launch = launch(entry, q, shape, starts.is_some());
        all.into_iter().fold(launch, Launch::buffer)
    };
    let grad_q = empty(q, [rows, shape.heads * shape.head_dim], q.dtype);
    inputs("attention_grad_q")
        .buffer(&grad_q)
        .run(&q.client, blocks * shape.heads, &words);
    let [grad_k, grad_v] =
        [(); 2].map(|()| empty(q, [rows, shape.kv_heads * shape.head_dim], q.dtype));
    inputs("attention_grad_kv")
        .buffer(&grad_k)
        .buffer(&grad_v)
        .run(&q.client, blocks * shape.kv_heads, &words);
    [grad_q, grad_k, grad_v]
}
