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

/// What the output distribution of each row is compared with.
#[derive(Debug, Clone)]
pub enum HeadTarget<B: Backend> {
    /// A token each, `[rows]`: negative log-likelihood.
    Tokens(Tensor<B, 1, Int>),
    /// A teacher's distribution: `KL(teacher ‖ student)` of `softmax(logits / τ)` (BitDistill
    /// Eq. 9).
    Teacher {
        /// `[rows, teacher's width]`.
        hidden: Tensor<B, 2>,
        /// Of the teacher's width.
        head: Head<B>,
        /// τ.
        temperature: f32,
    },
}

impl<B: Kernels> HeadTarget<B> {
    /// Rows `from..from + count`, with the teacher's logits in place of its hidden states.
    fn rows(&self, from: usize, count: usize) -> Chunk<B> {
        match self {
            Self::Tokens(tokens) => Chunk::Tokens(tokens.clone().narrow(0, from, count)),
            Self::Teacher {
                hidden,
                head,
                temperature,
            } => {
                let hidden = hidden.clone().narrow(0, from, count);
                Chunk::Teacher(head.logits(hidden), *temperature)
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Chunk<B: Backend> {
    Tokens(Tensor<B, 1, Int>),
    Teacher(Tensor<B, 2>, f32),
}

impl<B: Kernels> Chunk<B> {
    fn loss(&self, logits: Tensor<B, 2>) -> Tensor<B, 1> {
        match self {
            Self::Tokens(tokens) => B::nll(logits, tokens.clone()),
            Self::Teacher(teacher, tau) => B::kl(logits, teacher.clone(), *tau),
        }
    }

    fn grad(self, logits: Tensor<B, 2>, grad: Tensor<B, 1>) -> Tensor<B, 2> {
        match self {
            Self::Tokens(tokens) => B::nll_grad(logits, tokens, grad),
            Self::Teacher(teacher, tau) => B::kl_grad(logits, teacher, tau, grad),
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
    /// Loss of each row, and what the backward pass needs.
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
        let mut losses = Vec::new();
        for (from, count) in chunks::<B>(rows, vocab) {
            let logits = state.logits(from, count);
            let target = state.target.rows(from, count);
            losses.push(target.loss(logits.clone()));
            state.whole = (count == rows).then_some((logits, target));
        }
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
            let grad = target.grad(logits, grad.clone().narrow(0, from, count));
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
