//! Small corpora for tests, and the tests of whole streams.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::*;
use crate::loader::{Batch, BatchSource};
use crate::tokenizer::Tokenizer;

/// A document that tells its shard and row.
fn text(shard: usize, row: usize) -> String {
    let words = (0..row % 7).map(|word| format!(" w{word}"));
    format!("s{shard} r{row}{}", words.collect::<String>())
}

/// Writes a shard of `rows` documents in row groups of `group`.
pub(super) fn write_shard(path: &Path, texts: Vec<Option<String>>, group: usize) {
    let array: ArrayRef = Arc::new(StringArray::from(texts));
    let batch = RecordBatch::try_from_iter_with_nullable([("content", array, true)]).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .build();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Three shards of 23, 9 and 30 documents.
pub(super) fn corpus(dir: &Path) -> Vec<PathBuf> {
    let sizes = [23, 9, 30];
    let shards = sizes.iter().enumerate().map(|(shard, &rows)| {
        let path = dir.join(format!("part-{shard}.parquet"));
        let texts = (0..rows).map(|row| match row {
            5 => Some("  \n".to_owned()),
            _ => Some(text(shard, row)),
        });
        write_shard(&path, texts.collect(), 8);
        path
    });
    shards.collect()
}

pub(super) fn tokenizer() -> Tokenizer {
    let texts: Vec<String> = (0..30).map(|row| text(row % 3, row)).collect();
    Tokenizer::train_bpe(texts.iter().map(String::as_str), 280).unwrap()
}

pub(super) fn config(dir: &Path) -> StreamConfig {
    StreamConfig {
        shards: vec![dir.join("*.parquet").to_str().unwrap().to_owned()],
        shuffle_window: 10,
        workers: 2,
        separate_documents: true,
        ..StreamConfig::default()
    }
}

pub(super) fn open(
    config: &StreamConfig,
    tokenizer: &Tokenizer,
    rank: Rank,
) -> crate::Result<StreamLoader> {
    StreamLoader::open(&StreamSetup {
        config,
        corpus: "",
        column: None,
        tokenizer,
        seq_len: 12,
        batch_size: 2,
        seed: 7,
        rank,
        index: None,
    })
}

pub(super) fn take(loader: &mut StreamLoader, batches: usize) -> Vec<Batch> {
    (0..batches).map(|_| loader.next_batch().unwrap()).collect()
}

/// Documents in the stream's order, of at least the first `tokens` tokens.
fn documents(loader: &mut StreamLoader, tokenizer: &Tokenizer, epochs: u64) -> Vec<String> {
    let mut stream = Vec::new();
    while loader.state().epoch < epochs {
        stream.extend(loader.next_batch().unwrap().tokens);
    }
    let parts = stream.split(|&token| token == tokenizer.eos());
    let mut texts: Vec<String> = parts.map(|p| tokenizer.decode(p, true).unwrap()).collect();
    texts.pop();
    texts
}

#[test]
fn an_epoch_has_every_document_once_and_ranks_share_it() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    let tokenizer = tokenizer();
    let mut expected: Vec<String> = [(0, 23), (1, 9), (2, 30)]
        .iter()
        .flat_map(|&(shard, rows)| (0..rows).map(move |row| (shard, row)))
        .filter(|&(_, row)| row != 5)
        .map(|(shard, row)| text(shard, row))
        .collect();
    let in_order = expected.clone();
    expected.sort();
    let config = config(dir.path());
    for world in [1, 2, 3] {
        let mut seen = Vec::new();
        for rank in 0..world {
            let mut loader = open(&config, &tokenizer, Rank { rank, world }).unwrap();
            assert_eq!(loader.documents(), 62);
            // Batches reach a little into the next epoch, whose documents begin with known ones.
            let mut two = documents(&mut loader, &tokenizer, 1);
            let mut unique = std::collections::HashSet::new();
            let end = two.iter().position(|text| !unique.insert(text.clone()));
            two.truncate(end.unwrap_or(two.len()));
            seen.extend(two);
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), expected.len(), "{world} ranks");
        assert_eq!(seen, expected);
    }
    let plain = StreamConfig {
        shuffle_shards: false,
        shuffle_window: 1,
        ..config
    };
    let mut loader = open(&plain, &tokenizer, Rank::default()).unwrap();
    assert_eq!(documents(&mut loader, &tokenizer, 1)[..59], in_order);
}

#[test]
fn any_number_of_workers_gives_the_same_batches() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    let tokenizer = tokenizer();
    let of = |workers| {
        let config = StreamConfig {
            workers,
            ..config(dir.path())
        };
        take(&mut open(&config, &tokenizer, Rank::default()).unwrap(), 60)
    };
    let one = of(1);
    assert_eq!(one, of(2));
    assert_eq!(one, of(5));
    let segments = one[0].segments.as_ref().unwrap();
    assert_eq!(segments.ids.len(), 24);
    assert!(one.iter().any(|b| b.loss_mask.contains(&0.0)));
}

#[test]
fn resuming_at_every_position_gives_the_same_stream() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    let tokenizer = tokenizer();
    let config = config(dir.path());
    let whole = take(&mut open(&config, &tokenizer, Rank::default()).unwrap(), 70);
    let mut first = open(&config, &tokenizer, Rank::default()).unwrap();
    for at in 0..60 {
        let state = serde_json::to_string(&first.state()).unwrap();
        assert!(state.len() < 300, "{state}");
        let mut resumed = open(&config, &tokenizer, Rank::default()).unwrap();
        if at % 3 == 0 {
            // Also when the loader has read something else before.
            resumed.next_batch().unwrap();
        }
        resumed
            .restore(&serde_json::from_str(&state).unwrap())
            .unwrap();
        assert_eq!(resumed.state(), first.state());
        assert_eq!(take(&mut resumed, 4), whole[at..at + 4], "after {at}");
        first.next_batch().unwrap();
    }
    assert!(
        first.state().epoch >= 1,
        "the test goes over an epoch's end"
    );
}

#[test]
fn positions_of_other_runs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    let tokenizer = tokenizer();
    let config = config(dir.path());
    let state = open(&config, &tokenizer, Rank::default()).unwrap().state();
    for other in [
        StreamConfig {
            shuffle_window: 11,
            ..config.clone()
        },
        StreamConfig {
            validation_share: 0.5,
            ..config.clone()
        },
        StreamConfig {
            shards: config.shards[..1]
                .iter()
                .map(|s| s.replace('*', "part-1"))
                .collect(),
            ..config.clone()
        },
    ] {
        let mut loader = open(&other, &tokenizer, Rank::default()).unwrap();
        let message = loader.restore(&state).unwrap_err().to_string();
        assert!(message.contains("resume with the data"), "{message}");
    }
    // Reading faster is no other order.
    let other = StreamConfig {
        workers: 1,
        ..config
    };
    let mut loader = open(&other, &tokenizer, Rank::default()).unwrap();
    loader.restore(&state).unwrap();
    let message = open(&other, &tokenizer, Rank { rank: 0, world: 99 });
    assert!(
        message
            .err()
            .unwrap()
            .to_string()
            .contains("row groups for 99")
    );
}

#[test]
fn train_and_validation_share_no_document() {
    let dir = tempfile::tempdir().unwrap();
    corpus(dir.path());
    let tokenizer = tokenizer();
    let of = |part| {
        let config = StreamConfig {
            validation_share: 0.3,
            part,
            ..config(dir.path())
        };
        let mut loader = open(&config, &tokenizer, Rank::default()).unwrap();
        let mut texts = documents(&mut loader, &tokenizer, 1);
        texts.sort();
        texts.dedup();
        texts
    };
    let (train, validation) = (of(Part::Train), of(Part::Validation));
    assert!(train.iter().all(|text| !validation.contains(text)));
    assert_eq!(train.len() + validation.len(), 59);
    assert!((8..30).contains(&validation.len()), "{}", validation.len());
    // So few are kept back that none are here.
    let config = StreamConfig {
        validation_share: 1e-9,
        part: Part::Validation,
        ..config(dir.path())
    };
    let mut none = open(&config, &tokenizer, Rank::default()).unwrap();
    let message = none.next_batch().unwrap_err().to_string();
    assert!(message.contains("no document"), "{message}");
}

#[test]
fn a_bad_shard_is_named_and_skipped_only_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let shards = corpus(dir.path());
    let tokenizer = tokenizer();
    let stop = config(dir.path());
    let skip = StreamConfig {
        bad_shards: BadShards::Skip,
        ..stop.clone()
    };
    let file = dir.path().join("index.json");
    let with_index = |config: &StreamConfig| {
        StreamLoader::open(&StreamSetup {
            config,
            corpus: "",
            column: Some("content"),
            tokenizer: &tokenizer,
            seq_len: 12,
            batch_size: 2,
            seed: 7,
            rank: Rank::default(),
            index: Some(&file),
        })
    };
    // Vanishes after the run began.
    let mut running = with_index(&stop).unwrap();
    let state = running.state();
    let kept = std::fs::read(&shards[1]).unwrap();
    std::fs::remove_file(&shards[1]).unwrap();
    let message = std::iter::repeat_with(|| running.next_batch())
        .take(30)
        .find_map(std::result::Result::err)
        .unwrap()
        .to_string();
    assert!(message.contains("part-1.parquet"), "{message}");
    // Started again, it is named at once; or its rows are left out, in the same order as before.
    let message = with_index(&stop).err().unwrap().to_string();
    assert!(message.contains("part-1.parquet"), "{message}");
    let mut skipping = with_index(&skip).unwrap();
    skipping.restore(&state).unwrap();
    let rest = documents(&mut skipping, &tokenizer, 1);
    assert!(rest.iter().all(|text| !text.starts_with("s1 ")));
    assert!(rest.len() >= 51, "{}", rest.len());
    // Truncated.
    std::fs::write(&shards[1], &kept[..kept.len() / 2]).unwrap();
    let message = with_index(&stop).err().unwrap().to_string();
    assert!(message.contains("when the run began"), "{message}");
    assert!(with_index(&skip).unwrap().next_batch().is_ok());
    // A new shard was not among them.
    std::fs::write(&shards[1], &kept).unwrap();
    std::fs::copy(&shards[0], dir.path().join("part-9.parquet")).unwrap();
    let message = with_index(&stop).err().unwrap().to_string();
    assert!(
        message.contains("part-9.parquet was not among"),
        "{message}"
    );
}

#[test]
fn a_null_text_names_its_row_and_skipping_survives_resume() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let mut texts: Vec<Option<String>> = (0..700).map(|row| Some(text(0, row))).collect();
    texts[300] = None;
    write_shard(&path, texts, 650);
    let tokenizer = tokenizer();
    let config = StreamConfig {
        shuffle_window: 100,
        ..config(dir.path())
    };
    let mut loader = open(&config, &tokenizer, Rank::default()).unwrap();
    let error = std::iter::repeat_with(|| loader.next_batch()).find_map(std::result::Result::err);
    let message = error.unwrap().to_string();
    assert!(message.contains("\"content\", row 300: null"), "{message}");

    let skip = StreamConfig {
        bad_shards: BadShards::Skip,
        ..config
    };
    let mut first = open(&skip, &tokenizer, Rank::default()).unwrap();
    let whole = take(&mut open(&skip, &tokenizer, Rank::default()).unwrap(), 210);
    for at in 0..200 {
        if at % 7 == 0 {
            let mut resumed = open(&skip, &tokenizer, Rank::default()).unwrap();
            resumed.restore(&first.state()).unwrap();
            assert_eq!(take(&mut resumed, 6), whole[at..at + 6], "after {at}");
        }
        first.next_batch().unwrap();
    }
}
