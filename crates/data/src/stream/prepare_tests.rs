//! Prepared shards against their sources.
#![allow(clippy::unwrap_used)]

use super::test_corpus::{config, corpus, open, take, tokenizer, write_shard};
use super::*;
use crate::loader::BatchSource;
use crate::tokenizer::Tokenizer;

#[test]
fn prepared_shards_give_the_same_stream_and_notice_changes() {
    let dir = tempfile::tempdir().unwrap();
    let shards = corpus(dir.path());
    let tokenizer = tokenizer();
    let config = StreamConfig {
        validation_share: 0.2,
        ..config(dir.path())
    };
    let out = dir.path().join("prepared");
    let prepare = |tokenizer: &Tokenizer| {
        let mut kept = Vec::new();
        let setup = PrepareSetup {
            inputs: &config.shards,
            split: "train",
            column: None,
            tokenizer,
            out: &out,
        };
        let manifest = prepare_shards(&setup, &mut |report| kept.push(report.kept))?;
        crate::Result::Ok((manifest, kept))
    };
    let (manifest, kept) = prepare(&tokenizer).unwrap();
    assert_eq!(kept, [false; 3]);
    assert_eq!(manifest.shards[2].rows, [8, 8, 8, 6]);
    assert_eq!(prepare(&tokenizer).unwrap(), (manifest, vec![true; 3]));

    let prepared = StreamConfig {
        shards: vec![out.to_str().unwrap().to_owned()],
        ..config.clone()
    };
    let mut text = open(&config, &tokenizer, Rank::default()).unwrap();
    let mut ready = open(&prepared, &tokenizer, Rank::default()).unwrap();
    assert_eq!(take(&mut text, 40), take(&mut ready, 40));
    assert_eq!(text.state(), ready.state());
    ready.restore(&text.state()).unwrap();
    assert_eq!(take(&mut text, 10), take(&mut ready, 10));

    let other = Tokenizer::train_bpe(["a b c d"], 270).unwrap();
    let message = |tokenizer: &Tokenizer| {
        let opened = open(&prepared, tokenizer, Rank::default());
        opened.err().unwrap().to_string()
    };
    assert!(message(&other).contains("made with the tokenizer"));
    assert!(prepare(&other).is_err());
    // The same content under a new date is no change; other content is.
    let bytes = std::fs::read(&shards[0]).unwrap();
    std::fs::write(&shards[0], &bytes).unwrap();
    assert!(open(&prepared, &tokenizer, Rank::default()).is_ok());
    write_shard(&shards[0], vec![Some("new".to_owned()); 23], 8);
    assert!(message(&tokenizer).contains("part-0.parquet has changed"));
    assert_eq!(prepare(&tokenizer).unwrap().1, [false, true, true]);
    // What is damaged is not read.
    let manifest = Manifest::read(&out).unwrap().unwrap();
    let tokens = out.join(format!("{}.tokens", manifest.shards[1].name));
    std::fs::write(&tokens, b"1234").unwrap();
    assert!(message(&tokenizer).contains("is not whole"));
    assert_eq!(prepare(&tokenizer).unwrap().1, [true, false, true]);
    let rows = out.join(format!("{}.documents", manifest.shards[1].name));
    let size = std::fs::metadata(&rows).unwrap().len() as usize;
    std::fs::write(&rows, vec![0xff; size]).unwrap();
    let mut damaged = open(&prepared, &tokenizer, Rank::default()).unwrap();
    let error = std::iter::repeat_with(|| damaged.next_batch())
        .take(60)
        .find_map(std::result::Result::err);
    assert!(error.unwrap().to_string().contains("point elsewhere"));
    std::fs::write(Manifest::path(&out), b"{}").unwrap();
    assert!(message(&tokenizer).contains("manifest.json: cannot be used"));
}
