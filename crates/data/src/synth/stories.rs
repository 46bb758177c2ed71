//! Plain text about the same world as the inference task, for continual pre-training.
//!
//! Stories describe scenes and then say what follows from them, what cannot be and what is open;
//! definitions give the lexicon. No pair of a subject and a word that the task keeps for its
//! mismatched split occurs.

use std::fmt::Write;

use super::lexicon::{CATEGORIES, CATEGORY_COUNT, NOUN, article};
use super::scene::{Literal, Relation, Scene};
use crate::dice::Dice;

/// Scenes per document.
const SCENES: usize = 6;
/// Remarks per scene.
const REMARKS: usize = 4;
/// Definitions per document.
const DEFINITIONS: usize = 3;
/// How often, in percent, a remark is negated.
const NEGATED: usize = 30;

/// Writes one document of about 1.3 kB.
pub(super) fn document(dice: &mut Dice) -> String {
    let mut text = String::new();
    for paragraph in 0..SCENES {
        if paragraph > 0 {
            text.push('\n');
        }
        if paragraph % (SCENES / DEFINITIONS) == 0 {
            text.push_str(&definition(dice));
            text.push('\n');
        }
        story(&mut text, dice);
    }
    text
}

fn story(text: &mut String, dice: &mut Dice) {
    let scene = loop {
        let stated = 3 + dice.below(3);
        let scene = Scene::draw(stated, dice);
        if !scene.has_held_out_pair() {
            break scene;
        }
    };
    text.push_str(&scene.sentence());
    for _ in 0..REMARKS {
        let wanted = *dice.pick(&Relation::ALL);
        let literal = loop {
            let literal = Literal::draw(dice.below(CATEGORY_COUNT), NEGATED, dice);
            if literal.relation(&scene) == wanted {
                break literal;
            }
        };
        let phrase = literal.phrase();
        // Writing to a String cannot fail.
        let _ = match (wanted, dice.chance(50)) {
            (Relation::Entailment, true) => write!(text, " so it is {phrase} ."),
            (Relation::Neutral, true) => write!(text, " maybe it is {phrase} ."),
            (Relation::Contradiction, true) => write!(text, " it is wrong that it is {phrase} ."),
            (Relation::Entailment, false) => write!(text, " is it {phrase} ? yes ."),
            (Relation::Neutral, false) => write!(text, " is it {phrase} ? maybe ."),
            (Relation::Contradiction, false) => write!(text, " is it {phrase} ? no ."),
        };
    }
}

fn definition(dice: &mut Dice) -> String {
    loop {
        let category = dice.below(CATEGORY_COUNT);
        let group = dice.pick(CATEGORIES[category].groups);
        let concept = dice.pick(group.concepts);
        let word = |text: &str| match category {
            NOUN => format!("{} {text}", article(text)),
            _ => text.to_owned(),
        };
        let synonym = (concept.len() > 1)
            .then(|| format!("{} means {} .", word(concept[1]), word(concept[0])));
        let general = group.general.map(|general| {
            let (is, general) = (word(*dice.pick(concept)), word(general));
            format!("if it is {is} it is {general} .")
        });
        let other = dice.pick(group.concepts);
        let contrast = (other != concept).then(|| {
            format!(
                "if it is {} it is not {} .",
                word(concept[0]),
                word(other[0])
            )
        });
        if let Some(text) = dice.pick(&[synonym, general, contrast]) {
            return text.clone();
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
        assert!((900..1500).contains(&mean), "{mean}");
        let all = documents.join("\n");
        for phrase in [
            " so it is ",
            " maybe it is ",
            " wrong that ",
            "? yes .",
            "? no .",
            " means ",
        ] {
            assert!(all.contains(phrase), "{phrase}");
        }
    }
}
