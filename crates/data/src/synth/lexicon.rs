//! Words of the made-up world, and how hard its sentences are.

/// How often, in percent, a fact of a premise is negated.
pub(super) const NEGATED: usize = 50;
/// How often, in percent, a claim is negated. The main dial of difficulty: at 50 the two negations
/// form a parity, which small models take very long to learn; at 0 a premise's `not` alone tells
/// contradiction from entailment.
pub(super) const CLAIM_NEGATED: usize = 10;
/// How often, in percent, a synonym takes the place of a concept's usual word.
pub(super) const SYNONYM: usize = 50;

/// Words that say the same thing, the first being the usual one.
pub(super) type Concept = &'static [&'static str];

/// What a subject may do or be; none implies or excludes another.
pub(super) const PREDICATES: [Concept; 14] = [
    &["sleeping", "napping"],
    &["running", "racing"],
    &["eating", "dining"],
    &["talking", "chatting"],
    &["working", "toiling"],
    &["singing", "humming"],
    &["waiting", "lingering"],
    &["playing", "gaming"],
    &["hungry", "starving"],
    &["tired", "weary"],
    &["happy", "glad"],
    &["wet", "soaked"],
    &["sick", "ill"],
    &["dirty", "muddy"],
];

/// A subject, and the general word for its kind.
pub(super) struct Subject {
    /// Names of the subject.
    pub(super) names: Concept,
    /// What it is in general.
    pub(super) kind: &'static str,
}

const fn animal(names: Concept) -> Subject {
    Subject {
        names,
        kind: "animal",
    }
}

const fn person(names: Concept) -> Subject {
    Subject {
        names,
        kind: "person",
    }
}

/// Who the sentences are about.
pub(super) const SUBJECTS: [Subject; 16] = [
    animal(&["dog", "hound"]),
    animal(&["cat"]),
    animal(&["horse", "pony"]),
    animal(&["cow"]),
    animal(&["bird"]),
    animal(&["pig"]),
    animal(&["goat"]),
    animal(&["duck"]),
    person(&["boy", "lad"]),
    person(&["girl"]),
    person(&["man"]),
    person(&["woman", "lady"]),
    person(&["baby"]),
    person(&["farmer"]),
    person(&["doctor"]),
    person(&["teacher"]),
];

/// Details that no claim asks for: two kinds of adjectives, then places and times.
pub(super) const DETAILS: [&[&str]; 4] = [
    &["big", "small", "tall"],
    &["black", "white", "red", "brown", "blue", "green"],
    &[
        "in the park",
        "by the river",
        "in the forest",
        "on the hill",
        "in the kitchen",
        "in the barn",
        "in the shop",
        "in the hall",
        "by the road",
        "in the field",
    ],
    &["at night", "at noon", "at dawn", "at dusk"],
];
/// Kinds of [`DETAILS`] below this stand before the subject, the others at the end.
pub(super) const ADJECTIVE_KINDS: usize = 2;

/// True if a subject and a predicate are kept apart in training: one pair in five.
pub(super) fn is_held_out(subject: usize, predicate: usize) -> bool {
    (subject + 2 * predicate).is_multiple_of(5)
}

/// The same for a subject and a detail.
pub(super) fn is_held_out_detail(subject: usize, kind: usize, detail: usize) -> bool {
    (subject + 2 * detail + kind + 1).is_multiple_of(5)
}

/// `a` or `an`.
pub(super) fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_word_has_one_meaning() {
        let mut seen = BTreeSet::new();
        let subjects = SUBJECTS.iter().flat_map(|subject| subject.names);
        let predicates = PREDICATES.iter().copied().flatten();
        for word in subjects
            .chain(predicates)
            .chain(DETAILS.iter().copied().flatten())
        {
            assert!(seen.insert(*word), "{word}");
        }
        assert!((65..100).contains(&seen.len()), "{}", seen.len());
    }

    #[test]
    fn every_word_keeps_four_of_five_subjects() {
        let subjects = 0..SUBJECTS.len();
        for predicate in 0..PREDICATES.len() {
            let held = subjects
                .clone()
                .filter(|&s| is_held_out(s, predicate))
                .count();
            assert!((3..=4).contains(&held));
        }
        for (kind, words) in DETAILS.iter().enumerate() {
            for detail in 0..words.len() {
                let held = subjects
                    .clone()
                    .filter(|&s| is_held_out_detail(s, kind, detail));
                assert!((3..=4).contains(&held.count()));
            }
        }
    }
}
