#![allow(clippy::unwrap_used)]
use super::*;

const TEXTS: [&str; 3] = [
    "a small black dog is sleeping .",
    "the dog is not black .",
    "it is in the park at night .",
];

fn trained() -> Tokenizer {
    Tokenizer::train_bpe(TEXTS.iter().copied().cycle().take(60), 330).unwrap()
}

#[test]
fn training_is_deterministic_and_numbers_special_tokens_first() {
    let (a, b) = (trained(), trained());
    assert_eq!(
        a.inner().to_string(false).unwrap(),
        b.inner().to_string(false).unwrap()
    );
    assert_eq!((a.pad(), a.bos(), a.eos()), (0, Some(1), 2));
    assert!(a.vocab_size() <= 330);
    assert_eq!(a.token_to_id(BOS), Some(1));
}

#[test]
fn any_text_survives_encoding() {
    let tokenizer = trained();
    for text in [
        "the dog is black .",
        "Ünïcode — 日本 🦀\n\ttabs",
        " leading and trailing ",
        "",
    ] {
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    }
    let texts = TEXTS.map(str::to_owned);
    let batch = tokenizer.encode_batch(&texts, false).unwrap();
    assert_eq!(batch[1], tokenizer.encode(&texts[1], false).unwrap());
}

#[test]
fn saving_and_loading_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = trained();
    tokenizer.save(dir.path(), 128).unwrap();
    let loaded = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(
        loaded.encode(TEXTS[0], false).unwrap(),
        tokenizer.encode(TEXTS[0], false).unwrap()
    );
    assert_eq!((loaded.pad(), loaded.bos(), loaded.eos()), (0, Some(1), 2));
    assert_eq!(loaded.vocab_size(), tokenizer.vocab_size());
    let config: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("tokenizer_config.json")).unwrap())
            .unwrap();
    assert_eq!(config["eos_token"], EOS);
    assert_eq!(config["model_max_length"], 128);
}

#[test]
fn the_config_beside_the_file_names_special_tokens() {
    let dir = tempfile::tempdir().unwrap();
    trained().save(dir.path(), 128).unwrap();
    let config = dir.path().join("tokenizer_config.json");
    std::fs::write(
        &config,
        json!({"eos_token": {"content": PAD}, "bos_token": null}).to_string(),
    )
    .unwrap();
    assert_eq!(Tokenizer::load(dir.path()).unwrap().eos(), 0);
    std::fs::write(&config, json!({"eos_token": "<gone>"}).to_string()).unwrap();
    let message = Tokenizer::load(dir.path()).unwrap_err().to_string();
    assert!(
        message.contains("no eos token; looked for <gone>"),
        "{message}"
    );
    std::fs::write(&config, "{").unwrap();
    assert!(
        Tokenizer::load(dir.path())
            .unwrap_err()
            .to_string()
            .contains("tokenizer_config.json")
    );
}

#[test]
fn bad_files_are_clear_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let whole = trained().inner().to_string(false).unwrap();
    for bad in ["", "{}", "[1, 2]", &whole[..whole.len() / 2], "\u{0}binary"] {
        std::fs::write(&path, bad).unwrap();
        let message = Tokenizer::load(&path).unwrap_err().to_string();
        assert!(message.contains("not a usable tokenizer.json"), "{message}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        Tokenizer::load(&path).unwrap_err(),
        DataError::Io { .. }
    ));
    assert!(
        Tokenizer::train_bpe(["text"], 100)
            .unwrap_err()
            .to_string()
            .contains("too small")
    );
}

#[test]
fn a_file_that_contradicts_itself_is_an_error() {
    let text = trained().inner().to_string(false).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json["post_processor"] = json!({"type": "TemplateProcessing", "pair": [],
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
        "special_tokens": {"<t>": {"id": "<t>", "ids": [1], "tokens": ["<t>"]}}});
    let tokenizer = Tokenizer::from_json(json, &Value::Null, Path::new("x")).unwrap();
    let batch = tokenizer.encode_batch(&["a".into(), "b".into()], true);
    for error in [tokenizer.encode("a", true).unwrap_err(), batch.unwrap_err()] {
        assert!(error.to_string().contains("contradicts"), "{error}");
    }
}

#[test]
fn smollm2_tokenizer_golden() {
    let root = std::env::var("TRITBURN_DATA_DIR").map_or_else(
        |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let dir = root.join("tokenizers/smollm2-135m-instruct");
    if !dir.exists() {
        eprintln!("skipped: {} is absent", dir.display());
        return;
    }
    let tokenizer = Tokenizer::load(&dir).unwrap();
    assert_eq!(tokenizer.vocab_size(), 49_152);
    let ids = tokenizer.encode("Hello world, 2024!", false).unwrap();
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "Hello world, 2024!");
    // This tokenizer splits digits one by one.
    assert!(ids.len() >= 8, "{ids:?}");
}
