//! The training forward pass as a scorer: log-likelihoods and greedy text on any device.

use burn::tensor::{Int, Tensor, TensorData, activation};
use tritburn_eval::{LogLikelihood, Scorer};
use tritburn_nn::CausalLm;
use tritburn_nn::ops::{Kernels, Ops};

/// Sequences in one forward pass.
pub(crate) const BATCH: usize = 64;

/// Scores token sequences with a burn model, without a KV cache.
#[derive(Debug)]
pub(crate) struct ModelScorer<'a, B: Kernels> {
    model: &'a CausalLm<B>,
    device: &'a B::Device,
    pad: u32,
}

impl<'a, B: Kernels + Ops> ModelScorer<'a, B> {
    /// Batches are filled up with the token `pad`.
    pub(crate) fn new(model: &'a CausalLm<B>, device: &'a B::Device, pad: u32) -> Self {
        Self { model, device, pad }
    }

    fn ints(&self, v: Vec<i32>) -> Tensor<B, 1, Int> {
        let n = v.len();
        Tensor::from_data(TensorData::new(v, [n]), self.device)
    }

    /// Logits at `rows` of the sequences, filled up to the same length; a row is `(sequence,
    /// position)`.
    fn logits(&self, sequences: &[Vec<u32>], rows: &[(usize, usize)]) -> Tensor<B, 2> {
        let seq = sequences.iter().map(Vec::len).max().unwrap_or(1);
        let mut tokens = Vec::with_capacity(sequences.len() * seq);
        for (i, sequence) in sequences.iter().enumerate() {
            tokens.extend(sequence.iter().map(|&t| to_i32(t)));
            tokens.resize((i + 1) * seq, to_i32(self.pad));
        }
        let tokens = self.ints(tokens).reshape([sequences.len(), seq]);
        let rows = rows.iter().map(|&(i, at)| index(i * seq + at)).collect();
        let hidden = self.model.forward(tokens, &[]).hidden;
        self.model.logits(hidden.select(0, self.ints(rows)))
    }

    /// Scores one batch. Contexts must not be empty.
    pub(crate) fn score(&self, chunk: &[(Vec<u32>, Vec<u32>)]) -> Vec<LogLikelihood> {
        let sequences: Vec<Vec<u32>> = chunk.iter().map(|(c, a)| [&c[..], a].concat()).collect();
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (i, (context, answer)) in chunk.iter().enumerate() {
            for (j, &target) in answer.iter().enumerate() {
                rows.push((i, context.len() + j - 1));
                targets.push(to_i32(target));
            }
        }
        let n = rows.len();
        let log_probs = activation::log_softmax(self.logits(&sequences, &rows), 1);
        let best = log_probs.clone().argmax(1).into_data();
        let best: Vec<i64> = best.iter::<i64>().collect();
        let chosen = log_probs.gather(1, self.ints(targets.clone()).reshape([n, 1]));
        let chosen: Vec<f32> = chosen.into_data().iter::<f32>().collect();
        let mut at = 0;
        let one = |answer: &Vec<u32>| {
            let range = at..at + answer.len();
            at = range.end;
            LogLikelihood {
                sum: chosen[range.clone()].iter().map(|&x| f64::from(x)).sum(),
                is_greedy: range.into_iter().all(|i| best[i] == i64::from(targets[i])),
            }
        };
        chunk.iter().map(|(_, answer)| answer).map(one).collect()
    }

    fn continue_greedily(
        &self,
        prompts: &[Vec<u32>],
        max_new: usize,
        stop: &[u32],
    ) -> Vec<Vec<u32>> {
        let mut sequences = prompts.to_vec();
        let mut open: Vec<usize> = (0..prompts.len()).collect();
        for _ in 0..max_new {
            if open.is_empty() {
                break;
            }
            let batch: Vec<Vec<u32>> = open.iter().map(|&i| sequences[i].clone()).collect();
            let rows: Vec<_> = batch.iter().map(|s| s.len() - 1).enumerate().collect();
            let next = self.logits(&batch, &rows).argmax(1).into_data();
            let next: Vec<u32> = next.iter::<u32>().collect();
            for (&i, &token) in open.iter().zip(&next) {
                sequences[i].push(token);
            }
            open.retain(|&i| sequences[i].last().is_none_or(|last| !stop.contains(last)));
        }
        let news = sequences.iter().zip(prompts).map(|(s, p)| {
            let mut new = s[p.len()..].to_vec();
            if new.last().is_some_and(|last| stop.contains(last)) {
                new.pop();
            }
            new
        });
        news.collect()
    }
}

impl<B: Kernels + Ops> Scorer for ModelScorer<'_, B> {
    fn loglikelihood(
        &mut self,
        requests: &[(Vec<u32>, Vec<u32>)],
    ) -> tritburn_eval::Result<Vec<LogLikelihood>> {
        Ok(requests.chunks(BATCH).flat_map(|c| self.score(c)).collect())
    }

    fn generate_greedy(
        &mut self,
        prompts: &[Vec<u32>],
        max_new: usize,
        stop: &[u32],
    ) -> tritburn_eval::Result<Vec<Vec<u32>>> {
        Ok(prompts
            .chunks(BATCH)
            .flat_map(|c| self.continue_greedily(c, max_new, stop))
            .collect())
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
