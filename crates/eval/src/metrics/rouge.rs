//! ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum as Google's rouge-score computes them.
//!
//! C.-Y. Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004. Texts are lowered and
//! cut at everything but ASCII letters and digits. Sentences of ROUGE-Lsum are lines.

use std::collections::HashMap;

use super::{lcs, porter};

/// Shares between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RougeScore {
    /// Share of the prediction that the reference has.
    pub precision: f64,
    /// Share of the reference that the prediction has.
    pub recall: f64,
    /// Harmonic mean of both.
    pub fmeasure: f64,
}

impl RougeScore {
    fn of(hits: usize, predicted: usize, wanted: usize) -> Self {
        if hits == 0 {
            return Self::default();
        }
        let precision = hits as f64 / predicted as f64;
        let recall = hits as f64 / wanted as f64;
        Self {
            precision,
            recall,
            fmeasure: 2.0 * precision * recall / (precision + recall),
        }
    }
}

/// The four scores of a summary.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rouge {
    /// Single words.
    pub rouge1: RougeScore,
    /// Pairs of neighbouring words.
    pub rouge2: RougeScore,
    /// Longest common subsequence of the whole texts.
    pub rouge_l: RougeScore,
    /// Union of longest common subsequences line by line.
    pub rouge_lsum: RougeScore,
}

/// Scores summaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RougeScorer {
    /// Whether words of more than three letters are stemmed first.
    pub stemmer: bool,
}

impl RougeScorer {
    /// Scores a prediction against its reference.
    pub fn score(&self, reference: &str, prediction: &str) -> Rouge {
        let mut ids = Ids::default();
        let wanted_lines = self.lines(reference, &mut ids);
        let predicted_lines = self.lines(prediction, &mut ids);
        // A line break is a gap between words like any other.
        let (wanted, predicted) = (wanted_lines.concat(), predicted_lines.concat());
        let common = lcs::length(&wanted, &predicted);
        Rouge {
            rouge1: ngrams(&wanted, &predicted, 1),
            rouge2: ngrams(&wanted, &predicted, 2),
            rouge_l: RougeScore::of(common, predicted.len(), wanted.len()),
            rouge_lsum: RougeScore::of(
                union_hits(&wanted_lines, &predicted_lines, ids.0.len()),
                predicted.len(),
                wanted.len(),
            ),
        }
    }

    fn lines(&self, text: &str, ids: &mut Ids) -> Vec<Vec<u32>> {
        text.to_lowercase()
            .split('\n')
            .map(|line| {
                line.split(|c: char| !c.is_ascii_alphanumeric())
                    .filter(|word| !word.is_empty())
                    .map(|word| {
                        if self.stemmer && word.len() > 3 {
                            ids.of(porter::stem(word))
                        } else {
                            ids.of(word.to_owned())
                        }
                    })
                    .collect()
            })
            .collect()
    }
}

/// Numbers for words, from 0 without gaps.
#[derive(Default)]
struct Ids(HashMap<String, u32>);

impl Ids {
    fn of(&mut self, word: String) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(word).or_insert(next)
    }
}

fn ngrams(wanted: &[u32], predicted: &[u32], n: usize) -> RougeScore {
    let mut left: HashMap<&[u32], usize> = HashMap::new();
    for gram in wanted.windows(n) {
        *left.entry(gram).or_default() += 1;
    }
    let mut hits = 0;
    for gram in predicted.windows(n) {
        if let Some(count) = left.get_mut(gram).filter(|count| **count > 0) {
            *count -= 1;
            hits += 1;
        }
    }
    let grams = |tokens: &[u32]| (tokens.len() + 1).saturating_sub(n);
    RougeScore::of(hits, grams(predicted), grams(wanted))
}

/// Words of the reference in the union of its lines' common subsequences with every line of the
/// prediction; a word counts as often as both texts have it.
fn union_hits(wanted: &[Vec<u32>], predicted: &[Vec<u32>], words: usize) -> usize {
    let count = |lines: &[Vec<u32>]| {
        let mut counts = vec![0_u32; words];
        for &word in lines.iter().flatten() {
            counts[word as usize] += 1;
        }
        counts
    };
    let (mut in_wanted, mut in_predicted) = (count(wanted), count(predicted));
    let mut hits = 0;
    for line in wanted {
        let mut used = vec![false; line.len()];
        for other in predicted {
            lcs::mark(line, other, &mut used);
        }
        for (&word, _) in line.iter().zip(&used).filter(|(_, used)| **used) {
            let (a, b) = (
                &mut in_wanted[word as usize],
                &mut in_predicted[word as usize],
            );
            if *a > 0 && *b > 0 {
                *a -= 1;
                *b -= 1;
                hits += 1;
            }
        }
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: RougeScorer = RougeScorer { stemmer: false };

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }

    #[test]
    fn counts_by_hand() {
        let score = PLAIN.score("The cat sat on the mat.", "the mat, the hat");
        // the, mat, the of four; six words wanted.
        close(score.rouge1.precision, 0.75);
        close(score.rouge1.recall, 0.5);
        close(score.rouge1.fmeasure, 0.6);
        close(score.rouge2.precision, 1.0 / 3.0);
        close(score.rouge_l.recall, 2.0 / 6.0);
    }

    #[test]
    fn lines_matter_to_lsum_alone() {
        let (one, two) = ("a b\nc d", "c d\na b");
        let score = PLAIN.score(one, two);
        close(score.rouge_l.fmeasure, 0.5);
        close(score.rouge_lsum.fmeasure, 1.0);
        close(score.rouge1.fmeasure, 1.0);
    }

    #[test]
    fn stemming_joins_forms() {
        let stemmed = RougeScorer { stemmer: true }.score("He was running", "he runs runned");
        close(stemmed.rouge1.precision, 2.0 / 3.0);
        close(PLAIN.score("running", "runs").rouge1.fmeasure, 0.0);
    }

    #[test]
    fn nothing_scores_nothing() {
        for (a, b) in [
            ("", ""),
            ("a", ""),
            ("", "a"),
            ("é ü", "é"),
            ("\n\n", "a\n"),
        ] {
            assert_eq!(PLAIN.score(a, b), Rouge::default(), "{a:?} {b:?}");
        }
    }
}
