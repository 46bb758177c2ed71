#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::Example;

/// Example number `index`: its tokens start with the number, so rows can be told apart.
fn example(index: usize) -> Example {
    let length = 3 + index % 5;
    let mut tokens = vec![100 + index as u32];
    tokens.extend((1..length).map(|i| i as u32));
    Example {
        tokens,
        answer_start: length - 2,
        label: Some(0),
    }
}

fn sft(items: usize, batch: usize, seed: u64, multiple: usize) -> SftLoader {
    SftLoader::new((0..items).map(example).collect(), batch, seed, 0, multiple).unwrap()
}

fn corpus(items: usize, seq: usize, batch: usize, seed: u64) -> CorpusLoader {
    let documents = (0..items).map(|i| vec![i as u32 + 10; 3 + i % 7]);
    CorpusLoader::new(documents, seq, batch, seed, 2).unwrap()
}

#[test]
fn batches_are_padded_and_masked() {
    let mut loader = sft(1, 2, 0, 4);
    let batch = loader.next_batch().unwrap();
    // Tokens 100 1 2, answer from index 1 on; two inputs, padded to four.
    assert_eq!((batch.batch, batch.seq, batch.tokens_in_batch), (2, 4, 4));
    assert_eq!(batch.tokens[..4], [100, 1, 0, 0]);
    assert_eq!(batch.targets[..4], [1, 2, 0, 0]);
    assert_eq!(batch.loss_mask[..4], [1.0, 1.0, 0.0, 0.0]);
    assert_eq!(batch.attention_mask[4..], [1.0, 1.0, 0.0, 0.0]);
}

#[test]
fn only_the_answer_counts() {
    let tokens = vec![1, 5, 6, 7, 8, 2];
    let example = Example {
        tokens,
        answer_start: 4,
        label: None,
    };
    let mut loader = SftLoader::new(vec![example], 1, 0, 0, 1).unwrap();
    let batch = loader.next_batch().unwrap();
    let counted: Vec<u32> = batch
        .targets
        .iter()
        .zip(&batch.loss_mask)
        .filter(|&(_, &mask)| mask == 1.0)
        .map(|(&target, _)| target)
        .collect();
    assert_eq!(counted, [8, 2]);
}

#[test]
fn an_epoch_sees_every_example_once_in_another_order() {
    let mut loader = sft(10, 5, 3, 1);
    let mut epoch = || {
        let firsts: Vec<u32> = (0..2)
            .flat_map(|_| {
                let batch = loader.next_batch().unwrap();
                (0..5)
                    .map(|row| batch.tokens[row * batch.seq])
                    .collect::<Vec<_>>()
            })
            .collect();
        let mut sorted = firsts.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (100..110).collect::<Vec<_>>());
        firsts
    };
    assert_ne!(epoch(), epoch());
    assert_eq!(loader.state().epoch, 2);
    assert_eq!(loader.batches_per_epoch(), Some(2));
}

#[test]
fn rows_of_like_length_share_a_batch() {
    // Lengths 1 to 64 in turn: a shuffled batch of eight nearly always holds a long one.
    let examples: Vec<Example> = (0..2048)
        .map(|i| Example {
            tokens: vec![7; 2 + i % 64],
            answer_start: 1,
            label: None,
        })
        .collect();
    let mut loader = SftLoader::new(examples, 8, 3, 0, 1).unwrap();
    let (mut real, mut all, mut lengths) = (0, 0, Vec::new());
    for _ in 0..256 {
        let batch = loader.next_batch().unwrap();
        real += batch.tokens_in_batch;
        all += batch.tokens.len();
        lengths.push(batch.seq);
    }
    assert!(real * 10 > all * 9, "{real} of {all}");
    assert!(
        !lengths.is_sorted(),
        "batches come in the order of their length"
    );
}

#[test]
fn the_stream_is_cut_into_rows_without_gaps() {
    let mut loader = CorpusLoader::new(vec![(10..19).collect()], 3, 1, 0, 2).unwrap();
    let mut rows = BTreeMap::new();
    for _ in 0..loader.batches_per_epoch().unwrap() {
        let batch = loader.next_batch().unwrap();
        rows.insert(batch.tokens.clone(), batch.targets.clone());
    }
    let rows: Vec<_> = rows.into_iter().collect();
    assert_eq!(
        rows,
        [
            (vec![10, 11, 12], vec![11, 12, 13]),
            (vec![13, 14, 15], vec![14, 15, 16]),
            (vec![16, 17, 18], vec![17, 18, 2]),
        ]
    );
    assert_eq!(loader.tokens(), 10);
}

#[test]
fn impossible_settings_are_errors() {
    assert!(SftLoader::new(vec![], 1, 0, 0, 1).is_err());
    assert!(SftLoader::new(vec![example(0)], 0, 0, 0, 1).is_err());
    let no_answer = Example {
        tokens: vec![1, 2],
        answer_start: 2,
        label: None,
    };
    assert!(SftLoader::new(vec![no_answer], 1, 0, 0, 1).is_err());
    let message = CorpusLoader::new(vec![vec![1, 2]], 8, 1, 0, 0)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("3 tokens does not fill one row of 8"),
        "{message}"
    );
}

#[test]
fn states_of_other_runs_are_refused() {
    let state = sft(10, 2, 1, 1).state();
    let message = |loader: &mut dyn BatchSource, state: &LoaderState| {
        loader.restore(state).unwrap_err().to_string()
    };
    assert!(message(&mut sft(11, 2, 1, 1), &state).contains("item count 10, this run 11"));
    assert!(message(&mut sft(10, 2, 2, 1), &state).contains("seed 1, this run 2"));
    let beyond = LoaderState {
        position: 10,
        ..state.clone()
    };
    assert!(message(&mut sft(10, 2, 1, 1), &beyond).contains("position"));
}

/// Runs `before` batches, saves, and compares the following batches with those of a fresh loader
/// that restores the state after it went through JSON.
fn resumes(mut loader: impl BatchSource, mut fresh: impl BatchSource, before: usize) {
    for _ in 0..before {
        loader.next_batch().unwrap();
    }
    let text = serde_json::to_string(&loader.state()).unwrap();
    fresh.next_batch().unwrap();
    fresh
        .restore(&serde_json::from_str(&text).unwrap())
        .unwrap();
    for _ in 0..12 {
        assert_eq!(loader.next_batch().unwrap(), fresh.next_batch().unwrap());
        assert_eq!(loader.state(), fresh.state());
    }
}

proptest! {
    #[test]
    fn sft_resumes_exactly(
        items in 1usize..40, batch in 1usize..9, multiple in 1usize..9, seed: u64, before in 0usize..30,
    ) {
        resumes(sft(items, batch, seed, multiple), sft(items, batch, seed, multiple), before);
    }

    #[test]
    fn corpus_resumes_exactly(
        items in 5usize..40, seq in 1usize..12, batch in 1usize..9, seed: u64, before in 0usize..30,
    ) {
        resumes(corpus(items, seq, batch, seed), corpus(items, seq, batch, seed), before);
    }
}
