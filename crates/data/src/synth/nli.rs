//! The embedded inference task: pairs of sentences whose relation follows by rule.
//!
//! Every hypothesis occurs with all three labels, so it tells nothing alone. Premises are chosen so
//! that their words and word pairs are spread as evenly over the labels as the rule allows: alone
//! they tell entailment from contradiction most of the time, and neutral from neither.

use std::collections::{BTreeMap, BTreeSet};

use super::scene::{Claim, Relation, Scene};
use crate::dice::Dice;

/// Premises drawn per row, of which the one that balances the labels best is kept.
const CANDIDATES: usize = 8;
/// Draws before a hypothesis is given up as having no premise of some label.
const MAX_DRAWS: usize = 4000;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NliRow {
    /// What is known.
    pub premise: String,
    /// What is claimed.
    pub hypothesis: String,
    /// 0 entailment, 1 neutral, 2 contradiction.
    pub label: i64,
}

/// The three splits.
#[derive(Debug, Clone)]
pub struct NliTask {
    /// Training rows.
    pub train: Vec<NliRow>,
    /// Rows like those of `train`, none of which occurs there.
    pub matched: Vec<NliRow>,
    /// Rows whose premises combine a subject with a word that it never has in the other splits.
    pub mismatched: Vec<NliRow>,
}

/// Generates the task; `train` and `validation` are rounded down to multiples of 3.
pub fn generate(seed: u64, train: usize, validation: usize) -> NliTask {
    let train = split(seed, 1, train, false, &BTreeSet::new());
    // No premise of a validation split occurs in training, not even with another hypothesis.
    let known = train.iter().map(|row| row.premise.clone()).collect();
    let matched = split(seed, 2, validation, false, &known);
    let mismatched = split(seed, 3, validation, true, &known);
    NliTask {
        train,
        matched,
        mismatched,
    }
}

fn split(
    seed: u64,
    stream: u64,
    rows: usize,
    held_out: bool,
    known: &BTreeSet<String>,
) -> Vec<NliRow> {
    let mut dice = Dice::new(seed, stream);
    let mut seen = BTreeSet::new();
    let mut balance = Balance::default();
    let mut out = Vec::with_capacity(rows);
    while out.len() + 3 <= rows {
        let claim = Claim::draw(&mut dice);
        if !held_out && claim.has_held_out_pair() {
            continue;
        }
        let hypothesis = claim.sentence();
        let mut premises = Vec::new();
        for relation in Relation::ALL {
            let best = (0..CANDIDATES)
                .filter_map(|_| {
                    draw_premise(&claim, relation, held_out, &mut dice)
                        .filter(|p| !known.contains(p))
                        .filter(|p| !seen.contains(&(p.clone(), hypothesis.clone())))
                })
                .min_by_key(|premise| balance.cost(premise, relation));
            premises.extend(best);
        }
        if premises.len() < Relation::ALL.len() {
            continue;
        }
        for (relation, premise) in Relation::ALL.into_iter().zip(premises) {
            balance.add(&premise, relation);
            seen.insert((premise.clone(), hypothesis.clone()));
            out.push(NliRow {
                premise,
                hypothesis: hypothesis.clone(),
                label: relation as i64,
            });
        }
    }
    dice.shuffle(&mut out);
    out
}

fn draw_premise(
    claim: &Claim,
    relation: Relation,
    held_out: bool,
    dice: &mut Dice,
) -> Option<String> {
    (0..MAX_DRAWS)
        .map(|_| Scene::about(claim.subject, dice))
        .find(|scene| claim.relation(scene) == relation && scene.has_held_out_pair() == held_out)
        .map(|scene| scene.sentence())
}

/// Counts of words and word pairs of premises by label.
#[derive(Default)]
struct Balance(BTreeMap<String, [i64; 3]>);

impl Balance {
    /// How much more uneven the labels would get: the sum over the sentence's features of their
    /// count under this label less the mean over the labels.
    fn cost(&self, premise: &str, relation: Relation) -> i64 {
        features(premise)
            .iter()
            .filter_map(|feature| self.0.get(feature))
            .map(|counts| 3 * counts[relation as usize] - counts.iter().sum::<i64>())
            .sum()
    }

    fn add(&mut self, premise: &str, relation: Relation) {
        for feature in features(premise) {
            self.0.entry(feature).or_default()[relation as usize] += 1;
        }
    }
}

fn features(sentence: &str) -> Vec<String> {
    let words: Vec<&str> = sentence.split(' ').collect();
    let pairs = words.windows(2).map(|pair| pair.join(" "));
    words
        .iter()
        .map(|&word| word.to_owned())
        .chain(pairs)
        .collect()
}

#[cfg(test)]
#[path = "nli_tests.rs"]
mod tests;
