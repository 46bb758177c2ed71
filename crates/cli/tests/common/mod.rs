//! A model small enough to be made for every test, and the binary to run on it.
// Each test binary uses a part of it.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;
use tritburn_data::Tokenizer;
use tritburn_quant::Dtype;
use tritburn_quant::tensor_file::write_safetensors;

const HIDDEN: usize = 32;
const FFN: usize = 64;
const CONTEXT: usize = 128;
const LAYERS: usize = 2;

/// The binary with some arguments, away from the environment of whoever runs the tests.
pub(crate) fn tritburn(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tritburn"));
    command.args(args).stdin(Stdio::null());
    for name in ["RUST_LOG", "TRITBURN_KERNEL", "TRITBURN_API_KEY"] {
        command.env_remove(name);
    }
    // A test that means a folder must not ask the hub for it.
    command.env("HF_HUB_OFFLINE", "1");
    command
}

/// Runs to the end.
pub(crate) fn run(args: &[&str]) -> Output {
    tritburn(args).output().unwrap()
}

/// Runs to the end, which must be a good one; returns stdout.
pub(crate) fn ok(args: &[&str]) -> String {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs to the end, which must be a failure told in a clear way; returns stderr.
pub(crate) fn fails(args: &[&str]) -> String {
    let output = run(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert!(stderr.starts_with("error: "), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    stderr
}

/// Writes a ternary model with random weights and a tokenizer.
pub(crate) fn write_model(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let texts = ["Premise: A man sleeps.\nHypothesis: entailment neutral contradiction"; 4];
    let tokenizer = Tokenizer::train_bpe(texts, 300).unwrap();
    tokenizer.save(folder, CONTEXT).unwrap();
    let vocab = tokenizer.vocab_size();
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocab,
        "max_position_embeddings": CONTEXT,
        "hidden_act": "silu",
        "tie_word_embeddings": true,
        "bos_token_id": tokenizer.bos(),
        "eos_token_id": tokenizer.eos(),
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "online",
        },
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();

    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![HIDDEN / 2, HIDDEN]),
            ("self_attn.v_proj", vec![HIDDEN / 2, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.gate_proj", vec![FFN, HIDDEN]),
            ("mlp.up_proj", vec![FFN, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, FFN]),
        ] {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (f64::from(state) / f64::from(u32::MAX)) as f32 - 0.5
    };
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape)| {
            let is_norm = shape.len() == 1;
            let value = |_| if is_norm { 1.0 } else { next() };
            let count: usize = shape.iter().product();
            (0..count).map(value).flat_map(f32::to_le_bytes).collect()
        })
        .collect();
    let named: Vec<_> = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape), bytes)| (name.as_str(), Dtype::F32, &shape[..], &bytes[..]))
        .collect();
    write_safetensors(&folder.join("model.safetensors"), &named, &BTreeMap::new()).unwrap();
}
