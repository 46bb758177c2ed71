//! Words of the made-up world: what can be said about a scene, and which words imply which.

/// Words that say the same thing, the first being the usual one.
pub(super) type Concept = &'static [&'static str];

/// Concepts that share a more general word.
pub(super) struct Group {
    /// The general word (`animal`), if there is one.
    pub(super) general: Option<&'static str>,
    /// The concepts; they exclude one another.
    pub(super) concepts: &'static [Concept],
}

/// One aspect of a scene. Its groups exclude one another, too.
pub(super) struct Category {
    /// The groups.
    pub(super) groups: &'static [Group],
}

/// Number of aspects.
pub(super) const CATEGORY_COUNT: usize = 7;
/// Index of the subject in [`CATEGORIES`]; the aspects before it are adjectives, those behind it
/// follow the verb.
pub(super) const NOUN: usize = 3;
/// Stands for the subject when a premise leaves it open.
pub(super) const OPEN_NOUN: &str = "thing";

/// Aspects in the order in which a sentence states them: size, state, colour, subject, action,
/// place, time.
pub(super) const CATEGORIES: [Category; CATEGORY_COUNT] = [
    Category {
        groups: &[Group {
            general: None,
            concepts: &[&["big", "large"], &["small", "little"]],
        }],
    },
    Category {
        groups: &[Group {
            general: None,
            concepts: &[&["clean", "neat"], &["dirty", "muddy"]],
        }],
    },
    Category {
        groups: &[Group {
            general: None,
            concepts: &[
                &["black"],
                &["white"],
                &["red"],
                &["green"],
                &["blue"],
                &["brown"],
            ],
        }],
    },
    Category {
        groups: &[
            Group {
                general: Some("animal"),
                concepts: &[&["dog", "hound"], &["cat"], &["horse"], &["cow"], &["bird"]],
            },
            Group {
                general: Some("person"),
                concepts: &[
                    &["boy", "lad"],
                    &["girl"],
                    &["man"],
                    &["woman", "lady"],
                    &["baby"],
                ],
            },
            Group {
                general: Some("vehicle"),
                concepts: &[
                    &["car"],
                    &["bus"],
                    &["truck", "lorry"],
                    &["train"],
                    &["boat", "ship"],
                ],
            },
        ],
    },
    Category {
        groups: &[
            Group {
                general: Some("resting"),
                concepts: &[&["sleeping", "napping"], &["sitting"], &["waiting"]],
            },
            Group {
                general: Some("moving"),
                concepts: &[&["running", "racing"], &["jumping"], &["turning"]],
            },
        ],
    },
    Category {
        groups: &[
            Group {
                general: Some("outside"),
                concepts: &[
                    &["in the park"],
                    &["by the river"],
                    &["in the forest", "in the woods"],
                    &["on the hill"],
                ],
            },
            Group {
                general: Some("inside"),
                concepts: &[
                    &["in the kitchen"],
                    &["in the barn"],
                    &["in the shop", "in the store"],
                    &["in the hall"],
                ],
            },
        ],
    },
    Category {
        groups: &[Group {
            general: None,
            concepts: &[
                &["at night"],
                &["at noon"],
                &["at dawn", "at sunrise"],
                &["at dusk", "at sunset"],
            ],
        }],
    },
];

/// True if the pair of a subject and another concept is kept out of training: one pair in five.
///
/// Both are numbered through all groups of their category.
pub(super) fn is_held_out(noun: usize, category: usize, concept: usize) -> bool {
    (noun + 2 * concept + category) % 5 == 0
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
    fn every_phrase_has_one_meaning() {
        let mut seen = BTreeSet::new();
        for group in CATEGORIES.iter().flat_map(|category| category.groups) {
            for phrase in group
                .general
                .iter()
                .chain(group.concepts.iter().copied().flatten())
            {
                assert!(seen.insert(*phrase), "{phrase}");
            }
        }
        assert!((60..90).contains(&seen.len()), "{}", seen.len());
    }

    #[test]
    fn every_concept_keeps_most_of_its_subjects() {
        for (category, entry) in CATEGORIES.iter().enumerate().filter(|&(c, _)| c != NOUN) {
            let concepts: usize = entry.groups.iter().map(|group| group.concepts.len()).sum();
            for concept in 0..concepts {
                let held = (0..15)
                    .filter(|&n| is_held_out(n, category, concept))
                    .count();
                assert_eq!(held, 3);
            }
        }
    }
}
