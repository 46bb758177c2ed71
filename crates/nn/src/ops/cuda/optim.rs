//! AdamW and norms of gradients.

use burn::tensor::DType;

use super::launch::{Buffer, Launch, Source, empty, word};
use crate::ops::AdamWStep;

/// Most sums of one parameter that a norm is made from.
const PARTS: usize = 256;

/// See [`Kernels::adamw`](crate::ops::Kernels::adamw).
pub(super) fn adamw(
    [param, grad, m, v]: [&Buffer; 4],
    step: &AdamWStep,
    count: usize,
) -> [Buffer; 3] {
    let new = [(); 3].map(|()| empty(param, [count], DType::F32));
    let scalars = [
        step.lr,
        step.beta1,
        step.beta2,
        step.eps,
        step.weight_decay,
        step.grad_scale,
        step.bias1,
        step.bias2,
    ];
    let words: Vec<usize> = [count].into_iter().chain(scalars.map(word)).collect();
    let launch = Launch::new(Source::Optim, "adamw", 256);
    let all = [param, grad, m, v].into_iter().chain(&new);
    all.fold(launch, Launch::buffer)
        .run(&param.client, count.div_ceil(256).min(4096), &words);
    new
}

/// Sum of squares of all values, `[1]`.
pub(super) fn sum_squares(all: &[Buffer]) -> Option<Buffer> {
    let count = |x: &Buffer| x.meta.shape().num_elements();
    let parts = |x: &Buffer| count(x).div_ceil(8192).clamp(1, PARTS);
    let total: usize = all.iter().map(parts).sum();
    let first = all.first()?;
    let sums = empty(first, [total], DType::F32);
    let mut at = 0;
    for x in all {
        Launch::new(Source::Optim, "squares", 256)
            .buffer(x)
            .buffer(&sums)
            .run(&x.client, parts(x), &[count(x), at]);
        at += parts(x);
    }
    let out = empty(first, [1], DType::F32);
    Launch::new(Source::Optim, "total", 256)
        .buffer(&sums)
        .buffer(&out)
        .run(&first.client, 1, &[total, 0]);
    Some(out)
}
