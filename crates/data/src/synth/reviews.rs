//! The embedded sentiment task: short reviews in which negation and `but` turn single words over.

use std::collections::BTreeSet;

use crate::dice::Dice;

const TOPICS: [&str; 10] = [
    "film", "plot", "acting", "music", "story", "ending", "cast", "script", "camera", "humor",
];
const GOOD: [&str; 10] = [
    "good", "great", "fine", "lovely", "clever", "funny", "fresh", "moving", "strong", "bright",
];
const BAD: [&str; 10] = [
    "bad", "awful", "dull", "weak", "boring", "stale", "clumsy", "flat", "silly", "slow",
];
const NEGATORS: [&str; 3] = ["not", "never", "hardly"];
const DEGREES: [&str; 4] = ["", "very ", "really ", "quite "];
/// How often, in percent, a clause is negated: half, so that no adjective tells the sentiment.
const NEGATED: usize = 50;
/// How often, in percent, a review has two clauses.
const TWO_CLAUSES: usize = 50;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewRow {
    /// The review.
    pub sentence: String,
    /// 0 negative, 1 positive.
    pub label: i64,
}

/// Generates `train` and `validation` rows, half of each label; no sentence occurs twice.
pub fn generate(seed: u64, train: usize, validation: usize) -> (Vec<ReviewRow>, Vec<ReviewRow>) {
    let mut seen = BTreeSet::new();
    let mut split = |stream, rows| {
        let mut dice = Dice::new(seed, stream);
        let mut out = Vec::with_capacity(rows);
        while out.len() < rows {
            let label = out.len() as i64 % 2;
            let sentence = review(label == 1, &mut dice);
            if seen.insert(sentence.clone()) {
                out.push(ReviewRow { sentence, label });
            }
        }
        dice.shuffle(&mut out);
        out
    };
    (split(11, train), split(12, validation))
}

fn review(positive: bool, dice: &mut Dice) -> String {
    let main = clause(positive, dice);
    if !dice.chance(TWO_CLAUSES) {
        return format!("{main} .");
    }
    // The other clause says the opposite; the connective tells which of the two counts.
    let side = clause(!positive, dice);
    match dice.below(3) {
        0 => format!("{side} , but {main} ."),
        1 => format!("although {side} , {main} ."),
        _ => format!("{main} , even though {side} ."),
    }
}

fn clause(positive: bool, dice: &mut Dice) -> String {
    let negated = dice.chance(NEGATED);
    let adjective = dice.pick(if positive != negated { &GOOD } else { &BAD });
    let topic = dice.pick(&TOPICS);
    let degree = dice.pick(&DEGREES);
    match (dice.chance(70), negated) {
        (true, false) => format!("the {topic} is {degree}{adjective}"),
        (true, true) => format!(
            "the {topic} is {} {degree}{adjective}",
            dice.pick(&NEGATORS)
        ),
        (false, false) => format!("i found the {topic} {degree}{adjective}"),
        (false, true) => format!("i did not find the {topic} {degree}{adjective}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn labels_are_balanced_and_sentences_unique() {
        let (train, validation) = generate(1, 3000, 600);
        for rows in [&train, &validation] {
            assert_eq!(
                rows.iter().filter(|row| row.label == 1).count() * 2,
                rows.len()
            );
        }
        let all: BTreeSet<&str> = train
            .iter()
            .chain(&validation)
            .map(|row| row.sentence.as_str())
            .collect();
        assert_eq!(all.len(), 3600);
    }

    #[test]
    fn a_bag_of_words_is_not_enough() {
        let (train, validation) = generate(1, 3000, 600);
        let mut weights: BTreeMap<&str, i64> = BTreeMap::new();
        for row in &train {
            for word in row.sentence.split(' ') {
                *weights.entry(word).or_default() += 2 * row.label - 1;
            }
        }
        let score = |row: &ReviewRow| -> i64 {
            row.sentence
                .split(' ')
                .filter_map(|word| weights.get(word))
                .sum()
        };
        let hits = validation
            .iter()
            .filter(|row| (score(row) > 0) == (row.label == 1))
            .count();
        let accuracy = hits as f64 / validation.len() as f64;
        assert!(accuracy < 0.65, "{accuracy}");
    }
}
