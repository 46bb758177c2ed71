//! The output head and its losses, chunk by chunk.

use burn::tensor::{DType, Int, Tensor, backend::Backend};

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
    /// Logits of `hidden` `[rows, width]`: `[rows, vocab]`, in f32.
    fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        B::dense_matmul(hidden.cast(DType::F32), self.weight.clone(), self.compute)
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
    fn rows(&self, from: usize, count: usize) -> Chunk<B> {
        let tokens = self.tokens.as_ref();
        Chunk {
            tokens: tokens.map(|tokens| tokens.clone().narrow(0, from, count)),
            teacher: self.teacher.as_ref().map(|teacher| {
                let hidden = teacher.hidden.clone().narrow(0, from, count);
                (teacher.head.logits(hidden), teacher.temperature)
            }),
        }
    }
}

#[derive(Debug, Clone)]
struct Chunk<B: Backend> {
    tokens: Option<Tensor<B, 1, Int>>,
    teacher: Option<(Tensor<B, 2>, f32)>,
}

impl<B: Kernels> Chunk<B> {
    /// Losses by tokens and by the teacher, where there are such.
    fn losses(&self, logits: &Tensor<B, 2>) -> [Option<Tensor<B, 1>>; 2] {
        let tokens = self.tokens.clone();
        let teacher = self.teacher.clone();
        [
            tokens.map(|tokens| B::nll(logits.clone(), tokens)),
            teacher.map(|(teacher, tau)| B::kl(logits.clone(), teacher, tau)),
        ]
    }

    /// Gradient for the logits of losses with the gradients `of_tokens` and `of_teacher`.
    fn grad(
        self,
        logits: Tensor<B, 2>,
        [of_tokens, of_teacher]: [Tensor<B, 1>; 2],
    ) -> Tensor<B, 2> {
        match (self.tokens, self.teacher) {
            (Some(tokens), None) => B::nll_grad(logits, tokens, of_tokens),
            (None, Some((teacher, tau))) => B::kl_grad(logits, teacher, tau, of_teacher),
            (Some(tokens), Some((teacher, tau))) => {
                B::nll_grad(logits.clone(), tokens, of_tokens)
                    + B::kl_grad(logits, teacher, tau, of_teacher)
            }
            (None, None) => logits.zeros_like(),
        }
    }
}

/// What the backward pass needs.
#[derive(Debug, Clone)]
pub(super) struct HeadLoss<B: Backend> {
    hidden: Tensor<B, 2>,
    head: Head<B>,
    target: HeadTarget<B>,
    /// Logits and target of the only chunk, where there is only one.
    whole: Option<(Tensor<B, 2>, Chunk<B>)>,
}

/// First row and number of rows of each chunk.
fn chunks<B: Kernels>(rows: usize, vocab: usize) -> impl Iterator<Item = (usize, usize)> {
    let size = (B::MAX_LOGITS / vocab.max(1)).max(1);
    (0..rows)
        .step_by(size)
        .map(move |from| (from, size.min(rows - from)))
}

impl<B: Kernels> HeadLoss<B> {
    /// Losses of each row, and what the backward pass needs.
    pub(super) fn forward(
        hidden: Tensor<B, 2>,
        head: Head<B>,
        target: HeadTarget<B>,
    ) -> (Tensor<B, 1>, Self) {
        let (rows, vocab) = (hidden.dims()[0], head.weight.dims()[0]);
        let mut state = Self {
            hidden,
            head,
            target,
            whole: None,
        };
        let mut losses: [Vec<_>; 2] = Default::default();
        for (from, count) in chunks::<B>(rows, vocab) {
            let logits = state.logits(from, count);
            let target = state.target.rows(from, count);
            for (all, loss) in losses.iter_mut().zip(target.losses(&logits)) {
                all.extend(loss);
            }
            state.whole = (count == rows).then_some((logits, target));
        }
        let mut losses = losses.concat();
        let loss = match losses.len() {
            0 => Tensor::zeros([0], &state.hidden.device()),
            1 => losses.remove(0),
            _ => Tensor::cat(losses, 0),
        };
        (loss, state)
    }

    fn logits(&self, from: usize, count: usize) -> Tensor<B, 2> {
        let hidden = self.hidden.clone().narrow(0, from, count);
        self.head.logits(hidden)
    }

    /// Of the gradients of all losses those of some rows: by tokens, and by the teacher.
    fn of_rows(&self, grad: &Tensor<B, 1>, from: usize, count: usize) -> [Tensor<B, 1>; 2] {
        let behind = self.target.tokens.as_ref().map_or(0, |t| t.dims()[0]);
        let teacher = self.target.teacher.as_ref().map_or(0, |_| behind);
        [from, teacher + from].map(|at| grad.clone().narrow(0, at, count))
    }

    /// Gradients for hidden states and head.
    pub(super) fn backward(mut self, grad: Tensor<B, 1>) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let (rows, vocab) = (self.hidden.dims()[0], self.head.weight.dims()[0]);
        let mut grad_hidden = Vec::new();
        let mut grad_head = None;
        for (from, count) in chunks::<B>(rows, vocab) {
            let (logits, target) = self
                .whole
                .take()
                .unwrap_or_else(|| (self.logits(from, count), self.target.rows(from, count)));
            let grads = self.of_rows(&grad, from, count);
            let grad = target.grad(logits, grads);
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
