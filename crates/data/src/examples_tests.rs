#![allow(clippy::unwrap_used)]
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use super::*;

fn data_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../data")
        .join(name)
}

fn tokenizer(spec: &TaskSpec, rows: &[TaskRow]) -> Tokenizer {
    let texts = render_texts(spec, rows).unwrap();
    Tokenizer::train_bpe(texts.iter().map(String::as_str), 400).unwrap()
}

fn write(labels: ArrayRef) -> (tempfile::TempDir, TaskSpec) {
    let dir = tempfile::tempdir().unwrap();
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["good .", "bad ."]));
    let batch = RecordBatch::try_from_iter([("sentence", texts), ("label", labels)]).unwrap();
    let file = File::create(dir.path().join("validation-00000-of-00001.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    (dir, TaskSpec::built_in("sst2").unwrap())
}

#[test]
fn examples_hold_prompt_answer_and_end() {
    let spec = TaskSpec::built_in("mnli").unwrap();
    let rows = read_task(&data_dir("mnli"), "validation_matched", &spec, Some(30)).unwrap();
    let tokenizer = tokenizer(&spec, &rows);
    let encoder = TaskEncoder::new(&spec, &tokenizer, 128).unwrap();
    let made = encoder.examples(&rows).unwrap();
    assert_eq!(made.truncated, 0);
    assert_eq!(made.examples.len(), 30);
    for (row, example) in rows.iter().zip(&made.examples) {
        let (front, answer) = example.tokens.split_at(example.answer_start);
        assert_eq!(Some(front[0]), tokenizer.bos());
        assert_eq!(
            tokenizer.decode(front, true).unwrap(),
            spec.prompt(&row.texts).unwrap()
        );
        let (end, answer) = answer.split_last().unwrap();
        assert_eq!(*end, tokenizer.eos());
        assert_eq!(answer, encoder.answers()[row.label]);
        assert_eq!(
            tokenizer.decode(answer, true).unwrap(),
            spec.answer(row.label).unwrap()
        );
    }
}

#[test]
fn long_prompts_lose_their_front_and_never_the_answer() {
    let spec = TaskSpec::built_in("mnli").unwrap();
    let mut rows = read_task(&data_dir("mnli"), "validation_matched", &spec, Some(30)).unwrap();
    let tokenizer = tokenizer(&spec, &rows);
    rows[3].texts[0] = "long ".repeat(500);
    let encoder = TaskEncoder::new(&spec, &tokenizer, 100).unwrap();
    let made = encoder.examples(&rows).unwrap();
    assert_eq!(made.truncated, 1);
    let example = &made.examples[3];
    assert!(example.tokens.len() <= 100);
    assert_eq!(Some(example.tokens[0]), tokenizer.bos());
    let text = tokenizer.decode(&example.tokens, true).unwrap();
    let tail = format!(
        "{}\nRelation:{}",
        rows[3].texts[1],
        spec.answer(rows[3].label).unwrap()
    );
    assert!(text.ends_with(&tail), "{text}");
    let message = TaskEncoder::new(&spec, &tokenizer, 3)
        .unwrap_err()
        .to_string();
    assert!(message.contains("leaves no room"), "{message}");
}

#[test]
fn text_labels_match_names() {
    let (dir, mut spec) = write(Arc::new(StringArray::from(vec!["positive", "negative"])));
    let rows = read_task(dir.path(), "validation", &spec, None).unwrap();
    assert_eq!([rows[0].label, rows[1].label], [1, 0]);
    spec.label_values = vec!["neg".to_owned(), "positive".to_owned()];
    let message = read_task(dir.path(), "validation", &spec, None)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("row 1: label negative is not one of"),
        "{message}"
    );
}

#[test]
fn labels_out_of_range_and_unlabelled_splits() {
    let (dir, spec) = write(Arc::new(Int64Array::from(vec![1, 2])));
    let message = read_task(dir.path(), "validation", &spec, None)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("row 1: label 2 is not one of the task's 2 labels"),
        "{message}"
    );
    let (dir, spec) = write(Arc::new(Int64Array::from(vec![-1, -1])));
    let message = read_task(dir.path(), "validation", &spec, None)
        .unwrap_err()
        .to_string();
    assert!(message.contains("unlabelled split"), "{message}");
}

#[test]
fn real_glue_files_golden() {
    let root = std::env::var("TRITBURN_DATA_DIR").map_or_else(
        |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let glue = root.join("glue");
    if !glue.exists() {
        eprintln!("skipped: {} is absent", glue.display());
        return;
    }
    for (name, rows) in [
        ("mnli", 7950),
        ("qnli", 1459),
        ("sst2", 682),
        ("rte", 277),
        ("cola", 1043),
    ] {
        let spec = TaskSpec::built_in(name).unwrap();
        let read = read_task(&glue.join(name), &spec.eval_split, &spec, None).unwrap();
        assert_eq!(read.len(), rows, "{name}");
    }
    let spec = TaskSpec::built_in("sst2").unwrap();
    let error = read_task(&glue.join("sst2"), "test", &spec, None).unwrap_err();
    assert!(
        matches!(error, DataError::Unlabelled { row: 0, .. }),
        "{error}"
    );
}
