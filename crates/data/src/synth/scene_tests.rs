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

fn scene(facts: &[Fact], detail: Option<(usize, usize)>) -> Scene {
    Scene {
        subject: 0,
        name: "dog",
        facts: facts.to_vec(),
        detail,
    }
}

#[test]
fn sentences_read_as_documented() {
    let sleeping = fact("sleeping", true);
    assert_eq!(
        scene(&[sleeping], Some((1, 0))).sentence(),
        "a black dog is not sleeping ."
    );
    assert_eq!(
        scene(&[sleeping], None).sentence(),
        "a dog is not sleeping ."
    );
    let two = scene(&[fact("wet", false), sleeping], Some((2, 0)));
    assert_eq!(
        two.sentence(),
        "a dog is wet and not sleeping in the park ."
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
    let seen = scene(&[fact("sleeping", false), fact("wet", true)], None);
    for (word, plain, negated) in [
        ("sleeping", Entailment, Contradiction),
        ("napping", Entailment, Contradiction),
        ("wet", Contradiction, Entailment),
        ("soaked", Contradiction, Entailment),
        ("hungry", Neutral, Neutral),
    ] {
        assert_eq!(fact(word, false).relation(&seen), plain, "{word}");
        assert_eq!(fact(word, true).relation(&seen), negated, "not {word}");
    }
}

#[test]
fn held_out_pairs_are_those_of_the_lexicon() {
    // Subject 0 with predicate 0, with predicate 1, and with detail 2 of kind 0.
    assert!(scene(&[fact("sleeping", false)], None).has_held_out_pair());
    assert!(!scene(&[fact("running", false)], None).has_held_out_pair());
    assert!(scene(&[fact("running", false)], Some((0, 2))).has_held_out_pair());
    assert!(!scene(&[fact("running", false)], Some((0, 0))).has_held_out_pair());
}

#[test]
fn references_fit_the_subject() {
    let mut dice = Dice::new(1, 1);
    for _ in 0..50 {
        let reference = scene(&[fact("wet", false)], None).reference(&mut dice);
        assert!(["it", "the dog", "the hound", "the animal"].contains(&reference.as_str()));
    }
}
