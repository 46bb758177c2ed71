//! Projections, ternary or dense, with or without a norm in front.

use tritburn_kernels::memory::Region;
use tritburn_kernels::sparse::{ColumnMatrix, NonZero, RowMatrix};
use tritburn_kernels::ternary::gemm_all;
use tritburn_kernels::{
    Activations, Buffer, DenseMatrix, Exec, Format, PackedCodes, Pool, Scales, TernaryMatrix, ops,
};

use super::input::{InputQuant, LinearInput};
use super::norm::RmsNorm;
use crate::error::Result;

/// Weights of a projection. All but the dense ones are ternary, and their input is quantised.
#[derive(Debug)]
pub(crate) enum Weight {
    /// Full precision.
    Dense(DenseMatrix),
    /// For inputs that are hardly ever zero.
    Ternary(TernaryMatrix),
    /// For inputs with many zeros.
    Columns(ColumnMatrix),
    /// For outputs of which only some are wanted.
    Rows(RowMatrix),
}

/// How a ternary weight is to be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// [`Weight::Ternary`].
    Packed(Format),
    /// [`Weight::Columns`].
    Columns,
    /// [`Weight::Rows`].
    Rows,
}

impl Weight {
    /// Packs codes on all threads of `pool`; scales per group, which have no sparse product, always as
    /// [`Weight::Ternary`].
    pub(crate) fn pack(pool: &Pool, codes: &PackedCodes<'_>, layout: Layout) -> Result<Self> {
        let grouped = matches!(codes.scales(), Scales::Group(_));
        Ok(match layout {
            Layout::Columns if !grouped => Self::Columns(ColumnMatrix::pack(pool, codes)?),
            Layout::Rows if !grouped => Self::Rows(RowMatrix::pack(pool, codes)?),
            Layout::Packed(format) => Self::Ternary(TernaryMatrix::pack(pool, codes, format)),
            _ => Self::Ternary(TernaryMatrix::pack(pool, codes, Format::TwoBit)),
        })
    }

    /// Output and input width.
    fn shape(&self) -> [usize; 2] {
        match self {
            Self::Dense(w) => [w.rows(), w.cols()],
            Self::Ternary(w) => [w.rows(), w.cols()],
            Self::Columns(w) => [w.rows(), w.cols()],
            Self::Rows(w) => [w.rows(), w.cols()],
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Dense(w) => w.bytes(),
            Self::Ternary(w) => w.bytes(),
            Self::Columns(w) => w.bytes(),
            Self::Rows(w) => w.bytes(),
        }
    }

    /// Scales of a ternary weight.
    pub(crate) fn scales(&self) -> Option<&Scales> {
        match self {
            Self::Dense(_) => None,
            Self::Ternary(w) => Some(w.scales()),
            Self::Columns(w) => Some(w.scales()),
            Self::Rows(w) => Some(w.scales()),
        }
    }

    /// How a ternary weight is packed.
    pub(crate) fn format(&self) -> Option<Format> {
        match self {
            Self::Dense(_) => None,
            Self::Ternary(w) => Some(w.format()),
            Self::Columns(_) | Self::Rows(_) => Some(Format::TwoBit),
        }
    }
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
    shared: Buffer<f32>,
    /// `x` after the norm of one output.
    own: Buffer<f32>,
    /// What was quantised last.
    pub(crate) activations: Activations,
    /// What was quantised as it was computed, for the projection that follows.
    pub(crate) next: Activations,
    non_zero: NonZero,
    /// Bytes of weights that were not read since inputs were zero or gates closed.
    pub(crate) left_out: u64,
}

impl LinearScratch {
    /// The product of a ternary weight with what was quantised last.
    fn multiply(&mut self, exec: &Exec, weight: &Weight, out: &mut [f32]) {
        let x = &self.activations;
        match weight {
            Weight::Dense(_) => unreachable!("has no quantised input"),
            Weight::Ternary(w) => w.gemm(exec, x, out),
            Weight::Rows(w) => w.gemm(exec, x, out),
            Weight::Columns(w) => {
                let read = w.gemm_non_zero(exec, x, &mut self.non_zero, out);
                let zero = x.tokens() * w.cols() - read;
                self.left_out += (zero * w.bytes() / w.cols().max(1)) as u64;
            }
        }
    }
}

impl Linear {
    /// Output width.
    pub(crate) fn rows(&self) -> usize {
        self.weight.shape()[0]
    }

    /// How the input of a ternary weight becomes codes, after `norm` or else its own.
    pub(crate) fn quantizer<'a>(&'a self, norm: Option<&'a RmsNorm>) -> LinearInput<'a> {
        LinearInput {
            norm: norm.or(self.norm.as_ref()),
            quant: self.input.as_ref(),
        }
    }

    /// Bytes of weights that one forward pass reads at most.
    pub(crate) fn bytes(&self) -> usize {
        self.weight.bytes()
    }

    /// Where the weights lie.
    pub(crate) fn region(&self) -> Region<'_> {
        match &self.weight {
            Weight::Dense(w) => w.region(),
            Weight::Ternary(w) => w.region(),
            Weight::Columns(w) => w.region(),
            Weight::Rows(w) => w.region(),
        }
    }

    /// Multiplications per token.
    pub(crate) fn weights(&self) -> usize {
        self.weight.shape().iter().product()
    }
}

/// Applies several projections to the same `x`, `[tokens, width]`, after `norm` where there is one;
/// the outputs are `[tokens, rows]`. Without norms of their own they share one
/// quantisation of `x`, which is one pass with the norm, and one parallel region.
pub(crate) fn project<const N: usize>(
    exec: &Exec,
    x: &[f32],
    width: usize,
    norm: Option<&RmsNorm>,
    mut outputs: [(&Linear, &mut [f32]); N],
    scratch: &mut LinearScratch,
) {
    if shares_input(&outputs) {
        quantize_for(exec, outputs[0].0, x, width, norm, scratch);
        if let Some(mut products) = packed(&mut outputs) {
            gemm_all(exec, &scratch.activations, &mut products);
        } else {
            for (linear, out) in &mut outputs {
                scratch.multiply(exec, &linear.weight, out);
            }
        }
        for (linear, out) in outputs {
            add_bias(linear.bias.as_deref(), out);
        }
        return;
    }
    let mut shared = std::mem::take(&mut scratch.shared);
    let x = match norm {
        Some(norm) => {
            shared.resize(x.len());
            norm.forward(exec, x, &mut shared);
            &shared
        }
        None => x,
    };
    for (linear, out) in outputs {
        match (&linear.weight, &linear.norm) {
            (Weight::Dense(w), Some(norm)) => {
                scratch.own.resize(x.len());
                norm.forward(exec, x, &mut scratch.own);
                w.gemm(exec, &scratch.own, out);
            }
            (Weight::Dense(w), None) => w.gemm(exec, x, out),
            (weight, _) => {
                quantize_for(exec, linear, x, width, None, scratch);
                scratch.multiply(exec, weight, out);
            }
        }
        add_bias(linear.bias.as_deref(), out);
    }
    scratch.shared = shared;
}

/// Adds to `stream`, `[tokens, rows]`, what a projection of `x`, `[tokens, width]`, gives after the norm
/// `post`, where there is one; two buffers are overwritten.
pub(crate) fn project_onto(
    exec: &Exec,
    x: &[f32],
    width: usize,
    (linear, post): (&Linear, Option<&RmsNorm>),
    stream: &mut [f32],
    [own, normed]: [&mut Buffer<f32>; 2],
    scratch: &mut LinearScratch,
) {
    if matches!(linear.weight, Weight::Dense(_)) {
        own.resize(stream.len());
        project(exec, x, width, None, [(linear, &mut **own)], scratch);
        return add_normed(exec, linear.rows(), post, stream, [own, normed]);
    }
    quantize_for(exec, linear, x, width, None, scratch);
    multiply_onto(exec, (linear, post), stream, [own, normed], scratch);
}

/// [`project_onto`] for a ternary weight, of what [`LinearScratch::next`] holds.
pub(crate) fn project_next_onto(
    exec: &Exec,
    projection: (&Linear, Option<&RmsNorm>),
    stream: &mut [f32],
    buffers: [&mut Buffer<f32>; 2],
    scratch: &mut LinearScratch,
) {
    std::mem::swap(&mut scratch.activations, &mut scratch.next);
    multiply_onto(exec, projection, stream, buffers, scratch);
    // Each keeps its size: one is as wide as the model, the other as its feed-forward blocks.
    std::mem::swap(&mut scratch.activations, &mut scratch.next);
}

/// [`project_onto`] for a ternary weight, of what was quantised last.
fn multiply_onto(
    exec: &Exec,
    (linear, post): (&Linear, Option<&RmsNorm>),
    stream: &mut [f32],
    [own, normed]: [&mut Buffer<f32>; 2],
    scratch: &mut LinearScratch,
) {
    if let (Weight::Ternary(w), None, None) = (&linear.weight, &linear.bias, post) {
        return w.gemm_add(exec, &scratch.activations, stream);
    }
    own.resize(stream.len());
    scratch.multiply(exec, &linear.weight, own);
    add_bias(linear.bias.as_deref(), own);
    add_normed(exec, linear.rows(), post, stream, [own, normed]);
}

/// Adds `own`, rows of `width`, to `stream` after the norm `post`, where there is one.
fn add_normed(
    exec: &Exec,
    width: usize,
    post: Option<&RmsNorm>,
    stream: &mut [f32],
    [own, normed]: [&mut Buffer<f32>; 2],
) {
    if let Some(norm) = post {
        norm.in_place(exec, own, normed);
    }
    let own = &**own;
    exec.light_rows(stream, width, |t, stream| {
        ops::add(stream, &own[t * width..][..width]);
    });
}

fn add_bias(bias: Option<&[f32]>, out: &mut [f32]) {
    let Some(bias) = bias else { return };
    for row in out.chunks_exact_mut(bias.len()) {
        ops::add(row, bias);
    }
}

/// Whether all weights are ternary and what they multiply differs by nothing.
fn shares_input<const N: usize>(outputs: &[(&Linear, &mut [f32]); N]) -> bool {
    let ternary = |linear: &Linear| !matches!(linear.weight, Weight::Dense(_));
    outputs.iter().all(|(l, _)| ternary(l) && l.norm.is_none())
}

/// The products, where all weights are in the layout that [`gemm_all`] takes.
fn packed<'a, const N: usize>(
    outputs: &'a mut [(&Linear, &mut [f32]); N],
) -> Option<[(&'a TernaryMatrix, &'a mut [f32]); N]> {
    let is_packed = |linear: &Linear| matches!(linear.weight, Weight::Ternary(_));
    if !outputs.iter().all(|(linear, _)| is_packed(linear)) {
        return None;
    }
    Some(
        outputs
            .each_mut()
            .map(|(linear, out)| match &linear.weight {
                Weight::Ternary(w) => (w, &mut **out),
                _ => unreachable!("just looked"),
            }),
    )
}

/// Quantises `x` as the ternary weight of `linear` takes it, after `norm` and after its own norm.
pub(crate) fn quantize_for(
    exec: &Exec,
    linear: &Linear,
    x: &[f32],
    width: usize,
    norm: Option<&RmsNorm>,
    scratch: &mut LinearScratch,
) {
    if let (Some(norm), Some(_)) = (norm, &linear.norm) {
        let mut shared = std::mem::take(&mut scratch.shared);
        shared.resize(x.len());
        norm.forward(exec, x, &mut shared);
        quantize_for(exec, linear, &shared, width, None, scratch);
        scratch.shared = shared;
        return;
    }
    let quantizer = linear.quantizer(norm);
    scratch.activations.quantize_by(exec, x, width, &quantizer);
}
