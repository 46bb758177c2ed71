//! Plain text about the same world as the inference task, for continual pre-training.
//!
//! Stories describe a scene, then ask and answer what follows from it, what cannot be and what is
//! open; definitions give the synonyms. No pair of a subject and a word that the task keeps for
//! its mismatched split occurs.

use std::fmt::Write;

use super::lexicon::{PREDICATES, SUBJECTS};
use super::scene::{Fact, Relation, Scene};
use crate::dice::Dice;

/// Scenes per document.
const SCENES: usize = 8;
/// Remarks per scene.
const REMARKS: usize = 6;
/// Scenes per definition.
const SCENES_PER_DEFINITION: usize = 2;
/// How often, in percent, a remark is a short question (`napping ? yes .`); these teach the rule
/// with the fewest tokens.
const SHORT: usize = 85;

/// Writes one document of about 1.2 kB.
pub(super) fn document(dice: &mut Dice) -> String {
    let mut text = String::new();
    for number in 0..SCENES {
        if number > 0 {
            text.push('\n');
        }
        if number % SCENES_PER_DEFINITION == 0 {
            text.push_str(&definition(dice));
            text.push('\n');
        }
        story(&mut text, dice);
    }
    text
}

fn story(text: &mut String, dice: &mut Dice) {
    let scene = loop {
        let scene = Scene::draw(dice);
        if !scene.has_held_out_pair() {
            break scene;
        }
    };
    text.push_str(&scene.sentence());
    for _ in 0..REMARKS {
        let wanted = *dice.pick(&Relation::ALL);
        let fact = loop {
            let fact = Fact::claim(dice);
            if fact.relation(&scene) == wanted {
                break fact;
            }
        };
        remark(text, &scene, fact, wanted, dice);
    }
}

fn remark(text: &mut String, scene: &Scene, fact: Fact, relation: Relation, dice: &mut Dice) {
    let phrase = fact.phrase();
    let verdict = match relation {
        Relation::Entailment => "yes",
        Relation::Neutral => "maybe",
        Relation::Contradiction => "no",
    };
    let subject = scene.reference(dice);
    let _ = if dice.chance(SHORT) {
        write!(text, " {phrase} ? {verdict} .")
    } else if dice.chance(50) {
        write!(text, " is {subject} {phrase} ? {verdict} .")
    } else {
        // Writing to a String cannot fail.
        match relation {
            Relation::Entailment => write!(text, " so {subject} is {phrase} ."),
            Relation::Neutral => write!(text, " maybe {subject} is {phrase} ."),
            Relation::Contradiction => write!(text, " it is wrong that {subject} is {phrase} ."),
        }
    };
}

fn definition(dice: &mut Dice) -> String {
    loop {
        let words = match dice.below(2) {
            0 => *dice.pick(&PREDICATES),
            _ => SUBJECTS[dice.below(SUBJECTS.len())].names,
        };
        if let [usual, .., other] = words {
            return format!("{other} means {usual} .");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_text_of_the_expected_size() {
        let mut dice = Dice::new(5, 5);
        let documents: Vec<String> = (0..50).map(|_| document(&mut dice)).collect();
        let mean = documents.iter().map(String::len).sum::<usize>() / documents.len();
        assert!((1000..1500).contains(&mean), "{mean}");
        let all = documents.join("\n");
        for phrase in [
            " so ",
            " maybe ",
            " wrong that ",
            "? yes .",
            "? no .",
            " means ",
        ] {
            assert!(all.contains(phrase), "{phrase}");
        }
    }
}
