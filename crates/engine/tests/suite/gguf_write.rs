//! A folder and the GGUF file written from it are the same model.
use std::path::Path;

use serde_json::{Value, json};
use tritburn_engine::{Engine, EngineOptions};
use tritburn_quant::config::SubNorm;
use tritburn_quant::gguf::{GgufEmbedding, GgufTernary, write_gguf};

use crate::common::{EOS, Form, Tensor, VOCAB, config, f32s, tensors, write, write_tokenizer};

fn logits(path: &Path) -> Vec<f32> {
    let engine = Engine::load(path, EngineOptions::exact()).unwrap();
    let tokens: Vec<u32> = (0..30).map(|i| i * 37 % VOCAB as u32).collect();
    engine.new_session(64).prefill_all(&tokens).unwrap()
}

/// Rounds what the file has in f16.
fn round(t: &mut Tensor) {
    if !t.name.contains("embed_tokens") && t.name != "lm_head.weight" && !t.name.ends_with("_scale")
    {
        return;
    }
    for b in t.bytes.as_chunks_mut().0 {
        *b = half::f16::from_f32(f32::from_le_bytes(*b))
            .to_f32()
            .to_le_bytes();
    }
}

fn check(name: &str, config: &Value, form: Form, ternary: GgufTernary) {
    let dir = tempfile::tempdir().unwrap();
    let mut all = tensors(config, form);
    all.iter_mut().for_each(round);
    if name == "biases" {
        let width = config["hidden_size"].as_u64().unwrap() as usize;
        let values: Vec<f32> = (0..width).map(|i| (i as f32).sin()).collect();
        for i in 0..2 {
            let name = format!("model.layers.{i}.self_attn.o_proj.bias");
            all.push(f32s(&name, &[width], &values));
        }
    }
    write(dir.path(), config, &all);
    let path = dir.path().join("model.gguf");
    write_gguf(dir.path(), &path, ternary, GgufEmbedding::F16).unwrap();
    let (folder, file) = (logits(dir.path()), logits(&path));
    let scale = folder.iter().fold(0f32, |m, v| m.max(v.abs()));
    let pairs = folder.iter().zip(&file);
    let diff = pairs.fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale;
    // 1 + w − 1 rounds for Gemma, and then activations may round to a neighbour; the divisors of
    // Llama 3's scaling round. All else is the same bits.
    let tolerance = match (name, form) {
        ("gemma3" | "llama3", Form::Dense) => 2e-6,
        ("gemma3" | "llama3", _) => 2e-2,
        _ => 0.0,
    };
    assert!(diff <= tolerance, "{name} {ternary:?}: {diff}");
    let engine = Engine::load(&path, EngineOptions::default()).unwrap();
    let ternary = form != Form::Dense;
    assert_eq!(engine.info().format == "ternary-2bit", ternary, "{name}");
}

#[test]
fn every_architecture_gives_the_logits_of_the_folder() {
    for (name, model_type, act, sub_norm) in [
        ("llama", "llama", "silu", SubNorm::None),
        ("llama3", "llama", "silu", SubNorm::None),
        ("llama all", "llama", "silu", SubNorm::All),
        ("biases", "llama", "silu", SubNorm::None),
        ("1bitllm", "llama", "silu", SubNorm::SubLn),
        ("qwen2", "qwen2", "silu", SubNorm::None),
        ("qwen3", "qwen3", "silu", SubNorm::None),
        ("qwen3 sub", "qwen3", "silu", SubNorm::SubLn),
        ("gemma3", "gemma3_text", "gelu_pytorch_tanh", SubNorm::None),
        ("bitnet", "bitnet", "silu", SubNorm::SubLn),
        ("bitnet", "bitnet", "relu2", SubNorm::SubLn),
    ] {
        for form in [Form::Dense, Form::AutoBitLinear, Form::BitLinear] {
            // Masters are quantised when either is loaded.
            let form = if name == "1bitllm" {
                Form::Online
            } else {
                form
            };
            let mut config = config(sub_norm, form);
            config["model_type"] = json!(model_type);
            config["hidden_act"] = json!(act);
            (config["hidden_size"], config["intermediate_size"]) = (json!(256), json!(512));
            config["head_dim"] = json!(64);
            config["rope_theta"] = json!(50_000.0);
            match name {
                "biases" => config["attention_bias"] = json!(true),
                "1bitllm" => (config["weight_bits"], config["input_bits"]) = (json!(1), json!(8)),
                "qwen3 sub" => config["tritburn"] = json!({"sub_norm": "sub_ln"}),
                "llama3" => {
                    config["rope_theta"] = json!(500_000.0);
                    config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 32.0,
                        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 8192});
                }
                "gemma3" => {
                    config["sliding_window"] = json!(6);
                    config["sliding_window_pattern"] = json!(2);
                    config["query_pre_attn_scalar"] = json!(64);
                    config["rope_scaling"] = json!({"rope_type": "linear", "factor": 8.0});
                }
                _ => {}
            }
            if form == Form::Online {
                // The absmean of masters is no f16.
                check(name, &config, form, GgufTernary::I2S);
                continue;
            }
            // 1 / scale in the folder is no f16 either.
            let all = [
                GgufTernary::I2S,
                GgufTernary::Tq1_0,
                GgufTernary::Tq2_0,
                GgufTernary::Q2_0,
            ];
            let some = if form == Form::BitLinear {
                1
            } else {
                all.len()
            };
            for ternary in &all[..some] {
                check(name, &config, form, *ternary);
            }
        }
    }
}

#[test]
fn tokenizer_and_template_go_along() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(SubNorm::None, Form::Dense);
    write(dir.path(), &config, &tensors(&config, Form::Dense));
    write_tokenizer(dir.path());
    let settings =
        json!({"eos_token": "</s>", "chat_template": "{{ messages[0].content }}{{ eos_token }}"});
    std::fs::write(
        dir.path().join("tokenizer_config.json"),
        settings.to_string(),
    )
    .unwrap();
    let path = dir.path().join("model.gguf");
    write_gguf(dir.path(), &path, GgufTernary::Tq2_0, GgufEmbedding::F16).unwrap();
    let load = |path: &Path| Engine::load(path, EngineOptions::default()).unwrap();
    let (folder, file) = (load(dir.path()), load(&path));
    for text in [
        "x 12",
        "\u{1F600} \u{4e2d}\n\n \t",
        "a</s>b",
        "",
        "cafe\u{301}",
    ] {
        let ids = file.encode(text, true).unwrap();
        assert_eq!(ids, folder.encode(text, true).unwrap(), "{text:?}");
    }
    let turn = || tritburn_engine::ChatMessage {
        role: "user".into(),
        content: "he".into(),
    };
    let ids = file.encode_chat(&[turn()]).unwrap();
    assert_eq!(ids, folder.encode_chat(&[turn()]).unwrap());
    assert_eq!(ids.last(), Some(&EOS));
    assert_eq!(file.eos_token_ids(), folder.eos_token_ids());
}
