#![allow(clippy::unwrap_used)]
use super::*;
use crate::test_scorer::Fixed;

fn tokenizer() -> Tokenizer {
    Tokenizer::train_bpe(["a b c d e f"], 259).unwrap()
}

fn fixed() -> Fixed {
    Fixed {
        liked: Vec::new(),
        text: Vec::new(),
        seen: Vec::new(),
    }
}

#[test]
fn every_token_is_scored_once_with_enough_context() {
    for length in 1..40_u32 {
        let ids: Vec<u32> = (0..length).collect();
        for window in 2..12 {
            for stride in 1..window {
                let pieces = cut(&ids, Windows { window, stride });
                let scored: Vec<u32> = pieces.iter().flat_map(|(_, s)| s.clone()).collect();
                assert_eq!(scored, ids[1..]);
                for (context, scored) in &pieces {
                    assert!(!context.is_empty() && context.len() + scored.len() <= window);
                    assert_eq!(context.last().unwrap() + 1, scored[0]);
                    let full = context[0] == 0 || context.len() >= window - stride;
                    assert!(full, "{window} {stride} {context:?} {scored:?}");
                }
            }
        }
    }
}

#[test]
fn report_adds_up() {
    let tokenizer = tokenizer();
    let mut scorer = fixed();
    let documents = ["abcd".to_owned(), "efghij".to_owned()];
    let report = perplexity(
        &mut scorer,
        &tokenizer,
        &documents,
        Windows::disjoint(4),
        &mut |_, _| {},
    )
    .unwrap();
    // A byte per token, each at −0.5.
    assert_eq!((report.documents, report.tokens, report.bytes), (2, 10, 10));
    assert!((report.nll - 5.0).abs() < 1e-12);
    assert!((report.ppl - 0.5_f64.exp()).abs() < 1e-12);
    assert!((report.bits_per_byte - 0.5 / std::f64::consts::LN_2).abs() < 1e-12);
    assert_eq!(scorer.seen[0].0, [1]);
}

#[test]
fn empty_corpora_and_bad_windows_are_errors() {
    let tokenizer = tokenizer();
    let run = |documents: &[String], windows| {
        perplexity(&mut fixed(), &tokenizer, documents, windows, &mut |_, _| {}).unwrap_err()
    };
    assert!(matches!(
        run(&[], Windows::disjoint(8)),
        EvalError::Nothing { .. }
    ));
    let windows = Windows {
        window: 4,
        stride: 4,
    };
    assert!(matches!(
        run(&["x".to_owned()], windows),
        EvalError::Window { .. }
    ));
    assert!(matches!(
        run(&[], Windows::disjoint(1)),
        EvalError::Window { .. }
    ));
}
