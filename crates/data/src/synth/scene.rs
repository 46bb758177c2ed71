//! Scenes, what is said about them, and whether it follows.

use super::lexicon::{
    ADJECTIVE_KINDS, CLAIM_NEGATED, DETAILS, NEGATED, PREDICATES, SUBJECTS, SYNONYM, article,
    is_held_out, is_held_out_detail,
};
use crate::dice::Dice;

/// Relation of a claim to a scene, numbered as MNLI's labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// The claim follows.
    Entailment = 0,
    /// The scene leaves it open.
    Neutral = 1,
    /// The claim cannot be true.
    Contradiction = 2,
}

impl Relation {
    pub(super) const ALL: [Self; 3] = [Self::Entailment, Self::Neutral, Self::Contradiction];
}

/// One of a concept's words.
fn word(concept: &[&'static str], dice: &mut Dice) -> &'static str {
    if concept.len() > 1 && dice.chance(SYNONYM) {
        concept[1 + dice.below(concept.len() - 1)]
    } else {
        concept[0]
    }
}

/// A predicate that holds or does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fact {
    predicate: usize,
    negated: bool,
    word: &'static str,
}

impl Fact {
    /// Draws a fact about any predicate, negated in `negated` percent of the draws.
    fn draw(negated: usize, dice: &mut Dice) -> Self {
        let predicate = dice.below(PREDICATES.len());
        Self {
            predicate,
            negated: dice.chance(negated),
            word: word(PREDICATES[predicate], dice),
        }
    }

    /// Draws what may be said about a scene.
    pub(super) fn claim(dice: &mut Dice) -> Self {
        Self::draw(CLAIM_NEGATED, dice)
    }

    /// Whether this follows from a scene.
    pub(super) fn relation(self, scene: &Scene) -> Relation {
        let fact = scene.fact;
        if fact.predicate != self.predicate {
            Relation::Neutral
        } else if fact.negated == self.negated {
            Relation::Entailment
        } else {
            Relation::Contradiction
        }
    }

    /// The phrase behind `is`: `not sleeping`.
    pub(super) fn phrase(self) -> String {
        format!("{}{}", if self.negated { "not " } else { "" }, self.word)
    }
}

/// A subject and what is known about it.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    subject: usize,
    name: &'static str,
    fact: Fact,
    /// Kind and number of the detail.
    detail: Option<(usize, usize)>,
}

impl Scene {
    /// Draws a scene about `subject`.
    pub(super) fn about(subject: usize, dice: &mut Dice) -> Self {
        let detail = dice
            .below(DETAILS.len() + 1)
            .checked_sub(1)
            .map(|kind| (kind, dice.below(DETAILS[kind].len())));
        Self {
            subject,
            name: word(SUBJECTS[subject].names, dice),
            fact: Fact::draw(NEGATED, dice),
            detail,
        }
    }

    /// Draws a scene about any subject.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        Self::about(dice.below(SUBJECTS.len()), dice)
    }

    /// Whether subject and predicate or detail form a pair that is kept out of training.
    pub(super) fn has_held_out_pair(&self) -> bool {
        let subject = self.subject;
        is_held_out(subject, self.fact.predicate)
            || self
                .detail
                .is_some_and(|(kind, n)| is_held_out_detail(subject, kind, n))
    }

    /// The sentence, as in `a black dog is not sleeping .`
    pub(super) fn sentence(&self) -> String {
        let detail = self
            .detail
            .map(|(kind, number)| (kind, DETAILS[kind][number]));
        let (before, behind) = match detail {
            Some((kind, text)) if kind < ADJECTIVE_KINDS => (Some(text), None),
            Some((_, text)) => (None, Some(text)),
            None => (None, None),
        };
        let phrase = self.fact.phrase();
        let mut words = vec![article(before.unwrap_or(self.name))];
        words.extend(before);
        words.extend([self.name, "is", phrase.as_str()]);
        words.extend(behind);
        words.push(".");
        words.join(" ")
    }

    /// A way to refer to the subject: `it`, `the dog` or `the animal`.
    pub(super) fn reference(&self, dice: &mut Dice) -> String {
        let subject = &SUBJECTS[self.subject];
        match dice.below(3) {
            0 => "it".to_owned(),
            1 => format!("the {}", word(subject.names, dice)),
            _ => format!("the {}", subject.kind),
        }
    }
}

/// A hypothesis: a fact about a scene's subject.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// Subject that the hypothesis can be about.
    pub(super) subject: usize,
    fact: Fact,
    reference: String,
}

impl Claim {
    /// Draws a hypothesis.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let scene = Scene::draw(dice);
        let reference = scene.reference(dice);
        Self {
            subject: scene.subject,
            fact: Fact::claim(dice),
            reference,
        }
    }

    /// Relation to a scene about the same subject.
    pub(super) fn relation(&self, scene: &Scene) -> Relation {
        self.fact.relation(scene)
    }

    /// Whether the hypothesis itself names a pair that is kept out of training.
    pub(super) fn has_held_out_pair(&self) -> bool {
        is_held_out(self.subject, self.fact.predicate)
    }

    /// The sentence, as in `the animal is not napping .`
    pub(super) fn sentence(&self) -> String {
        format!("{} is {} .", self.reference, self.fact.phrase())
    }
}

#[cfg(test)]
#[path = "scene_tests.rs"]
mod tests;
