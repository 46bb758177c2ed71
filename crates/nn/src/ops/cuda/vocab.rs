//! Losses over rows of logits.

use burn::tensor::DType;

use super::launch::{Buffer, Launch, Source, empty, word};

fn run(
    entry: &'static str,
    inputs: &[&Buffer],
    out: Buffer,
    [rows, cols]: [usize; 2],
    temperature: f32,
) -> Buffer {
    let launch = Launch::new(Source::Vocab, entry, 256);
    let all = inputs.iter().copied().chain([&out]);
    all.fold(launch, Launch::buffer)
        .run(&out.client, rows, &[rows, cols, word(temperature)]);
    out
}

/// See [`Kernels::nll`](crate::ops::Kernels::nll).
pub(super) fn nll(logits: &Buffer, targets: &Buffer, dims: [usize; 2]) -> Buffer {
    let out = empty(logits, [dims[0]], DType::F32);
    run("nll", &[logits, targets], out, dims, 1.0)
}

/// See [`Kernels::nll_grad`](crate::ops::Kernels::nll_grad).
pub(super) fn nll_grad(
    logits: &Buffer,
    targets: &Buffer,
    grad: &Buffer,
    dims: [usize; 2],
) -> Buffer {
    let out = empty(logits, dims, DType::F32);
    run("nll_grad", &[logits, targets, grad], out, dims, 1.0)
}

/// See [`Kernels::kl`](crate::ops::Kernels::kl).
pub(super) fn kl(student: &Buffer, teacher: &Buffer, temperature: f32, dims: [usize; 2]) -> Buffer {
    let out = empty(student, [dims[0]], DType::F32);
    run("kl", &[student, teacher], out, dims, temperature)
}

/// See [`Kernels::kl_grad`](crate::ops::Kernels::kl_grad).
pub(super) fn kl_grad(
    student: &Buffer,
    teacher: &Buffer,
    temperature: f32,
    grad: &Buffer,
    dims: [usize; 2],
) -> Buffer {
    let out = empty(student, dims, DType::F32);
    run("kl_grad", &[student, teacher, grad], out, dims, temperature)
}
