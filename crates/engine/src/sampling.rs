//! The choice of the next token.

use std::cmp::Ordering;
use std::collections::HashMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{EngineError, Result};

/// Candidates that top-p first sorts; it takes more only where they do not reach `top_p`.
const TOP_P_STEP: usize = 256;

/// How the next token is chosen. Applied in this order: penalties, temperature, top-k, top-p,
/// min-p.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Keeps the `k` most likely tokens; `None` or 0 keeps all.
    pub top_k: Option<usize>,
    /// Keeps the most likely tokens whose probabilities add up to this; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens less likely than this share of the most likely; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or completion; 1 is off.
    pub repetition_penalty: f32,
    /// Taken off the logit of a token for each time it stands in the completion; 0 is off.
    pub frequency_penalty: f32,
    /// Taken off the logit of every token that stands in the completion; 0 is off.
    pub presence_penalty: f32,
    /// The same seed gives the same choices.
    pub seed: u64,
}

impl Default for SamplingParams {
    /// Greedy.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// Checks every field.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] for the first field out of range.
    pub fn validate(&self) -> Result<()> {
        let checks = [
            (
                "temperature",
                self.temperature,
                0.0..=100.0,
                "it must be between 0 and 100",
            ),
            (
                "top_p",
                self.top_p,
                f32::MIN_POSITIVE..=1.0,
                "it must be above 0 and at most 1",
            ),
            ("min_p", self.min_p, 0.0..=1.0, "it must be between 0 and 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                f32::MIN_POSITIVE..=1e6,
                "it must be positive",
            ),
            (
                "frequency_penalty",
                self.frequency_penalty,
                -2.0..=2.0,
                "it must be between −2 and 2",
            ),
            (
                "presence_penalty",
                self.presence_penalty,
                -2.0..=2.0,
                "it must be between −2 and 2",
            ),
        ];
        for (field, value, range, expected) in checks {
            if !range.contains(&value) {
                return Err(EngineError::Parameter {
                    field,
                    value: value.to_string(),
                    expected,
                });
            }
        }
        Ok(())
    }
}

/// Chooses tokens one after another and remembers them for the penalties.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    rng: ChaCha8Rng,
    /// How often each token stands in the completion; 0 for tokens of the prompt alone.
    counts: HashMap<u32, u32>,
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
            candidates: Vec::new(),
        })
    }

    /// Chooses a token by its logit, `[vocab]`. Logits that are no numbers are never chosen.
    ///
    /// # Errors
    /// [`EngineError::NotFinite`] where no logit is finite.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        self.candidates.clear();
        let all = logits.iter().zip(0u32..).map(|(&logit, id)| (logit, id));
        self.candidates.extend(all.filter(|(l, _)| l.is_finite()));
        if self.candidates.is_empty() {
            return Err(EngineError::NotFinite);
        }
        self.penalise(logits.len());
        let token = if self.params.temperature == 0.0 {
            // The first of equals, as torch.argmax.
            let best = |a: (f32, u32), b: &(f32, u32)| if b.0 > a.0 { *b } else { a };
            let first = self.candidates[0];
            self.candidates.iter().fold(first, best).1
        } else {
            self.draw()
        };
        *self.counts.entry(token).or_insert(0) += 1;
        Ok(token)
    }

    fn penalise(&mut self, vocab: usize) {
        let p = &self.params;
        if p.repetition_penalty == 1.0 && p.frequency_penalty == 0.0 && p.presence_penalty == 0.0 {
            return;
        }
        let whole = self.candidates.len() == vocab;
        for (&token, &count) in &self.counts {
            let at = if whole {
                Some(token as usize).filter(|&i| i < vocab)
            } else {
                self.candidates.iter().position(|c| c.1 == token)
            };
            let Some(at) = at else { continue };
            let logit = &mut self.candidates[at].0;
            if *logit > 0.0 {
                *logit /= p.repetition_penalty;
            } else {
                *logit *= p.repetition_penalty;
            }
            if count > 0 {
                *logit -= p.frequency_penalty * count as f32 + p.presence_penalty;
            }
        }
    }

    /// Samples from the candidates that the filters leave.
    fn draw(&mut self) -> u32 {
        let c = &mut self.candidates;
        if let Some(k) = self.params.top_k
            && (1..c.len()).contains(&k)
        {
            c.select_nth_unstable_by(k - 1, more_likely);
            c.truncate(k);
        }
        let max = c.iter().fold(f32::NEG_INFINITY, |m, l| m.max(l.0));
        let mut total = 0.0;
        for (weight, _) in c.iter_mut() {
            *weight = ((*weight - max) / self.params.temperature).exp();
            total += *weight;
        }
        if self.params.top_p < 1.0 {
            keep_top_p(c, self.params.top_p * total);
        }
        if self.params.min_p > 0.0 {
            // The most likely token has weight 1.
            c.retain(|(weight, _)| *weight >= self.params.min_p);
        }
        let total: f32 = c.iter().map(|(weight, _)| weight).sum();
        // 24 bits: every value below 1 that f32 can tell apart evenly.
        let unit = (self.rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32;
        let mut left = unit * total;
        for &(weight, token) in c.iter() {
            left -= weight;
            if left < 0.0 {
                return token;
            }
        }
        // Rounding used up the sum: the last that can occur at all.
        let last = c.iter().rev().find(|(weight, _)| *weight > 0.0);
        last.map_or(c[0].1, |&(_, token)| token)
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frequencies(params: SamplingParams, logits: &[f32]) -> Vec<f32> {
        let mut sampler = Sampler::new(params, &[]).unwrap();
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..20_000 {
            counts[sampler.sample(logits).unwrap() as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    fn hot() -> SamplingParams {
        SamplingParams {
            temperature: 1.0,
            ..SamplingParams::default()
        }
    }

    /// Logits of probabilities 0.5, 0.3, 0.15, 0.05.
    fn logits() -> Vec<f32> {
        [0.15f32, 0.5, 0.05, 0.3]
            .iter()
            .map(|p| p.ln() + 3.0)
            .collect()
    }

    fn close(got: &[f32], want: [f32; 4]) {
        assert!(
            got.iter().zip(want).all(|(g, w)| (g - w).abs() < 0.015),
            "{got:?} {want:?}"
        );
    }

    #[test]
    fn draws_follow_the_distribution_and_its_filters() {
        close(&frequencies(hot(), &logits()), [0.15, 0.5, 0.05, 0.3]);
        let p = SamplingParams {
            top_k: Some(2),
            ..hot()
        };
        close(&frequencies(p, &logits()), [0.0, 0.625, 0.0, 0.375]);
        let p = SamplingParams {
            top_p: 0.79,
            ..hot()
        };
        close(&frequencies(p, &logits()), [0.0, 0.625, 0.0, 0.375]);
        let p = SamplingParams {
            min_p: 0.25,
            ..hot()
        };
        let want = [0.15 / 0.95, 0.5 / 0.95, 0.0, 0.3 / 0.95];
        close(&frequencies(p, &logits()), want);
        let p = SamplingParams {
            temperature: 0.5,
            ..SamplingParams::default()
        };
        let sum = 0.0225 + 0.25 + 0.0025 + 0.09;
        let want = [0.0225 / sum, 0.25 / sum, 0.0025 / sum, 0.09 / sum];
        close(&frequencies(p, &logits()), want);
        let p = SamplingParams {
            top_p: 1e-6,
            ..hot()
        };
        assert_eq!(frequencies(p, &logits())[1].round(), 1.0);
    }

    #[test]
    fn top_p_looks_past_its_first_step() {
        let mut even: Vec<(f32, u32)> = (0..5000).map(|i| (1.0, i)).collect();
        keep_top_p(&mut even, 3000.0);
        assert_eq!(even.len(), 3000);
        assert_eq!(even[2999].1, 2999);
    }

    #[test]
    fn greedy_takes_the_first_maximum_and_skips_what_is_no_number() {
        let mut sampler = Sampler::new(SamplingParams::default(), &[]).unwrap();
        assert_eq!(sampler.sample(&[1.0, 5.0, 5.0]).unwrap(), 1);
        assert_eq!(sampler.sample(&[f32::NAN, f32::INFINITY, -3.0]).unwrap(), 2);
        assert!(matches!(
            sampler.sample(&[f32::NAN; 3]),
            Err(EngineError::NotFinite)
        ));
    }

    #[test]
    fn penalties_count_prompt_and_completion() {
        let p = SamplingParams {
            repetition_penalty: 2.0,
            ..SamplingParams::default()
        };
        let mut sampler = Sampler::new(p, &[0, 77]).unwrap();
        assert_eq!(sampler.sample(&[3.0, 2.0, -9.0]).unwrap(), 1);
        let p = SamplingParams {
            frequency_penalty: 0.6,
            ..SamplingParams::default()
        };
        let mut sampler = Sampler::new(p, &[0]).unwrap();
        let drawn: Vec<u32> = (0..4)
            .map(|_| sampler.sample(&[2.0, 1.0]).unwrap())
            .collect();
        assert_eq!(drawn, [0, 0, 1, 0]);
    }

    #[test]
    fn seeds_repeat_and_bad_values_are_named() {
        let run = |seed| {
            let mut s = Sampler::new(SamplingParams { seed, ..hot() }, &[]).unwrap();
            (0..50)
                .map(|_| s.sample(&logits()).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        for bad in [
            SamplingParams {
                temperature: -1.0,
                ..hot()
            },
            SamplingParams {
                temperature: f32::NAN,
                ..hot()
            },
            SamplingParams {
                top_p: 0.0,
                ..hot()
            },
            SamplingParams {
                min_p: 1.5,
                ..hot()
            },
            SamplingParams {
                repetition_penalty: 0.0,
                ..hot()
            },
            SamplingParams {
                presence_penalty: 3.0,
                ..hot()
            },
        ] {
            assert!(matches!(bad.validate(), Err(EngineError::Parameter { .. })));
        }
    }
}
