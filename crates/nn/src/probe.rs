//! A look at what passes through the blocks, for measurements.

use burn::tensor::{Tensor, backend::Backend};
use tritburn_quant::scheme::Input;

use crate::linear::BitLinear;

/// Sees activations on their way. Every method may be left out.
pub trait Probe<B: Backend> {
    /// `x` `[tokens, in]` is about to enter `linear`, one of the projections that share `input`.
    fn input(&mut self, input: Input, x: &Tensor<B, 2>, linear: &BitLinear<B>) {
        let _ = (input, x, linear);
    }

    /// `x` `[tokens, hidden]` is what runs past the blocks: the embedding, then the sum behind each
    /// layer in turn.
    fn residual(&mut self, x: &Tensor<B, 2>) {
        let _ = x;
    }

    /// `gate` `[tokens, intermediate]` is about to pass the activation function.
    fn gate(&mut self, gate: &Tensor<B, 2>) {
        let _ = gate;
    }
}

/// Keeps what leaves each block, `[tokens, hidden]`, in their order.
#[derive(Debug, Clone)]
pub struct Residuals<B: Backend> {
    embedded: bool,
    /// What left the blocks so far.
    pub blocks: Vec<Tensor<B, 2>>,
}

impl<B: Backend> Default for Residuals<B> {
    fn default() -> Self {
        Self {
            embedded: false,
            blocks: Vec::new(),
        }
    }
}

impl<B: Backend> Probe<B> for Residuals<B> {
    fn residual(&mut self, x: &Tensor<B, 2>) {
        if self.embedded {
            self.blocks.push(x.clone());
        }
        self.embedded = true;
    }
}

/// Sees nothing.
#[derive(Debug, Clone, Copy)]
pub struct Blind;

impl<B: Backend> Probe<B> for Blind {}
