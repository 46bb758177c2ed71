//! Corpus BLEU as sacrebleu computes it by default: 13a tokens, case kept, exponential smoothing.
//!
//! K. Papineni and others, "BLEU: a Method for Automatic Evaluation of Machine Translation", 2002;
//! M. Post, "A Call for Clarity in Reporting BLEU Scores", 2018.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::tokens_13a::tokenize;

/// Longest n-gram.
const ORDER: usize = 4;

/// Counts of any number of segments; they add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BleuCounts {
    matches: [u64; ORDER],
    totals: [u64; ORDER],
    predicted: u64,
    wanted: u64,
}

/// A corpus score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bleu {
    /// Between 0 and 100.
    pub score: f64,
    /// Precision of 1- to 4-grams in percent, smoothed.
    pub precisions: [f64; ORDER],
    /// 1, or less where the predictions are shorter than the references.
    pub brevity_penalty: f64,
    /// Tokens of the predictions.
    pub predicted_len: u64,
    /// Tokens of the references.
    pub reference_len: u64,
}

impl BleuCounts {
    /// Adds a segment.
    pub fn add(&mut self, reference: &str, prediction: &str) {
        let (wanted, predicted) = (tokenize(reference), tokenize(prediction));
        self.wanted += wanted.len() as u64;
        self.predicted += predicted.len() as u64;
        for n in 1..=ORDER {
            let mut left: HashMap<&[String], u64> = HashMap::new();
            for gram in wanted.windows(n) {
                *left.entry(gram).or_default() += 1;
            }
            for gram in predicted.windows(n) {
                self.totals[n - 1] += 1;
                if let Some(count) = left.get_mut(gram).filter(|count| **count > 0) {
                    *count -= 1;
                    self.matches[n - 1] += 1;
                }
            }
        }
    }

    /// The score of all segments added.
    pub fn score(&self) -> Bleu {
        let brevity_penalty = if self.predicted >= self.wanted {
            1.0
        } else if self.predicted == 0 {
            0.0
        } else {
            (1.0 - self.wanted as f64 / self.predicted as f64).exp()
        };
        let mut precisions = [0.0; ORDER];
        let mut score = 0.0;
        if self.matches.iter().any(|&matches| matches > 0) {
            // Each order without a match halves what it is taken to have.
            let mut smoothing = 1.0;
            for (n, precision) in precisions.iter_mut().enumerate() {
                if self.totals[n] == 0 {
                    break;
                }
                let matches = if self.matches[n] == 0 {
                    smoothing /= 2.0;
                    smoothing
                } else {
                    self.matches[n] as f64
                };
                *precision = 100.0 * matches / self.totals[n] as f64;
            }
            let logs: f64 = precisions.iter().map(|p| p.ln()).sum();
            // An order without any n-gram has precision 0, and so has the corpus.
            score = brevity_penalty * (logs / ORDER as f64).exp();
        }
        Bleu {
            score,
            precisions,
            brevity_penalty,
            predicted_len: self.predicted,
            reference_len: self.wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(pairs: &[(&str, &str)]) -> Bleu {
        let mut counts = BleuCounts::default();
        for (reference, prediction) in pairs {
            counts.add(reference, prediction);
        }
        counts.score()
    }

    #[test]
    fn scores_are_sacrebleus() {
        // sacrebleu.corpus_bleu of version 2.6.0.
        let same = score(&[("the cat sat on the mat", "the cat sat on the mat")]);
        assert!((same.score - 100.0).abs() < 1e-9);
        let near = score(&[
            ("the cat sat on the mat.", "a cat sat on a mat"),
            ("it rains", "it rains today, again"),
        ]);
        assert!((near.score - 22.575_366_917_009_9).abs() < 1e-9, "{near:?}");
        let short = score(&[("the cat sat on the mat today", "the cat sat")]);
        assert!(short.score == 0.0, "{short:?}");
        let shorter = score(&[("the cat sat on the mat today", "the cat sat on")]);
        assert!(
            (shorter.score - 47.236_655_274_101_49).abs() < 1e-9,
            "{shorter:?}"
        );
    }

    #[test]
    fn nothing_scores_nothing() {
        assert_eq!(score(&[]).score, 0.0);
        assert_eq!(score(&[("a b", "")]).score, 0.0);
        assert_eq!(score(&[("", "a b c d e")]).score, 0.0);
        assert_eq!(score(&[("a", "b")]).score, 0.0);
    }
}
