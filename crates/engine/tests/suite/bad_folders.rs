//! Folders that lie: each is a clear error.
use std::path::Path;

use crate::common::{Form, Tensor, VOCAB, config, f32s, tensors, write, write_tokenizer};
use serde_json::{Value, json};
use tritburn_engine::{Engine, EngineOptions, TextTokenizer};
use tritburn_quant::Dtype;
use tritburn_quant::config::SubNorm;

fn load(dir: &Path) -> Result<Engine, String> {
    let options = EngineOptions {
        threads: Some(1),
        ..EngineOptions::default()
    };
    Engine::load(dir, options).map_err(|e| e.to_string())
}

fn assert_error(dir: &Path, words: &[&str]) {
    let error = load(dir).expect_err("the folder is bad");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

/// Writes a packed model, changed by `change`, and expects an error with these words.
fn check(change: impl FnOnce(&mut Vec<Tensor>), words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let config = config(SubNorm::SubLn, Form::AutoBitLinear);
    let mut all = tensors(&config, Form::AutoBitLinear);
    change(&mut all);
    write(dir.path(), &config, &all);
    assert_error(dir.path(), &[&["model.safetensors"], words].concat());
}

fn find<'a>(all: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
    all.iter_mut().find(|t| t.name.ends_with(name)).unwrap()
}

#[test]
fn shapes_types_and_values_that_lie() {
    check(
        |all| {
            let t = find(all, "layers.1.mlp.up_proj.weight");
            t.shape = vec![t.shape[1], t.shape[0]];
        },
        &["layers.1.mlp.up_proj.weight", "[24, 10]", "[10, 24]"],
    );
    check(
        |all| all.retain(|t| !t.name.ends_with("layers.1.self_attn.q_proj.weight_scale")),
        &["q_proj.weight_scale", "missing"],
    );
    check(
        |all| find(all, "layers.0.self_attn.v_proj.weight").dtype = Dtype::I8,
        &["v_proj.weight", "I8", "U8", "quantization_config"],
    );
    check(
        |all| find(all, "layers.0.self_attn.v_proj.weight").bytes[5] = 0b11,
        &["v_proj.weight", "packed code 3", "row 0, column 5"],
    );
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        check(
            |all| find(all, "o_proj.weight_scale").bytes = bad.to_le_bytes().to_vec(),
            &["o_proj.weight_scale"],
        );
    }
    check(
        |all| find(all, "model.norm.weight").bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes()),
        &["model.norm.weight", "NaN"],
    );
    check(
        |all| {
            all.push(f32s(
                "model.layers.0.self_attn.q_norm.weight",
                &[8],
                &[1.0; 8],
            ))
        },
        &["q_norm.weight", "model_type"],
    );
}

#[test]
fn a_config_of_another_model() {
    let weights = "model.safetensors";
    for (key, value, words) in [
        (
            "num_hidden_layers",
            3,
            [weights, "model.layers.2.", "[24]", "missing"],
        ),
        (
            "num_hidden_layers",
            1,
            [
                weights,
                "model.layers.1.",
                "without this tensor",
                "model_type",
            ],
        ),
        (
            "vocab_size",
            500,
            [
                weights,
                "model.embed_tokens.weight",
                "[260, 24]",
                "[500, 24]",
            ],
        ),
        (
            "hidden_size",
            32,
            [
                weights,
                "model.embed_tokens.weight",
                "[260, 24]",
                "[260, 32]",
            ],
        ),
        (
            "intermediate_size",
            48,
            [weights, "model.layers.0.mlp.", "[10, 24]", "[12, 24]"],
        ),
        (
            "head_dim",
            16,
            [weights, "self_attn.q_proj.weight", "[8, 24]", "[16, 24]"],
        ),
        (
            "num_key_value_heads",
            4,
            [weights, "self_attn.k_proj.weight", "[4, 24]", "[8, 24]"],
        ),
        (
            "num_attention_heads",
            0,
            ["config.json", "num_attention_heads", "0", "at least 1"],
        ),
        (
            "hidden_size",
            i64::MAX,
            ["config.json", "sizes", "larger", ""],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(SubNorm::SubLn, Form::AutoBitLinear);
        let all = tensors(&config, Form::AutoBitLinear);
        config[key] = value.into();
        write(dir.path(), &config, &all);
        assert_error(dir.path(), &words);
    }
}

#[test]
fn truncated_and_missing_files() {
    let dir = tempfile::tempdir().unwrap();
    assert_error(dir.path(), &["config.json"]);
    let config = config(SubNorm::None, Form::Dense);
    write(dir.path(), &config, &tensors(&config, Form::Dense));
    let path = dir.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for len in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert_error(
            dir.path(),
            &["model.safetensors", "not a whole safetensors file"],
        );
    }
    std::fs::remove_file(&path).unwrap();
    assert_error(dir.path(), &["model.safetensors"]);
    let text = config.to_string();
    std::fs::write(dir.path().join("config.json"), &text[..text.len() / 2]).unwrap();
    assert_error(dir.path(), &["config.json"]);
}

#[test]
fn tokenizers_that_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(SubNorm::None, Form::Dense);
    config["vocab_size"] = 200.into();
    let mut all = tensors(&config, Form::Dense);
    for t in &mut all {
        if t.shape[0] == VOCAB {
            t.shape[0] = 200;
            t.bytes.truncate(200 * 24 * 4);
        }
    }
    write(dir.path(), &config, &all);
    load(dir.path()).unwrap();
    write_tokenizer(dir.path());
    assert_error(dir.path(), &["tokenizer.json", "256", "200"]);
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    assert_error(dir.path(), &["tokenizer.json"]);
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    let bad = r#"{"chat_template": "{% if %}"}"#;
    std::fs::write(dir.path().join("tokenizer_config.json"), bad).unwrap();
    assert_error(dir.path(), &["tokenizer_config.json", "chat template"]);
}

#[test]
fn options_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(SubNorm::None, Form::Dense);
    write(dir.path(), &config, &tensors(&config, Form::Dense));
    let load = |threads, kernel: Option<&str>| {
        let kernel = kernel.map(str::to_owned);
        let options = EngineOptions {
            threads,
            kernel,
            ..EngineOptions::default()
        };
        Engine::load(dir.path(), options).map_err(|e| e.to_string())
    };
    assert!(load(Some(0), None).unwrap_err().contains("threads"));
    assert!(load(Some(1), Some("mmx")).unwrap_err().contains("scalar"));
    assert_eq!(load(Some(3), Some("scalar")).unwrap().info().threads, 3);
}

#[test]
fn a_tokenizer_that_contradicts_itself() {
    let dir = tempfile::tempdir().unwrap();
    write_tokenizer(dir.path());
    let path = dir.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["post_processor"] = json!({"type": "TemplateProcessing", "pair": [],
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
        "special_tokens": {"<t>": {"id": "<t>", "ids": [1], "tokens": ["<t>"]}}});
    std::fs::write(&path, json.to_string()).unwrap();
    let tokenizer = TextTokenizer::load(dir.path(), VOCAB).unwrap().unwrap();
    let error = tokenizer.encode("a", true).unwrap_err().to_string();
    assert!(
        error.contains("tokenizer.json contradicts itself"),
        "{error}"
    );
}
