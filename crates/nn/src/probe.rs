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
    /// layer in turn. What is returned goes on in its place.
    fn residual(&mut self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        x
    }

    /// `gate` `[tokens, intermediate]` is about to pass the activation function.
    fn gate(&mut self, gate: &Tensor<B, 2>) {
        let _ = gate;
    }
}

/// Keeps what leaves each block, `[tokens, hidden]`, in their order, behind another probe.
pub struct Residuals<'a, B: Backend> {
    next: &'a mut dyn Probe<B>,
    embedded: bool,
    /// What left the blocks so far.
    pub blocks: Vec<Tensor<B, 2>>,
}

impl<'a, B: Backend> Residuals<'a, B> {
    /// Nothing is kept yet; `next` sees everything first.
    pub fn behind(next: &'a mut dyn Probe<B>) -> Self {
        Self {
            next,
            embedded: false,
            blocks: Vec::new(),
        }
    }
}

impl<B: Backend> std::fmt::Debug for Residuals<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Residuals({})", self.blocks.len())
    }
}

impl<B: Backend> Probe<B> for Residuals<'_, B> {
    fn input(&mut self, input: Input, x: &Tensor<B, 2>, linear: &BitLinear<B>) {
        self.next.input(input, x, linear);
    }

    fn residual(&mut self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let x = self.next.residual(x);
        if self.embedded {
            self.blocks.push(x.clone());
        }
        self.embedded = true;
        x
    }

    fn gate(&mut self, gate: &Tensor<B, 2>) {
        self.next.gate(gate);
    }
}

/// Sees nothing.
#[derive(Debug, Clone, Copy)]
pub struct Blind;

impl<B: Backend> Probe<B> for Blind {}
