//! Projections, ternary or dense, with or without a norm in front.

use tritburn_kernels::ternary::gemm_all;
use tritburn_kernels::{Activations, DenseMatrix, Exec, TernaryMatrix, ops};

use super::input::InputQuant;
use super::norm::RmsNorm;

/// Weights of a projection.
#[derive(Debug)]
pub(crate) enum Weight {
    /// Full precision.
    Dense(DenseMatrix),
    /// Ternary; its input is quantised.
    Ternary(TernaryMatrix),
}

/// `y = W · norm(x) + bias`.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) norm: Option<RmsNorm>,
    /// Quantiser of the input of a ternary weight; INT8 per token where none is named.
    pub(crate) input: Option<InputQuant>,
    pub(crate) weight: Weight,
    /// One value a row.
    pub(crate) bias: Option<Vec<f32>>,
}

/// Buffers of [`project`].
#[derive(Debug, Default)]
pub(crate) struct LinearScratch {
    /// `x` after the norm that all outputs share.
    shared: Vec<f32>,
    /// `x` after the norm of one output.
    own: Vec<f32>,
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

/// Applies several projections to the same `x`, `[tokens, width]`, after `norm` where there is one;
/// each output is resized to `[tokens, rows]`. Without norms of their own they share one
/// quantisation of `x`, which is one pass with the norm, and one parallel region.
pub(crate) fn project<const N: usize>(
    exec: &Exec,
    x: &[f32],
    width: usize,
    norm: Option<&RmsNorm>,
    mut outputs: [(&Linear, &mut Vec<f32>); N],
    scratch: &mut LinearScratch,
) {
    let tokens = x.len() / width;
    for (linear, out) in &mut outputs {
        out.resize(tokens * linear.rows(), 0.0);
    }
    if let Some(matrices) = ternary_without_norms(&outputs) {
        let input = outputs[0].0.input.as_ref();
        quantize(exec, x, width, norm, input, &mut scratch.activations);
        let biases = outputs.each_ref().map(|(linear, _)| linear.bias.as_deref());
        let mut outs = outputs.map(|(_, out)| out.as_mut_slice()).into_iter();
        let mut products = matrices.map(|w| (w, outs.next().unwrap_or_default()));
        gemm_all(exec, &scratch.activations, &mut products);
        for (bias, (_, out)) in biases.into_iter().zip(products) {
            add_bias(bias, out);
        }
        return;
    }
    let x = match norm {
        Some(norm) => {
            scratch.shared.resize(x.len(), 0.0);
            norm.forward(exec, x, &mut scratch.shared);
            &scratch.shared
        }
        None => x,
    };
    for (linear, out) in outputs {
        match &linear.weight {
            Weight::Ternary(w) => {
                quantize(
                    exec,
                    x,
                    width,
                    linear.norm.as_ref(),
                    linear.input.as_ref(),
                    &mut scratch.activations,
                );
                w.gemm(exec, &scratch.activations, out);
            }
            Weight::Dense(w) => match &linear.norm {
                Some(norm) => {
                    scratch.own.resize(x.len(), 0.0);
                    norm.forward(exec, x, &mut scratch.own);
                    w.gemm(exec, &scratch.own, out);
                }
                None => w.gemm(exec, x, out),
            },
        }
        add_bias(linear.bias.as_deref(), out);
    }
}

fn add_bias(bias: Option<&[f32]>, out: &mut [f32]) {
    let Some(bias) = bias else { return };
    for row in out.chunks_exact_mut(bias.len()) {
        ops::add(row, bias);
    }
}

fn ternary_without_norms<'a, const N: usize>(
    outputs: &[(&'a Linear, &mut Vec<f32>); N],
) -> Option<[&'a TernaryMatrix; N]> {
    let matrix = |linear: &'a Linear| match &linear.weight {
        Weight::Ternary(w) if linear.norm.is_none() => Some(w),
        _ => None,
    };
    let first = matrix(outputs.first()?.0)?;
    let mut all = [first; N];
    for (slot, (linear, _)) in all.iter_mut().zip(outputs) {
        *slot = matrix(linear)?;
    }
    Some(all)
}

fn quantize(
    exec: &Exec,
    x: &[f32],
    width: usize,
    norm: Option<&RmsNorm>,
    input: Option<&InputQuant>,
    activations: &mut Activations,
) {
    if let Some(input) = input {
        return input.quantize(exec, x, width, norm, activations);
    }
    match norm {
        None => activations.quantize(exec, x, width),
        Some(norm) => {
            let row = |t: usize, codes: &mut [i8]| norm.quantize(&x[t * width..][..width], codes);
            activations.fill(exec, x.len() / width, width, row);
        }
    }
}
