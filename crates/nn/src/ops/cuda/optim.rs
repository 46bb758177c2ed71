//! AdamW and norms of gradients.

use burn::tensor::DType;

use super::launch::{Buffer, Launch, Source, empty, word};
use super::many::{self, One};
use crate::ops::AdamWStep;

/// Buffers of one parameter, each of as many values.
pub(super) struct Param {
    pub(super) value: Buffer,
    pub(super) grad: Buffer,
    pub(super) moments: [Buffer; 2],
    pub(super) weight_decay: f32,
}

/// A buffer that may be written: a copy where something else still looks at it.
pub(super) fn owned(x: Buffer) -> Buffer {
    if x.handle.can_mut() { x } else { x.copy() }
}

/// See [`Kernels::adamw`](crate::ops::Kernels::adamw). Moments change where they lie.
pub(super) fn adamw(params: Vec<Param>, step: &AdamWStep) -> Vec<[Buffer; 3]> {
    let done: Vec<_> = (params.into_iter())
        .map(|param| {
            let moments = param.moments.map(owned);
            let count = param.value.meta.shape().num_elements();
            let new = empty(&param.value, [count], DType::F32);
            (param.value, param.grad, moments, new, param.weight_decay)
        })
        .collect();
    let all: Vec<_> = (done.iter())
        .map(|(value, grad, [m, v], new, by)| One {
            by: *by,
            ..One::new([value, grad, m, v, new])
        })
        .collect();
    let scalars = [
        step.lr,
        step.beta1,
        step.beta2,
        step.eps,
        step.grad_scale,
        step.bias1,
        step.bias2,
    ];
    let launch = || Launch::new(Source::Optim, "adamw", 256);
    many::run(launch, &all, &[], &scalars.map(word));
    done.into_iter()
        .map(|(_, _, [m, v], new, _)| [new, m, v])
        .collect()
}

/// Sum of squares of all values, `[1]`.
pub(super) fn sum_squares(all: &[Buffer]) -> Option<Buffer> {
    let first = all.first()?;
    let counts = all.iter().map(|x| x.meta.shape().num_elements());
    let parts = counts.map(many::blocks).sum();
    let sums = empty(first, [parts], DType::F32);
    let ones: Vec<_> = all.iter().map(|x| One::new([x])).collect();
    let launch = || Launch::new(Source::Optim, "squares", 256);
    many::run(launch, &ones, &[&sums], &[]);
    let out = empty(first, [1], DType::F32);
    Launch::new(Source::Optim, "total", 256)
        .define("CHUNK", 1)
        .buffer(&sums)
        .buffer(&out)
        .run(&first.client, 1, &[parts]);
    Some(out)
}

/// Lays `all` down in `to`, each from its place on.
pub(super) fn gather(all: &[(&Buffer, usize)], to: &Buffer) {
    let ones: Vec<_> = (all.iter())
        .map(|(x, at)| One {
            at: *at,
            ..One::new([*x])
        })
        .collect();
    let launch = || Launch::new(Source::Optim, "gather", 256);
    many::run(launch, &ones, &[to], &[]);
}
