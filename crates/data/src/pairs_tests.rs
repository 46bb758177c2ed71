#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use super::*;

const SETUP: PairSetup = PairSetup {
    swapped: true,
    shuffled: 2,
    seed: 5,
};

fn rows(count: usize) -> Vec<[String; 2]> {
    (0..count)
        .map(|i| [format!("a{i}"), format!("b{i}")])
        .collect()
}

#[test]
fn every_text_meets_others_and_no_pair_comes_twice() {
    let rows = rows(50);
    let made = pairs(&rows, SETUP);
    let swapped = made.iter().filter(|pair| pair[0].starts_with('b')).count();
    assert_eq!(swapped, 50);
    assert!(made[..50].iter().all(|[b, a]| b[1..] == a[1..]));
    // A text that drew its own row, or the same one twice, has a pair less.
    assert!((140..=150).contains(&made.len()), "{}", made.len());
    let mut seen = BTreeMap::new();
    for pair in &made[50..] {
        assert!(
            pair[0].starts_with('a') && pair[1].starts_with('b'),
            "{pair:?}"
        );
        assert_ne!(pair[0][1..], pair[1][1..]);
        *seen.entry(pair).or_insert(0) += 1;
    }
    assert!(seen.values().all(|&n| n == 1));
    assert_eq!(pairs(&rows, SETUP), made);
    assert_ne!(pairs(&rows, PairSetup { seed: 6, ..SETUP }), made);
}

#[test]
fn few_rows_make_few_pairs() {
    assert!(pairs(&[], SETUP).is_empty());
    let twins = [["x".to_owned(), "x".to_owned()]];
    assert!(pairs(&twins, SETUP).is_empty());
}

#[test]
fn the_file_is_read_as_unlabelled_rows() {
    let dir = tempfile::tempdir().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mnli");
    let spec = TaskSpec::built_in("mnli").unwrap();
    let out = dir.path().join("pairs/train.parquet");
    let count = write_pairs(&data, "validation_matched", &spec, SETUP, &out).unwrap();
    let texts = crate::read_prompts(&data, "train", &spec, Some(200)).unwrap();
    let tokenizer = crate::Tokenizer::train_bpe(texts.iter().map(String::as_str), 400).unwrap();
    let read = |path: &Path| crate::read_unlabelled(path, "train", &spec, &tokenizer, 200);
    let examples = read(&out).unwrap();
    assert_eq!(examples.len(), count);
    assert_eq!(examples, read(&dir.path().join("pairs")).unwrap());
    for example in &examples {
        assert!(!example.answered && example.label.is_none());
        assert_eq!(example.answer_start + 1, example.tokens.len());
    }
    let one = TaskSpec::built_in("sst2").unwrap();
    let refused = write_pairs(&data, "train", &one, SETUP, &out).unwrap_err();
    assert!(refused.to_string().contains("1 texts a row"), "{refused}");
}
