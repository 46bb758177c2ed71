#![allow(clippy::unwrap_used)]
use super::*;
use crate::{read_examples, read_prompts};

fn spec() -> TaskSpec {
    TaskSpec::built_in("cnn_dailymail").unwrap()
}

fn rows() -> Vec<TextRow> {
    (0..4)
        .map(|doc_id| TextRow {
            doc_id,
            texts: vec!["One two three. Four five six seven. ".repeat(8)],
            target: "One to seven.\nAgain.".to_owned(),
        })
        .collect()
}

fn tokenizer() -> Tokenizer {
    let texts: Vec<String> = rows().into_iter().map(|row| row.texts.concat()).collect();
    Tokenizer::train_bpe(texts.iter().map(String::as_str), 300).unwrap()
}

#[test]
fn a_long_text_loses_its_end_and_the_question_stays() {
    let (spec, tokenizer) = (spec(), tokenizer());
    let whole = TextEncoder::new(&spec, &tokenizer, 4096).unwrap();
    let (all, cut) = whole.prompt(&rows()[0].texts, 8).unwrap();
    assert!(!cut);
    for max_tokens in [40, 41, 50, 77] {
        let encoder = TextEncoder::new(&spec, &tokenizer, max_tokens).unwrap();
        let (prompt, cut) = encoder.prompt(&rows()[0].texts, 8).unwrap();
        assert!(cut && prompt.len() <= max_tokens - 8 && prompt.len() < all.len());
        let text = tokenizer.decode(&prompt, true).unwrap();
        assert!(text.starts_with("Article: One two"), "{text}");
        assert!(text.ends_with("\nSummary:"), "{text}");
    }
}

#[test]
fn examples_hold_the_answer_and_the_limit() {
    let (spec, tokenizer) = (spec(), tokenizer());
    let encoder = TextEncoder::new(&spec, &tokenizer, 100).unwrap();
    let made = encoder.examples(&rows()).unwrap();
    assert_eq!(made.truncated, 4);
    let first = &made.examples[0];
    assert!(first.tokens.len() <= 100);
    let answer = &first.tokens[first.answer_start..];
    assert_eq!(answer.last(), Some(&tokenizer.eos()));
    let text = tokenizer.decode(answer, true).unwrap();
    assert_eq!(text, " One to seven.\nAgain.");
}

#[test]
fn too_little_room_and_labels_are_errors() {
    let (spec, tokenizer) = (spec(), tokenizer());
    let message = TextEncoder::new(&spec, &tokenizer, 10)
        .unwrap_err()
        .to_string();
    assert!(message.contains("leaves no room"), "{message}");
    let nli = TaskSpec::built_in("mnli").unwrap();
    assert!(TextEncoder::new(&nli, &tokenizer, 100).is_err());
    let encoder = TextEncoder::new(&spec, &tokenizer, 100).unwrap();
    assert!(encoder.prompt(&rows()[0].texts, 99).is_err());
}

#[test]
fn cnn_dailymail_golden() {
    let root = std::env::var("TRITBURN_DATA_DIR").map_or_else(
        |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        std::path::PathBuf::from,
    );
    let dir = root.join("cnn_dailymail");
    if !dir.exists() {
        eprintln!("skipped: {} is absent", dir.display());
        return;
    }
    let (spec, tokenizer) = (spec(), tokenizer());
    let made = read_examples(&dir, "validation", &spec, &tokenizer, 256, Some(20)).unwrap();
    assert_eq!(made.examples.len(), 20);
    assert!(made.examples.iter().all(|e| e.tokens.len() <= 256));
    let texts = read_prompts(&dir, "validation", &spec, Some(2)).unwrap();
    assert!(texts[1].starts_with("Article: ") && texts[1].contains("\nSummary: "));
}
