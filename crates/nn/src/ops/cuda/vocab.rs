//! Losses over rows of logits.

use burn::backend::Cuda;
use burn::tensor::{DType, Tensor};
use burn_cubecl::kernel::into_contiguous;

use super::launch::{Buffer, Launch, Source, element, empty, word};
use super::{buffer, full};
use crate::ops::LogitTarget;

/// Whether the losses' kernels take these logits.
pub(super) fn over_vocab(logits: &Tensor<Cuda, 2>, target: &LogitTarget<Cuda>) -> bool {
    let dtype = logits.dtype();
    let mut teachers = target.teacher.iter();
    let mut tokens = target.tokens.iter();
    logits.shape().num_elements() > 0
        && (target.tokens.is_some() || target.teacher.is_some())
        && matches!(dtype, DType::F32 | DType::BF16 | DType::F16)
        && teachers.all(|(teacher, _)| teacher.dtype() == dtype)
        && tokens.all(|tokens| tokens.dtype() == DType::I32)
}

/// With a teacher in f32, which the reference computes in.
pub(super) fn full_target(target: LogitTarget<Cuda>) -> LogitTarget<Cuda> {
    let teacher = target.teacher.map(|(teacher, tau)| (full(teacher), tau));
    LogitTarget { teacher, ..target }
}

/// The buffers of a [`LogitTarget`].
pub(super) struct Compared {
    tokens: Option<Buffer>,
    teacher: Option<(Buffer, f32)>,
}

impl Compared {
    pub(super) fn new(target: LogitTarget<Cuda>) -> Self {
        let tokens = target.tokens;
        Self {
            tokens: tokens.map(|tokens| into_contiguous(tokens.into_primitive())),
            teacher: target.teacher.map(|(teacher, tau)| (buffer(teacher), tau)),
        }
    }

    pub(super) fn target(&self) -> Target<'_> {
        Target {
            tokens: self.tokens.as_ref(),
            teacher: self.teacher.as_ref().map(|(teacher, tau)| (teacher, *tau)),
        }
    }
}

/// What rows of logits are compared with: the teacher's logits, of the student's type, with a temperature,
/// and tokens in i32.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) tokens: Option<&'a Buffer>,
    pub(super) teacher: Option<(&'a Buffer, f32)>,
}

impl Target<'_> {
    /// How many losses a row has.
    pub(super) fn losses(self) -> usize {
        usize::from(self.tokens.is_some()) + usize::from(self.teacher.is_some())
    }

    /// `entry` with the logits and what they are compared with; what is absent is never read.
    fn launch(self, entry: &'static str, logits: &Buffer, grad: DType, cols: usize) -> Launch {
        Launch::new(Source::Vocab, entry, 256)
            .define("IN", element(logits.dtype))
            .define("OUT", element(grad))
            .define("TOKENS", u8::from(self.tokens.is_some()))
            .define("TEACHER", u8::from(self.teacher.is_some()))
            .define("STEP", if cols.is_multiple_of(8) { 8 } else { 1 })
            .buffer(logits)
            .buffer(self.teacher.map_or(logits, |(teacher, _)| teacher))
            .buffer(self.tokens.unwrap_or(logits))
    }

    fn words(self, [rows, cols]: [usize; 2]) -> [usize; 3] {
        [rows, cols, word(self.teacher.map_or(1.0, |(_, tau)| tau))]
    }
}

/// Losses `[losses, rows]`, those by tokens first, and of each row the logarithms of the sums that
/// probabilities are divided by.
pub(super) fn losses(logits: &Buffer, target: Target<'_>, dims: [usize; 2]) -> [Buffer; 2] {
    let out = empty(logits, [target.losses(), dims[0]], DType::F32);
    let sums = empty(logits, [dims[0], 3], DType::F32);
    target
        .launch("losses", logits, DType::F32, dims[1])
        .buffer(&out)
        .buffer(&sums)
        .run(&out.client, dims[0], &target.words(dims));
    [out, sums]
}

/// Gradient for the logits of losses with the gradients `grads`, by tokens and by the teacher: f32 of logits
/// in f32, else bf16.
pub(super) fn losses_grad(
    logits: &Buffer,
    target: Target<'_>,
    sums: &Buffer,
    grads: [&Buffer; 2],
    dims: [usize; 2],
) -> Buffer {
    let dtype = match logits.dtype {
        DType::F32 => DType::F32,
        _ => DType::BF16,
    };
    let out = empty(logits, dims, dtype);
    target
        .launch("losses_grad", logits, dtype, dims[1])
        .buffer(sums)
        .buffer(grads[0])
        .buffer(grads[1])
        .buffer(&out)
        .run(&out.client, dims[0], &target.words(dims));
    out
}
