#![allow(clippy::unwrap_used)]
use std::sync::OnceLock;

use super::*;
use crate::synth::{NLI_TRAIN_ROWS, NLI_VALIDATION_ROWS, SEED};

/// Naive Bayes with add-one smoothing over unigrams and bigrams of a text.
struct NaiveBayes {
    counts: BTreeMap<String, [f64; 3]>,
    totals: [f64; 3],
    priors: [f64; 3],
}

impl NaiveBayes {
    fn train<'a>(rows: impl Iterator<Item = (&'a str, i64)>) -> Self {
        let mut model = Self {
            counts: BTreeMap::new(),
            totals: [0.0; 3],
            priors: [0.0; 3],
        };
        for (text, label) in rows {
            model.priors[label as usize] += 1.0;
            for feature in features(text) {
                model.counts.entry(feature).or_default()[label as usize] += 1.0;
                model.totals[label as usize] += 1.0;
            }
        }
        model
    }

    fn predict(&self, text: &str) -> i64 {
        let size = self.counts.len() as f64;
        let score = |label: usize| {
            self.priors[label].ln()
                + features(text)
                    .iter()
                    .filter_map(|feature| self.counts.get(feature))
                    .map(|counts| ((counts[label] + 1.0) / (self.totals[label] + size)).ln())
                    .sum::<f64>()
        };
        (0..3)
            .max_by(|&a, &b| score(a).total_cmp(&score(b)))
            .unwrap() as i64
    }

    fn accuracy<'a>(&self, rows: impl Iterator<Item = (&'a str, i64)>) -> f64 {
        let hits: Vec<bool> = rows
            .map(|(text, label)| self.predict(text) == label)
            .collect();
        hits.iter().filter(|&&hit| hit).count() as f64 / hits.len() as f64
    }
}

/// The checked-in task, made once for all tests.
fn task() -> &'static NliTask {
    static TASK: OnceLock<NliTask> = OnceLock::new();
    TASK.get_or_init(|| generate(SEED, NLI_TRAIN_ROWS, NLI_VALIDATION_ROWS))
}

#[test]
fn labels_are_balanced_and_rows_unique() {
    let task = task();
    let mut seen = BTreeSet::new();
    for rows in [&task.train, &task.matched, &task.mismatched] {
        for label in 0..3 {
            assert_eq!(
                rows.iter().filter(|row| row.label == label).count() * 3,
                rows.len()
            );
        }
        for row in rows {
            assert!(seen.insert((&row.premise, &row.hypothesis)), "{row:?}");
            assert!(
                (5..=11).contains(&row.premise.split(' ').count()),
                "{row:?}"
            );
            assert!(
                (4..=7).contains(&row.hypothesis.split(' ').count()),
                "{row:?}"
            );
        }
    }
    assert_eq!(task.train.len(), NLI_TRAIN_ROWS);
    let known: BTreeSet<&str> = task.train.iter().map(|row| row.premise.as_str()).collect();
    for row in task.matched.iter().chain(&task.mismatched) {
        assert!(!known.contains(row.premise.as_str()), "{row:?}");
    }
}

#[test]
fn one_sentence_alone_does_not_tell_the_label() {
    let task = task();
    type Text = fn(&NliRow) -> &str;
    // A premise's `not` excludes entailment in nine of ten rows, and says nothing of neutral.
    let sides: [(&str, Text, f64); 2] = [
        ("premise", |row| row.premise.as_str(), 0.70),
        ("hypothesis", |row| row.hypothesis.as_str(), 0.42),
    ];
    for (name, text, bound) in sides {
        let model = NaiveBayes::train(task.train.iter().map(|row| (text(row), row.label)));
        for rows in [&task.matched, &task.mismatched] {
            let accuracy = model.accuracy(rows.iter().map(|row| (text(row), row.label)));
            assert!(accuracy < bound, "{name} only: {accuracy}");
        }
    }
}

/// Share of hypothesis words that the premise has, in tenths, and whether there is a `not`.
fn overlap(row: &NliRow) -> String {
    let premise: BTreeSet<&str> = row.premise.split(' ').collect();
    let content = ["it", "is", "a", "an", "the", ".", "and", "not"];
    let words: Vec<&str> = row
        .hypothesis
        .split(' ')
        .filter(|word| !content.contains(word))
        .collect();
    let shared = words.iter().filter(|&word| premise.contains(word)).count();
    format!("{}-of-{}", shared, words.len())
}

#[test]
fn word_overlap_does_not_tell_the_label() {
    let task = task();
    let keyed = |rows: &[NliRow]| -> Vec<(String, i64)> {
        rows.iter().map(|row| (overlap(row), row.label)).collect()
    };
    let train = keyed(&task.train);
    let model = NaiveBayes::train(train.iter().map(|(text, label)| (text.as_str(), *label)));
    let matched = keyed(&task.matched);
    let accuracy = model.accuracy(matched.iter().map(|(text, label)| (text.as_str(), *label)));
    assert!(accuracy < 0.60, "{accuracy}");
}

#[test]
fn mismatched_rows_use_known_words_in_unseen_pairs() {
    let task = task();
    let words = |rows: &[NliRow]| -> BTreeSet<String> {
        rows.iter()
            .flat_map(|row| row.premise.split(' ').chain(row.hypothesis.split(' ')))
            .map(str::to_owned)
            .collect()
    };
    let known = words(&task.train);
    assert!(words(&task.matched).is_subset(&known));
    assert!(words(&task.mismatched).is_subset(&known));
    assert!((70..=140).contains(&known.len()), "{}", known.len());
    // An independent look at the surface: each mismatched premise has a pair of words that no
    // sentence of the other splits has.
    let pairs = |sentence: &str| -> Vec<(String, String)> {
        let words: Vec<&str> = sentence.split(' ').collect();
        (0..words.len())
            .flat_map(|i| (i + 1..words.len()).map(move |j| (i, j)))
            .map(|(i, j)| (words[i].to_owned(), words[j].to_owned()))
            .collect()
    };
    let seen: BTreeSet<_> = task
        .train
        .iter()
        .chain(&task.matched)
        .flat_map(|row| {
            pairs(&row.premise)
                .into_iter()
                .chain(pairs(&row.hypothesis))
        })
        .collect();
    for row in &task.mismatched {
        assert!(
            pairs(&row.premise).iter().any(|pair| !seen.contains(pair)),
            "{row:?}"
        );
    }
}
