//! Damaged models are errors or run: never a panic.
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;
use tritburn_engine::{Engine, EngineOptions};
use tritburn_quant::config::{ModelConfig, SubNorm};

use crate::common::{Form, config, tensors, write, write_tokenizer};
use crate::gguf_file::{F32, convert, metadata, rename};

/// Loads, and computes where that works.
fn try_out(path: &Path) {
    let options = EngineOptions {
        threads: Some(1),
        ..EngineOptions::default()
    };
    if let Ok(engine) = Engine::load(path, options) {
        drop(
            engine
                .new_session(8)
                .prefill(&[1, 2, 3])
                .map(<[f32]>::to_vec),
        );
        drop(engine.encode("a b", true));
    }
}

fn damage(bytes: &mut Vec<u8>, flips: &[(Index, u8)], cut: Option<Index>) {
    for (at, value) in flips {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()));
    }
}

pub(crate) fn gguf() -> Vec<u8> {
    let mut config = config(SubNorm::None, Form::Dense);
    config["num_hidden_layers"] = json!(1);
    let c = ModelConfig::from_json(&config.to_string()).unwrap();
    let mut gguf = metadata("llama", &c);
    let tokens: Vec<String> = (0..256u32)
        .filter_map(char::from_u32)
        .map(String::from)
        .collect();
    gguf.pair("tokenizer.ggml.model", &json!("gpt2"));
    gguf.pair("tokenizer.ggml.tokens", &json!(tokens));
    gguf.pair("tokenizer.ggml.merges", &json!(["a b"]));
    for t in &tensors(&config, Form::Dense) {
        gguf.tensor(
            &rename(&t.name, false),
            &t.shape,
            F32,
            &convert("llama", &c, t),
        );
    }
    let dir = tempfile::tempdir().unwrap();
    gguf.write(&dir.path().join("model.gguf"));
    std::fs::read(dir.path().join("model.gguf")).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn of_gguf_files(
        // Most of the file is weights: aim at the first kilobytes.
        flips in prop::collection::vec((any::<Index>(), any::<u8>()), 1..5),
        cut in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let mut bytes = gguf();
        let mut header = bytes[..6000].to_vec();
        damage(&mut header, &flips, None);
        bytes[..6000].copy_from_slice(&header);
        damage(&mut bytes, &[], cut);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        try_out(&path);
    }

    #[test]
    fn of_folders(
        file in prop::sample::select(vec!["config.json", "model.safetensors", "tokenizer.json"]),
        flips in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        cut in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let config = config(SubNorm::SubLn, Form::AutoBitLinear);
        write(dir.path(), &config, &tensors(&config, Form::AutoBitLinear));
        write_tokenizer(dir.path());
        let path = dir.path().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes, &flips, cut);
        std::fs::write(&path, bytes).unwrap();
        try_out(dir.path());
    }
}
