//! Projections, ternary or dense, with or without a norm in front.

use tritburn_kernels::{Activations, DenseMatrix, Kernel, TernaryMatrix};

use super::norm::RmsNorm;

/// Weights of a projection.
#[derive(Debug)]
pub(crate) enum Weight {
    /// Full precision.
    Dense(DenseMatrix),
    /// Ternary; its input is quantised to int8 per token.
    Ternary(TernaryMatrix),
}

/// `y = W · norm(x)`, without bias.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) norm: Option<RmsNorm>,
    pub(crate) weight: Weight,
}

/// Buffers of [`project`].
#[derive(Debug, Default)]
pub(crate) struct LinearScratch {
    normed: Vec<f32>,
    activations: Activations,
}

impl Linear {
    /// Output width.
    pub(crate) fn rows(&self) -> usize {
        match &self.weight {
            Weight::Dense(w) => w.rows(),
            Weight::Ternary(w) => w.rows(),
        }
    }

    /// Bytes of weights that one forward pass reads.
    pub(crate) fn bytes(&self) -> usize {
        match &self.weight {
            Weight::Dense(w) => w.bytes(),
            Weight::Ternary(w) => w.bytes(),
        }
    }

    /// Multiplications per token.
    pub(crate) fn weights(&self) -> usize {
        match &self.weight {
            Weight::Dense(w) => w.rows() * w.cols(),
            Weight::Ternary(w) => w.rows() * w.cols(),
        }
    }
}

/// Applies several projections to the same `x`, `[tokens, width]`; each output is resized to
/// `[tokens, rows]`. Without norms of their own they share one quantisation of `x`.
pub(crate) fn project(
    kernel: &dyn Kernel,
    x: &[f32],
    width: usize,
    outputs: &mut [(&Linear, &mut Vec<f32>)],
    scratch: &mut LinearScratch,
) {
    let tokens = x.len() / width;
    let mut shared = false;
    for (linear, out) in outputs {
        let input = if let Some(norm) = &linear.norm {
            scratch.normed.resize(x.len(), 0.0);
            norm.forward(x, &mut scratch.normed);
            &scratch.normed
        } else {
            x
        };
        out.resize(tokens * linear.rows(), 0.0);
        match &linear.weight {
            Weight::Dense(w) => w.gemm(kernel, input, out),
            Weight::Ternary(w) => {
                if !shared || linear.norm.is_some() {
                    scratch.activations.quantize(kernel, input, width);
                    shared = linear.norm.is_none();
                }
                w.gemm(kernel, &scratch.activations, out);
            }
        }
    }
}
