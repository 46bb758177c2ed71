//! What is measured of a model while it is trained.

use burn::tensor::{Int, Tensor, TensorData};
use tritburn_data::Batch;
use tritburn_nn::CausalLm;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_nn::sparsity::Sparsity;
use tritburn_nn::weights::to_host;
use tritburn_quant::config::ModelConfig;

use crate::scorer::{index, to_i32};

/// Rows of a batch that are looked at: enough to see, cheap enough to repeat.
const ROWS: usize = 8;

/// Positions whose logits are held at once.
const CHUNK: usize = 64;

/// How far two models lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Drift {
    /// ‖a − b‖ / ‖a‖ over all logits.
    pub(crate) relative: f64,
    /// Share of positions where both have the same largest logit.
    pub(crate) top1: f64,
}

/// The first rows of a batch, and which positions of them are real tokens.
pub(crate) fn head<B: Kernels>(
    batch: &Batch,
    device: &B::Device,
) -> (Tensor<B, 2, Int>, Tensor<B, 1, Int>) {
    let rows = batch.batch.min(ROWS);
    let tokens = batch.tokens[..rows * batch.seq].iter();
    let tokens: Vec<i32> = tokens.map(|&t| to_i32(t)).collect();
    let real: Vec<i32> = (0..tokens.len())
        .filter(|&i| batch.attention_mask[i] > 0.0)
        .map(index)
        .collect();
    let tokens = TensorData::new(tokens, [rows, batch.seq]);
    let count = real.len();
    let real = Tensor::from_data(TensorData::new(real, [count]), device);
    (Tensor::from_data(tokens, device), real)
}

/// See [`tritburn_nn::sparsity::sparsity`].
pub(crate) fn sparsity<B: Kernels + Ops>(
    model: &CausalLm<B>,
    config: &ModelConfig,
    batch: &Batch,
    device: &B::Device,
) -> Sparsity {
    let (tokens, real) = head(batch, device);
    tritburn_nn::sparsity::sparsity(model, config, tokens, real)
}

/// Compares the logits of two models at the real positions of a batch.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn drift<B: Kernels + Ops>(
    a: &CausalLm<B>,
    b: &CausalLm<B>,
    batch: &Batch,
    device: &B::Device,
) -> Drift {
    let (tokens, real) = head(batch, device);
    let hidden = |model: &CausalLm<B>| {
        let hidden = model.forward(tokens.clone(), &[]).hidden;
        hidden.select(0, real.clone())
    };
    let (hidden_a, hidden_b) = (hidden(a), hidden(b));
    let sum = |x: Tensor<B, 2>| f64::from(to_host(x.sum())[0]);
    let best = |x: &Tensor<B, 2>| x.clone().argmax(1);
    let rows = hidden_a.dims()[0];
    let (mut apart, mut whole, mut same) = (0.0, 0.0, 0.0);
    for from in (0..rows).step_by(CHUNK) {
        let part = |hidden: &Tensor<B, 2>| hidden.clone().narrow(0, from, CHUNK.min(rows - from));
        let (la, lb) = (a.logits(part(&hidden_a)), b.logits(part(&hidden_b)));
        same += sum(best(&la).equal(best(&lb)).float());
        let difference = la.clone() - lb;
        apart += sum(difference.clone() * difference);
        whole += sum(la.clone() * la);
    }
    Drift {
        relative: (apart / whole).sqrt(),
        top1: same / rows as f64,
    }
}
