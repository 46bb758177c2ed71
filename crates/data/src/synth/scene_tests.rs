use super::*;

/// Builds a scene from words, by looking them up in the lexicon.
fn scene(words: &[&'static str]) -> Scene {
    let mut values = [None; CATEGORY_COUNT];
    for word in words {
        let (category, value) = look_up(word);
        values[category] = Some(value);
    }
    Scene { values }
}

fn look_up(word: &'static str) -> (usize, Value) {
    for (category, entry) in CATEGORIES.iter().enumerate() {
        for (group, words) in entry.groups.iter().enumerate() {
            if words.general == Some(word) {
                return (
                    category,
                    Value {
                        group,
                        concept: None,
                        text: word,
                    },
                );
            }
            for (concept, synonyms) in words.concepts.iter().enumerate() {
                if synonyms.contains(&word) {
                    return (
                        category,
                        Value {
                            group,
                            concept: Some(concept),
                            text: word,
                        },
                    );
                }
            }
        }
    }
    panic!("{word} is not in the lexicon");
}

fn literal(word: &'static str, negated: bool) -> Literal {
    let (category, value) = look_up(word);
    Literal {
        category,
        value,
        negated,
    }
}

#[test]
fn sentences_read_as_documented() {
    let full = scene(&[
        "small",
        "black",
        "dog",
        "sleeping",
        "in the park",
        "at night",
    ]);
    assert_eq!(
        full.sentence(),
        "a small black dog is sleeping in the park at night ."
    );
    assert_eq!(scene(&["animal"]).sentence(), "an animal is here .");
    assert_eq!(scene(&["red"]).sentence(), "a red thing is here .");
    let claim = Claim {
        literals: vec![literal("dog", false), literal("black", true)],
    };
    assert_eq!(claim.sentence(), "the dog is not black .");
    let claim = Claim {
        literals: vec![literal("big", false), literal("at noon", true)],
    };
    assert_eq!(claim.sentence(), "it is big and not at noon .");
    assert_eq!(
        Claim {
            literals: vec![literal("animal", true)]
        }
        .sentence(),
        "it is not an animal ."
    );
}

#[test]
fn relations_follow_the_rule() {
    use Relation::{Contradiction, Entailment, Neutral};
    let dog = scene(&["big", "dog", "sleeping"]);
    let animal = scene(&["animal", "outside"]);
    for (scene, word, expected) in [
        (&dog, "big", Entailment),
        (&dog, "large", Entailment),
        (&dog, "small", Contradiction),
        (&dog, "hound", Entailment),
        (&dog, "animal", Entailment),
        (&dog, "cat", Contradiction),
        (&dog, "person", Contradiction),
        (&dog, "car", Contradiction),
        (&dog, "resting", Entailment),
        (&dog, "moving", Contradiction),
        (&dog, "black", Neutral),
        (&animal, "dog", Neutral),
        (&animal, "animal", Entailment),
        (&animal, "girl", Contradiction),
        (&animal, "in the park", Neutral),
        (&animal, "in the barn", Contradiction),
    ] {
        assert_eq!(literal(word, false).relation(scene), expected, "{word}");
        assert_eq!(
            literal(word, true).relation(scene),
            expected.negated(),
            "not {word}"
        );
    }
}

#[test]
fn two_statements_take_the_stronger_relation() {
    let dog = scene(&["big", "dog"]);
    let claim = |first, second| Claim {
        literals: vec![first, second],
    };
    let (yes, open, no) = (
        literal("dog", false),
        literal("red", false),
        literal("small", false),
    );
    assert_eq!(claim(yes, open).relation(&dog), Relation::Neutral);
    assert_eq!(claim(no, open).relation(&dog), Relation::Contradiction);
    assert_eq!(
        claim(yes, literal("small", true)).relation(&dog),
        Relation::Entailment
    );
}

#[test]
fn held_out_pairs_need_a_specific_subject() {
    // dog is noun 0, big is size 0: (0 + 0 + 0) % 5 == 0.
    assert!(scene(&["dog", "big"]).has_held_out_pair());
    assert!(scene(&["hound", "large"]).has_held_out_pair());
    assert!(!scene(&["animal", "big"]).has_held_out_pair());
    assert!(!scene(&["dog", "small"]).has_held_out_pair());
}
