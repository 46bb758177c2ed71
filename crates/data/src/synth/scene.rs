//! Scenes, what is said about them, and whether it follows.

use super::lexicon::{CATEGORIES, CATEGORY_COUNT, NOUN, OPEN_NOUN, article, is_held_out};
use crate::dice::Dice;

/// How often, in percent, a premise uses the general word of a group (`animal`).
const GENERAL_IN_SCENE: usize = 20;
/// How often, in percent, a claim uses the general word of a group.
const GENERAL_IN_CLAIM: usize = 30;
/// How often, in percent, a word with synonyms is replaced by one of them.
const SYNONYM: usize = 40;

/// Relation of a claim to a scene, numbered as MNLI's labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

    fn negated(self) -> Self {
        match self {
            Self::Entailment => Self::Contradiction,
            Self::Neutral => Self::Neutral,
            Self::Contradiction => Self::Entailment,
        }
    }
}

/// A value of one aspect: a concept, or a group if only the general word is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value {
    group: usize,
    concept: Option<usize>,
    /// The word or phrase chosen among synonyms.
    pub(super) text: &'static str,
}

impl Value {
    /// Draws a value of `category`, the general word in `general` percent of the cases.
    pub(super) fn draw(category: usize, general: usize, dice: &mut Dice) -> Self {
        let groups = CATEGORIES[category].groups;
        let group = dice.below(groups.len());
        if let Some(text) = groups[group].general
            && dice.chance(general)
        {
            return Self {
                group,
                concept: None,
                text,
            };
        }
        let concept = dice.below(groups[group].concepts.len());
        let words = groups[group].concepts[concept];
        let text = if words.len() > 1 && dice.chance(SYNONYM) {
            words[1 + dice.below(words.len() - 1)]
        } else {
            words[0]
        };
        Self {
            group,
            concept: Some(concept),
            text,
        }
    }

    /// Number of the concept through all groups of its category.
    fn number(self, category: usize) -> Option<usize> {
        let before: usize = CATEGORIES[category].groups[..self.group]
            .iter()
            .map(|g| g.concepts.len())
            .sum();
        self.concept.map(|concept| before + concept)
    }
}

/// A scene: a value, or nothing said, for each aspect.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    /// One entry per category.
    pub(super) values: [Option<Value>; CATEGORY_COUNT],
}

impl Scene {
    /// Draws a scene that states `stated` of the aspects.
    pub(super) fn draw(stated: usize, dice: &mut Dice) -> Self {
        let mut order: Vec<usize> = (0..CATEGORY_COUNT).collect();
        dice.shuffle(&mut order);
        let mut values = [None; CATEGORY_COUNT];
        for &category in &order[..stated] {
            values[category] = Some(Value::draw(category, GENERAL_IN_SCENE, dice));
        }
        Self { values }
    }

    /// Whether a subject and another value form a pair that is kept out of training.
    pub(super) fn has_held_out_pair(&self) -> bool {
        let Some(noun) = self.values[NOUN].and_then(|value| value.number(NOUN)) else {
            return false;
        };
        (0..CATEGORY_COUNT)
            .filter(|&category| category != NOUN)
            .any(|category| {
                self.values[category]
                    .and_then(|value| value.number(category))
                    .is_some_and(|concept| is_held_out(noun, category, concept))
            })
    }

    /// The sentence, as in `a small black dog is sleeping in the park at night .`
    pub(super) fn sentence(&self) -> String {
        let text = |category: usize| self.values[category].map(|value| value.text);
        let noun = text(NOUN).unwrap_or(OPEN_NOUN);
        let subject: Vec<&str> = (0..NOUN).filter_map(text).chain([noun]).collect();
        let mut rest: Vec<&str> = (NOUN + 1..CATEGORY_COUNT).filter_map(text).collect();
        if rest.is_empty() {
            rest.push("here");
        }
        format!(
            "{} {} is {} .",
            article(subject[0]),
            subject.join(" "),
            rest.join(" ")
        )
    }
}

/// One thing said about one aspect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Literal {
    /// Index into [`CATEGORIES`].
    pub(super) category: usize,
    value: Value,
    negated: bool,
}

impl Literal {
    /// Draws a statement about `category`, negated in `negated` percent of the cases.
    pub(super) fn draw(category: usize, negated: usize, dice: &mut Dice) -> Self {
        let value = Value::draw(category, GENERAL_IN_CLAIM, dice);
        Self {
            category,
            value,
            negated: dice.chance(negated),
        }
    }

    /// Whether the statement follows from the scene.
    pub(super) fn relation(self, scene: &Scene) -> Relation {
        let plain = match scene.values[self.category] {
            None => Relation::Neutral,
            Some(seen) if seen.group != self.value.group => Relation::Contradiction,
            Some(seen) => match (self.value.concept, seen.concept) {
                (None, _) => Relation::Entailment,
                (Some(_), None) => Relation::Neutral,
                (Some(claimed), Some(stated)) if claimed == stated => Relation::Entailment,
                _ => Relation::Contradiction,
            },
        };
        if self.negated { plain.negated() } else { plain }
    }

    /// The phrase behind `is`: `not black`, `a dog`, `in the park`.
    pub(super) fn phrase(self) -> String {
        let not = if self.negated { "not " } else { "" };
        if self.category == NOUN {
            return format!("{not}{} {}", article(self.value.text), self.value.text);
        }
        format!("{not}{}", self.value.text)
    }
}

/// A hypothesis: one or two statements.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    literals: Vec<Literal>,
}

/// Shares, in percent, of hypotheses with one statement and of those with a subject in front
/// (`the dog is black`); the rest joins two statements by `and`.
const SINGLE: usize = 50;
const WITH_SUBJECT: usize = 25;
/// How often, in percent, the last statement is negated.
const NEGATED: usize = 25;

impl Claim {
    /// Draws a hypothesis.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let kind = dice.weighted(&[SINGLE, WITH_SUBJECT, 100 - SINGLE - WITH_SUBJECT]);
        let literals = match kind {
            0 => vec![Literal::draw(dice.below(CATEGORY_COUNT), NEGATED, dice)],
            1 => {
                let other = (NOUN + 1 + dice.below(CATEGORY_COUNT - 1)) % CATEGORY_COUNT;
                vec![
                    Literal::draw(NOUN, 0, dice),
                    Literal::draw(other, NEGATED, dice),
                ]
            }
            _ => {
                let mut others: Vec<usize> = (0..CATEGORY_COUNT).filter(|&c| c != NOUN).collect();
                dice.shuffle(&mut others);
                others.truncate(2);
                others.sort_unstable();
                vec![
                    Literal::draw(others[0], 0, dice),
                    Literal::draw(others[1], NEGATED, dice),
                ]
            }
        };
        Self { literals }
    }

    /// Relation of the whole: contradiction before neutral before entailment.
    pub(super) fn relation(&self, scene: &Scene) -> Relation {
        self.literals
            .iter()
            .map(|literal| literal.relation(scene))
            .max()
            .unwrap_or(Relation::Entailment)
    }

    /// Whether the hypothesis itself names a pair that is kept out of training.
    pub(super) fn has_held_out_pair(&self) -> bool {
        let mut values = [None; CATEGORY_COUNT];
        for literal in &self.literals {
            values[literal.category] = Some(literal.value);
        }
        Scene { values }.has_held_out_pair()
    }

    /// The sentence, as in `the dog is not black .`
    pub(super) fn sentence(&self) -> String {
        match self.literals.as_slice() {
            [subject, rest] if subject.category == NOUN => {
                format!("the {} is {} .", subject.value.text, rest.phrase())
            }
            literals => {
                let phrases: Vec<String> = literals.iter().map(|l| l.phrase()).collect();
                format!("it is {} .", phrases.join(" and "))
            }
        }
    }
}

#[cfg(test)]
#[path = "scene_tests.rs"]
mod tests;
