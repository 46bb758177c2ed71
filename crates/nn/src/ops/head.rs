//! The output head and its losses, chunk by chunk.

use burn::tensor::{Int, Tensor, backend::Backend};

use super::{Compute, Kernels};

/// An output head.
#[derive(Debug, Clone)]
pub struct Head<B: Backend> {
    /// `[vocab, width]`.
    pub weight: Tensor<B, 2>,
    /// How logits are computed from it.
    pub compute: Compute,
}

impl<B: Backend> From<Tensor<B, 2>> for Head<B> {
    /// A head that computes in f32.
    fn from(weight: Tensor<B, 2>) -> Self {
        Self {
            weight,
            compute: Compute::F32,
        }
    }
}

impl<B: Kernels> Head<B> {
    /// Logits of `hidden` `[rows, width]`: `[rows, vocab]`.
    fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        B::head_logits(hidden, self.weight.clone(), self.compute)
    }
}

/// A teacher's output distribution of each row.
#[derive(Debug, Clone)]
pub struct TeacherHead<B: Backend> {
    /// `[rows, teacher's width]`.
    pub hidden: Tensor<B, 2>,
    /// Of the teacher's width.
    pub head: Head<B>,
    /// τ.
    pub temperature: f32,
}

/// What the output distribution of each row is compared with: tokens, a teacher, or both. Both share
/// the logits, and the losses by tokens stand before those by the teacher.
#[derive(Debug, Clone)]
pub struct HeadTarget<B: Backend> {
    /// A token each, `[rows]`: negative log-likelihood.
    pub tokens: Option<Tensor<B, 1, Int>>,
    /// `KL(teacher ‖ student)` of `softmax(logits / τ)` (BitDistill Eq. 9).
    pub teacher: Option<TeacherHead<B>>,
}

impl<B: Backend> From<Tensor<B, 1, Int>> for HeadTarget<B> {
    fn from(tokens: Tensor<B, 1, Int>) -> Self {
        Self {
            tokens: Some(tokens),
            teacher: None,
        }
    }
}

impl<B: Backend> From<TeacherHead<B>> for HeadTarget<B> {
    fn from(teacher: TeacherHead<B>) -> Self {
        Self {
            tokens: None,
            teacher: Some(teacher),
        }
    }
}

impl<B: Kernels> HeadTarget<B> {
    /// Rows `from..from + count`, with the teacher's logits in place of its hidden states.
    fn rows(&self, from: usize, count: usize) -> LogitTarget<B> {
        let tokens = self.tokens.as_ref();
        LogitTarget {
            tokens: tokens.map(|tokens| tokens.clone().narrow(0, from, count)),
            teacher: self.teacher.as_ref().map(|teacher| {
                let hidden = teacher.hidden.clone().narrow(0, from, count);
                (teacher.head.logits(hidden), teacher.temperature)
            }),
        }
    }
}

/// What rows of logits are compared with.
#[derive(Debug, Clone)]
pub struct LogitTarget<B: Backend> {
    /// A token each, `[rows]`: negative log-likelihood.
    pub tokens: Option<Tensor<B, 1, Int>>,
    /// A teacher's logits, `[rows, vocab]`, and τ.
    pub teacher: Option<(Tensor<B, 2>, f32)>,
}

/// Losses of rows of logits, and what their gradient is spared of computing again.
#[derive(Debug, Clone)]
pub struct LogitLosses<B: Backend> {
    /// `[rows]`, by tokens and by the teacher, where there are such.
    pub losses: [Option<Tensor<B, 1>>; 2],
    /// Logarithms of the sums that probabilities are divided by, where the backend keeps them.
    pub sums: Option<Tensor<B, 2>>,
}

/// What the backward pass needs.
#[derive(Debug, Clone)]
pub(super) struct HeadLoss<B: Backend> {
    hidden: Tensor<B, 2>,
    head: Head<B>,
    target: HeadTarget<B>,
    /// The only chunk, where there is only one.
    whole: Option<Chunk<B>>,
}

/// Logits of some rows, what they are compared with, and the sums of their losses.
#[derive(Debug, Clone)]
struct Chunk<B: Backend> {
    logits: Tensor<B, 2>,
    target: LogitTarget<B>,
    sums: Option<Tensor<B, 2>>,
}

impl<B: Kernels> HeadLoss<B> {
    /// Losses of each row, and what the backward pass needs.
    pub(super) fn forward(
        hidden: Tensor<B, 2>,
        head: Head<B>,
        target: HeadTarget<B>,
    ) -> (Tensor<B, 1>, Self) {
        let mut state = Self {
            hidden,
            head,
            target,
            whole: None,
        };
        let mut losses: [Vec<_>; 2] = Default::default();
        let rows = state.hidden.dims()[0];
        for (from, count) in state.chunks() {
            let (of_chunk, chunk) = state.chunk(from, count);
            for (all, loss) in losses.iter_mut().zip(of_chunk) {
                all.extend(loss);
            }
            state.whole = (count == rows).then_some(chunk);
        }
        let mut losses = losses.concat();
        let loss = match losses.len() {
            0 => Tensor::zeros([0], &state.hidden.device()),
            1 => losses.remove(0),
            _ => Tensor::cat(losses, 0),
        };
        (loss, state)
    }

    /// First row and number of rows of each chunk.
    fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + use<B> {
        let (rows, vocab) = (self.hidden.dims()[0], self.head.weight.dims()[0]);
        let most = B::max_logits(&self.hidden.device());
        let size = (most / vocab.max(1)).max(1);
        (0..rows)
            .step_by(size)
            .map(move |from| (from, size.min(rows - from)))
    }

    /// Losses of `count` rows from row `from`.
    fn chunk(&self, from: usize, count: usize) -> ([Option<Tensor<B, 1>>; 2], Chunk<B>) {
        let logits = self.head.logits(self.hidden.clone().narrow(0, from, count));
        let target = self.target.rows(from, count);
        let LogitLosses { losses, sums } = B::logit_losses(&logits, &target);
        let chunk = Chunk {
            logits,
            target,
            sums,
        };
        (losses, chunk)
    }

    /// Of the gradients of all losses those of some rows: by tokens, and by the teacher.
    fn of_rows(&self, grad: &Tensor<B, 1>, from: usize, count: usize) -> [Tensor<B, 1>; 2] {
        let behind = self.target.tokens.as_ref().map_or(0, |t| t.dims()[0]);
        let teacher = self.target.teacher.as_ref().map_or(0, |_| behind);
        [from, teacher + from].map(|at| grad.clone().narrow(0, at, count))
    }

    /// Gradients for hidden states and head.
    pub(super) fn backward(mut self, grad: Tensor<B, 1>) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let mut grad_hidden = Vec::new();
        let mut grad_head = None;
        for (from, count) in self.chunks() {
            let whole = self.whole.take();
            let chunk = whole.unwrap_or_else(|| self.chunk(from, count).1);
            let grads = self.of_rows(&grad, from, count);
            let grad = B::logit_losses_grad(chunk.logits, chunk.target, chunk.sums, grads);
            let hidden = self.hidden.clone().narrow(0, from, count);
            let (of_hidden, part) =
                B::dense_matmul_grad(hidden, self.head.weight.clone(), self.head.compute, grad);
            grad_hidden.push(of_hidden);
            grad_head = Some(match grad_head {
                Some(sum) => sum + part,
                None => part,
            });
        }
        let grad_hidden = match grad_hidden.len() {
            0 => self.hidden.zeros_like(),
            1 => grad_hidden.remove(0),
            _ => Tensor::cat(grad_hidden, 0),
        };
        (
            grad_hidden,
            grad_head.unwrap_or_else(|| self.head.weight.zeros_like()),
        )
    }
}
