#![allow(clippy::unwrap_used)]
use super::*;

fn fact(word: &'static str, negated: bool) -> Fact {
    let predicate = PREDICATES
        .iter()
        .position(|words| words.contains(&word))
        .unwrap();
    Fact {
        predicate,
        negated,
        word,
    }
}

fn scene(fact: Fact, detail: Option<(usize, usize)>) -> Scene {
    Scene {
        subject: 0,
        name: "dog",
        fact,
        detail,
    }
}

#[test]
fn sentences_read_as_documented() {
    let sleeping = fact("sleeping", true);
    assert_eq!(
        scene(sleeping, Some((1, 0))).sentence(),
        "a black dog is not sleeping ."
    );
    assert_eq!(scene(sleeping, None).sentence(), "a dog is not sleeping .");
    assert_eq!(
        scene(sleeping, Some((2, 0))).sentence(),
        "a dog is not sleeping in the park ."
    );
    let claim = Claim {
        subject: 0,
        fact: fact("napping", true),
        reference: "the animal".into(),
    };
    assert_eq!(claim.sentence(), "the animal is not napping .");
}

#[test]
fn relations_follow_the_rule() {
    use Relation::{Contradiction, Entailment, Neutral};
    let asleep = scene(fact("sleeping", false), None);
    let awake = scene(fact("sleeping", true), None);
    for (word, negated, of_asleep, of_awake) in [
        ("sleeping", false, Entailment, Contradiction),
        ("napping", false, Entailment, Contradiction),
        ("napping", true, Contradiction, Entailment),
        ("hungry", false, Neutral, Neutral),
        ("hungry", true, Neutral, Neutral),
    ] {
        assert_eq!(fact(word, negated).relation(&asleep), of_asleep, "{word}");
        assert_eq!(fact(word, negated).relation(&awake), of_awake, "{word}");
    }
}

#[test]
fn held_out_pairs_are_those_of_the_lexicon() {
    // Subject 0 with predicate 0, with predicate 1, and with detail 2 of kind 0.
    assert!(scene(fact("sleeping", false), None).has_held_out_pair());
    assert!(!scene(fact("running", false), None).has_held_out_pair());
    assert!(scene(fact("running", false), Some((0, 2))).has_held_out_pair());
    assert!(!scene(fact("running", false), Some((0, 0))).has_held_out_pair());
}

#[test]
fn references_fit_the_subject() {
    let mut dice = Dice::new(1, 1);
    for _ in 0..50 {
        let reference = scene(fact("wet", false), None).reference(&mut dice);
        assert!(["it", "the dog", "the hound", "the animal"].contains(&reference.as_str()));
    }
}
