//! Log-likelihoods and greedy text from a burn model: the training side's scorer.

use burn::tensor::{Int, Tensor, TensorData, activation};
use tritburn_nn::CausalLm;
use tritburn_nn::ops::{Kernels, Ops};

/// Scores token sequences with a burn model on any device.
#[derive(Debug)]
pub struct ModelScorer<'a, B: Kernels> {
    model: &'a CausalLm<B>,
    device: &'a B::Device,
    pad: u32,
    batch: usize,
}

impl<'a, B: Kernels + Ops> ModelScorer<'a, B> {
    /// Scores `batch` sequences at a time, filled up with `pad`.
    #[must_use]
    pub fn new(model: &'a CausalLm<B>, device: &'a B::Device, pad: u32, batch: usize) -> Self {
        Self {
            model,
            device,
            pad,
            batch: batch.max(1),
        }
    }

    /// For each pair of context and continuation: the summed log-probability of the continuation,
    /// and whether it is what greedy decoding would give. Contexts must not be empty.
    #[must_use]
    pub fn loglikelihood(&self, requests: &[(Vec<u32>, Vec<u32>)]) -> Vec<(f64, bool)> {
        requests
            .chunks(self.batch)
            .flat_map(|chunk| self.score(chunk))
            .collect()
    }

    fn score(&self, chunk: &[(Vec<u32>, Vec<u32>)]) -> Vec<(f64, bool)> {
        let seq = chunk
            .iter()
            .map(|(c, a)| c.len() + a.len())
            .max()
            .unwrap_or(1);
        let mut tokens = Vec::with_capacity(chunk.len() * seq);
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (i, (context, answer)) in chunk.iter().enumerate() {
            tokens.extend(context.iter().chain(answer).map(|&t| to_i32(t)));
            tokens.resize((i + 1) * seq, to_i32(self.pad));
            for (j, &target) in answer.iter().enumerate() {
                rows.push(index(i * seq + context.len() + j - 1));
                targets.push(to_i32(target));
            }
        }
        let n = rows.len();
        let ints =
            |v: Vec<i32>| Tensor::<B, 1, Int>::from_data(TensorData::new(v, [n]), self.device);
        let tokens = Tensor::from_data(TensorData::new(tokens, [chunk.len(), seq]), self.device);
        let hidden = self.model.forward(tokens, &[]).hidden.select(0, ints(rows));
        let log_probs = activation::log_softmax(self.model.logits(hidden), 1);
        let best: Vec<i64> = log_probs
            .clone()
            .argmax(1)
            .into_data()
            .iter::<i64>()
            .collect();
        let chosen = log_probs.gather(1, ints(targets.clone()).reshape([n, 1]));
        let chosen: Vec<f32> = chosen.into_data().iter::<f32>().collect();
        let mut at = 0;
        chunk
            .iter()
            .map(|(_, answer)| {
                let range = at..at + answer.len();
                at = range.end;
                let sum = chosen[range.clone()].iter().map(|&x| f64::from(x)).sum();
                let greedy = range.clone().all(|i| best[i] == i64::from(targets[i]));
                (sum, greedy)
            })
            .collect()
    }
}

/// Token ids are under 2³¹: vocabularies are checked when a model is read.
pub(crate) fn to_i32(token: u32) -> i32 {
    i32::try_from(token).unwrap_or(i32::MAX)
}

/// Row numbers of a batch fit 31 bits.
pub(crate) fn index(row: usize) -> i32 {
    i32::try_from(row).unwrap_or(i32::MAX)
}
