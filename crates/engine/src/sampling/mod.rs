//! The choice of the next token.

mod params;

use std::cmp::Ordering;
use std::collections::HashMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tritburn_kernels::choice::{BLOCK, block_maxima, drop_non_finite, weigh};
use tritburn_kernels::ops::argmax;

use crate::error::{EngineError, Result};
pub use params::SamplingParams;

/// Candidates that top-p first sorts; it takes more only where they do not reach `top_p`.
const TOP_P_STEP: usize = 256;

/// Chooses tokens one after another and remembers them for the penalties.
///
/// A vocabulary is passed over in vectors; token by token only those are looked at that lie in a block with
/// one which could be chosen.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    rng: ChaCha8Rng,
    /// How often each token stands in the completion; 0 for tokens of the prompt alone.
    counts: HashMap<u32, u32>,
    /// Logits, then what tokens weigh, by token.
    values: Vec<f32>,
    /// Maxima or sums of `values`, block by block.
    blocks: Vec<f32>,
    candidates: Vec<(f32, u32)>,
}

impl Sampler {
    /// Checks the parameters; `prompt` counts for the repetition penalty.
    ///
    /// # Errors
    /// [`EngineError::Parameter`].
    pub fn new(params: SamplingParams, prompt: &[u32]) -> Result<Self> {
        params.validate()?;
        Ok(Self {
            rng: ChaCha8Rng::seed_from_u64(params.seed),
            counts: prompt.iter().map(|&t| (t, 0)).collect(),
            params,
            values: Vec::new(),
            blocks: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// Chooses a token by its logit, `[vocab]`. Logits that are no numbers are never chosen.
    ///
    /// # Errors
    /// [`EngineError::NotFinite`] where no logit is finite.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let token = self.choose(logits)?;
        *self.counts.entry(token).or_insert(0) += 1;
        Ok(token)
    }

    fn choose(&mut self, logits: &[f32]) -> Result<u32> {
        let greedy = self.params.temperature == 0.0;
        if greedy && !self.params.penalises() {
            // The first of equals, as torch.argmax.
            if let Some(best) = argmax(logits).filter(|&i| logits[i].is_finite()) {
                return Ok(best as u32);
            }
        }
        self.values.clear();
        self.values.extend_from_slice(logits);
        drop_non_finite(&mut self.values);
        if self.params.penalises() {
            self.penalise();
        }
        let best = argmax(&self.values).filter(|&i| self.values[i] > f32::NEG_INFINITY);
        let best = best.ok_or(EngineError::NotFinite)?;
        Ok(if greedy {
            best as u32
        } else {
            self.draw(self.values[best])
        })
    }

    fn penalise(&mut self) {
        let p = &self.params;
        for (&token, &count) in &self.counts {
            let Some(logit) = self.values.get_mut(token as usize) else {
                continue;
            };
            if !logit.is_finite() {
                continue;
            }
            let mut value = *logit;
            if value > 0.0 {
                value /= p.repetition_penalty;
            } else {
                value *= p.repetition_penalty;
            }
            if count > 0 {
                value -= p.frequency_penalty * count as f32 + p.presence_penalty;
            }
            *logit = value.clamp(f32::MIN, f32::MAX);
        }
    }

    /// Samples from the tokens that the filters leave; `max` is the largest logit.
    fn draw(&mut self, max: f32) -> u32 {
        let p = &self.params;
        let few = p.top_k.filter(|k| (1..self.values.len()).contains(k));
        if let Some(k) = few {
            self.take_top_k(k);
            let mut total = 0.0;
            for (weight, _) in &mut self.candidates {
                *weight = ((*weight - max) / self.params.temperature).exp();
                total += *weight;
            }
            self.narrow(total);
            return self.draw_candidate();
        }
        weigh(&mut self.values, max, p.temperature, &mut self.blocks);
        if p.top_p >= 1.0 && p.min_p <= 0.0 {
            return self.draw_any();
        }
        let total: f32 = self.blocks.iter().sum();
        // All tokens that are lighter than this weigh less than half of what top-p drops together, so that it
        // ends in front of them; not less than all, since sums are rounded.
        let rest = (1.0 - p.top_p) * total / self.values.len() as f32 / 2.0;
        self.gather(rest.max(p.min_p));
        self.narrow(total);
        self.draw_candidate()
    }

    /// Makes the `k` most likely tokens the candidates, by their logits.
    fn take_top_k(&mut self, k: usize) {
        block_maxima(&self.values, &mut self.blocks);
        // As many values at least are no less than the k-th largest maximum.
        let mut maxima = self.blocks.clone();
        let bound = if k <= maxima.len() {
            *maxima
                .select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a))
                .1
        } else {
            f32::NEG_INFINITY
        };
        self.gather(bound);
        let c = &mut self.candidates;
        if k < c.len() {
            c.select_nth_unstable_by(k - 1, more_likely);
            c.truncate(k);
        }
    }

    /// Makes all tokens with values of `bound` or more the candidates, but for those that cannot occur;
    /// what the blocks hold is no less than any of their values.
    fn gather(&mut self, bound: f32) {
        self.candidates.clear();
        let blocks = self.values.chunks(BLOCK).zip(&self.blocks).enumerate();
        for (i, (values, &most)) in blocks {
            if most < bound {
                continue;
            }
            let ids = (i * BLOCK) as u32..;
            let tokens = values.iter().copied().zip(ids);
            let kept = tokens.filter(|&(v, _)| v >= bound && v > f32::NEG_INFINITY);
            self.candidates.extend(kept);
        }
    }

    /// Applies top-p and min-p to candidates by their weights; `total` is that of all tokens, or of
    /// those that top-k leaves.
    fn narrow(&mut self, total: f32) {
        let (c, p) = (&mut self.candidates, &self.params);
        if p.top_p < 1.0 {
            keep_top_p(c, p.top_p * total);
        }
        if p.min_p > 0.0 {
            // The most likely token has weight 1.
            c.retain(|(weight, _)| *weight >= p.min_p);
        }
    }

    /// Uniform in 0…1, without 1.
    fn unit(&mut self) -> f32 {
        // 24 bits: every value below 1 that f32 can tell apart evenly.
        (self.rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32
    }

    fn draw_candidate(&mut self) -> u32 {
        let unit = self.unit();
        let c = &self.candidates;
        let mut left = unit * c.iter().map(|(weight, _)| weight).sum::<f32>();
        for &(weight, token) in c {
            left -= weight;
            if left < 0.0 {
                return token;
            }
        }
        // Rounding used up the sum: the last that can occur at all.
        let last = c.iter().rev().find(|(weight, _)| *weight > 0.0);
        last.map_or(c[0].1, |&(_, token)| token)
    }

    /// Draws from all tokens by their weights: the block first, by its sum.
    fn draw_any(&mut self) -> u32 {
        let mut left = self.unit() * self.blocks.iter().sum::<f32>();
        let mut chosen = 0;
        for (i, &sum) in self.blocks.iter().enumerate() {
            if sum > 0.0 {
                chosen = i;
                if left < sum {
                    break;
                }
            }
            left -= sum;
        }
        let first = chosen * BLOCK;
        let mut token = first;
        for (i, &weight) in self.values[first..].iter().take(BLOCK).enumerate() {
            if weight > 0.0 {
                token = first + i;
                left -= weight;
                if left < 0.0 {
                    break;
                }
            }
        }
        token as u32
    }
}

/// Higher first; equal ones by id, so that the order is always the same.
fn more_likely(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Keeps the heaviest candidates until they weigh `mass`, at least one.
fn keep_top_p(candidates: &mut Vec<(f32, u32)>, mass: f32) {
    let mut sorted = TOP_P_STEP;
    loop {
        let whole = sorted >= candidates.len();
        if !whole {
            candidates.select_nth_unstable_by(sorted - 1, more_likely);
        }
        let end = sorted.min(candidates.len());
        let head = &mut candidates[..end];
        head.sort_unstable_by(more_likely);
        let mut sum = 0.0;
        let reached = head.iter().position(|(weight, _)| {
            sum += weight;
            sum >= mass
        });
        match reached {
            Some(last) => return candidates.truncate(last + 1),
            None if whole => return,
            None => sorted *= 8,
        }
    }
}

#[cfg(test)]
mod tests;
