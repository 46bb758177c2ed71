//! The same model from a folder and from a GGUF file.
use std::path::Path;

use serde_json::{Value, json};
use tritburn_engine::{ChatMessage, Engine, EngineOptions};
use tritburn_quant::config::{ModelConfig, SubNorm};
use tritburn_quant::ternary::{absmean, ternary_codes};

use crate::common::{EOS, Form, Tensor, VOCAB, config, tensors, write, write_tokenizer};
use crate::gguf_file::{F32, convert, metadata, rename};

const TQ2_0: u32 = 35;
const I2_S: u32 = 36;

fn logits(path: &Path) -> Vec<f32> {
    let engine = Engine::load(path, EngineOptions::exact()).unwrap();
    let tokens: Vec<u32> = (0..30).map(|i| i * 37 % VOCAB as u32).collect();
    engine.new_session(64).prefill_all(&tokens).unwrap()
}

fn max_diff(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let scale = a.iter().fold(0f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

#[test]
fn every_architecture_in_full_precision() {
    for (arch, model_type, act, sub_norm) in [
        ("llama", "llama", "silu", SubNorm::None),
        ("qwen2", "qwen2", "silu", SubNorm::None),
        ("qwen3", "qwen3", "silu", SubNorm::None),
        ("gemma3", "gemma3_text", "gelu_pytorch_tanh", SubNorm::None),
        ("bitnet", "bitnet", "silu", SubNorm::SubLn),
        ("bitnet-b1.58", "bitnet", "relu2", SubNorm::SubLn),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(sub_norm, Form::Dense);
        config["model_type"] = json!(model_type);
        config["hidden_act"] = json!(act);
        config["rope_theta"] = json!(50_000.0);
        if arch == "gemma3" {
            config["sliding_window"] = json!(6);
            config["query_pre_attn_scalar"] = json!(8);
        }
        let all = tensors(&config, Form::Dense);
        write(dir.path(), &config, &all);
        let c = ModelConfig::from_json(&config.to_string()).unwrap();
        let mut gguf = metadata(arch, &c);
        for t in &all {
            let name = rename(&t.name, arch == "gemma3");
            let mut bytes = convert(arch, &c, t);
            // Half the weights and a scale of 2 beside them are the weights.
            if arch == "bitnet" && name.ends_with("attn_output.weight") {
                for b in bytes.as_chunks_mut().0 {
                    *b = (f32::from_le_bytes(*b) / 2.0).to_le_bytes();
                }
                gguf.tensor(
                    &name.replace("weight", "scale"),
                    &[1],
                    F32,
                    &2f32.to_le_bytes(),
                );
            }
            gguf.tensor(&name, &t.shape, F32, &bytes);
        }
        let path = dir.path().join("model.gguf");
        gguf.write(&path);
        let diff = max_diff(&logits(dir.path()), &logits(&path));
        // 1 + w − 1 rounds for Gemma; all else is the same bits.
        let tolerance = if arch == "gemma3" { 1e-6 } else { 0.0 };
        assert!(diff <= tolerance, "{arch}: {diff}");
        // A tensor that nobody asks for, and one that is missing.
        gguf.tensor("blk.0.attn_strange.weight", &[1], F32, &[0; 4]);
        gguf.write(&path);
        let error = Engine::load(&path, EngineOptions::exact()).unwrap_err();
        assert!(error.to_string().contains("attn_strange"), "{error}");
    }
}

/// llama.cpp has the divisors of the frequencies in place of the four numbers.
#[test]
fn rope_scaling_of_llama_3() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(SubNorm::None, Form::Dense);
    config["rope_theta"] = json!(500_000.0);
    config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let all = tensors(&config, Form::Dense);
    write(dir.path(), &config, &all);
    let c = ModelConfig::from_json(&config.to_string()).unwrap();
    let plain = ModelConfig {
        rope_scaling: None,
        ..c.clone()
    };
    let pairs = plain.layer_inv_freq(0).into_iter().zip(c.layer_inv_freq(0));
    let mut divisors: Vec<f32> = pairs.map(|(plain, scaled)| plain / scaled).collect();
    let path = dir.path().join("model.gguf");
    let save = |divisors: &[f32]| {
        let mut gguf = metadata("llama", &c);
        for t in &all {
            gguf.tensor(
                &rename(&t.name, false),
                &t.shape,
                F32,
                &convert("llama", &c, t),
            );
        }
        let bytes: Vec<u8> = divisors.iter().flat_map(|d| d.to_le_bytes()).collect();
        gguf.tensor("rope_freqs.weight", &[divisors.len()], F32, &bytes);
        gguf.write(&path);
    };
    save(&divisors);
    let diff = max_diff(&logits(dir.path()), &logits(&path));
    assert!(diff < 1e-6, "{diff}");
    divisors[1] = 5.0;
    save(&divisors);
    let error = Engine::load(&path, EngineOptions::exact()).unwrap_err();
    assert!(error.to_string().contains("rope_freqs"), "{error}");
}

/// Codes as bitnet.cpp and llama.cpp store them.
fn pack(kind: u32, codes: &[i8], scale: f32) -> Vec<u8> {
    let (shift, tail): (fn(usize) -> usize, Vec<u8>) = if kind == I2_S {
        let mut tail = vec![0; 32];
        tail[..4].copy_from_slice(&scale.to_le_bytes());
        (|quarter| 6 - 2 * quarter, tail)
    } else {
        (|quarter| 2 * quarter, Vec::new())
    };
    let mut out = Vec::new();
    for (i, block) in codes.chunks(128).enumerate() {
        for j in 0..32 {
            let code = |quarter: usize| ((block[32 * quarter + j] + 1) as u8) << shift(quarter);
            out.push((0..4).map(code).sum());
        }
        if kind == TQ2_0 && i % 2 == 1 {
            out.extend(half::f16::from_f32(scale).to_le_bytes());
        }
    }
    out.extend(tail);
    out
}

#[test]
fn ternary_tensors_stay_what_they_are() {
    for (arch, kind) in [
        ("bitnet-b1.58", I2_S),
        ("bitnet-b1.58", TQ2_0),
        ("llama", TQ2_0),
    ] {
        let sub_norm = if arch == "llama" {
            SubNorm::None
        } else {
            SubNorm::SubLn
        };
        let mut config = config(sub_norm, Form::AutoBitLinear);
        (config["hidden_size"], config["intermediate_size"]) = (json!(256), json!(512));
        config["head_dim"] = json!(64);
        config["rope_theta"] = json!(10_000.0);
        let (mut packed, online) = (tensors(&config, Form::AutoBitLinear), {
            let mut c = config.clone();
            c["quantization_config"]["quantization_mode"] = json!("online");
            tensors(&c, Form::Online)
        });
        let c = ModelConfig::from_json(&config.to_string()).unwrap();
        let mut gguf = metadata(arch, &c);
        for t in &online {
            let name = rename(&t.name, false);
            if !t.name.contains("_proj.weight") {
                gguf.tensor(&name, &t.shape, F32, &t.bytes);
                continue;
            }
            let values: Vec<f32> = t
                .bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect();
            // A scale that f16 can hold, in both files.
            let scale = absmean(&values);
            let codes = ternary_codes(&values, scale);
            let scale = half::f16::from_f32(scale).to_f32();
            let stored = packed
                .iter_mut()
                .find(|p| p.name == format!("{}_scale", t.name));
            stored.unwrap().bytes = scale.to_le_bytes().to_vec();
            let bytes: Vec<u8> = codes.iter().map(|c| c.cast_unsigned()).collect();
            let codes = Tensor {
                bytes,
                dtype: t.dtype,
                name: t.name.clone(),
                shape: t.shape.clone(),
            };
            let codes: Vec<i8> = convert(arch, &c, &codes)
                .iter()
                .map(|c| c.cast_signed())
                .collect();
            gguf.tensor(&name, &t.shape, kind, &pack(kind, &codes, scale));
        }
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &config, &packed);
        let path = dir.path().join("model.gguf");
        gguf.write(&path);
        assert!(logits(dir.path()) == logits(&path), "{arch} {kind}");
        let engine = Engine::load(&path, EngineOptions::default()).unwrap();
        assert_eq!(engine.info().format, "ternary-2bit");
    }
}

#[test]
fn tokenizers_and_templates_inside() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(SubNorm::None, Form::Dense);
    write(dir.path(), &config, &tensors(&config, Form::Dense));
    write_tokenizer(dir.path());
    let json: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("tokenizer.json")).unwrap()).unwrap();
    let vocab = json["model"]["vocab"].as_object().unwrap();
    let mut tokens: Vec<String> = vocab.keys().cloned().collect();
    tokens.sort_by_key(|t| vocab[t].as_u64());
    tokens.extend(["</s>", "<s>", "he"].map(str::to_owned));
    let mut kinds = vec![1; tokens.len()];
    (kinds[256], kinds[257]) = (3, 3);
    let c = ModelConfig::from_json(&config.to_string()).unwrap();
    let build = |model: &str, pre: &str, add_bos: bool| {
        let mut gguf = metadata("llama", &c);
        for t in &tensors(&config, Form::Dense) {
            gguf.tensor(
                &rename(&t.name, false),
                &t.shape,
                F32,
                &convert("llama", &c, t),
            );
        }
        for (key, value) in [
            ("model", json!(model)),
            ("pre", json!(pre)),
            ("tokens", json!(tokens)),
            ("token_type", json!(kinds)),
            ("merges", json!(["h e"])),
            ("bos_token_id", json!(257)),
            ("eos_token_id", json!(EOS)),
            ("add_bos_token", json!(add_bos)),
        ] {
            gguf.pair(&format!("tokenizer.ggml.{key}"), &value);
        }
        gguf.pair(
            "tokenizer.chat_template",
            &json!("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"),
        );
        let path = dir.path().join("model.gguf");
        gguf.write(&path);
        Engine::load(&path, EngineOptions::default()).map_err(|e| e.to_string())
    };
    let folder = Engine::load(dir.path(), EngineOptions::default()).unwrap();
    for pre in ["default", "gpt-2", "smollm", "llama-bpe", "qwen2"] {
        let engine = build("gpt2", pre, false).unwrap();
        for sample in [
            "x 12",
            "\u{1F600} \u{4e2d}\n\n \t",
            "a</s>b",
            "",
            "cafe\u{301}",
        ] {
            let ids = engine.encode(sample, true).unwrap();
            if pre != "qwen2" {
                assert_eq!(
                    ids,
                    folder.encode(sample, true).unwrap(),
                    "{pre} {sample:?}"
                );
            }
            let back = engine.tokenizer().unwrap().decode(&ids).unwrap();
            let plain = sample.replace("</s>", "").replace("e\u{301}", "\u{e9}");
            assert_eq!(back.replace("e\u{301}", "\u{e9}"), plain, "{pre}");
        }
        assert_eq!(engine.encode("he", true).unwrap(), [258], "merged");
        assert_eq!(engine.eos_token_ids(), [EOS]);
    }
    let engine = build("gpt2", "llama-bpe", true).unwrap();
    assert_eq!(engine.encode("he", true).unwrap(), [257, 258]);
    assert_eq!(engine.encode("he", false).unwrap(), [258]);
    let turn = ChatMessage {
        role: "user".into(),
        content: "he".into(),
    };
    assert_eq!(engine.encode_chat(&[turn]).unwrap(), [257, 258, EOS]);
    for (model, pre, word) in [("t5", "default", "\"t5\""), ("gpt2", "strange", "strange")] {
        let error = build(model, pre, false).unwrap_err();
        assert!(
            error.contains(word) && error.contains("model.gguf"),
            "{error}"
        );
    }
}

#[test]
fn sentencepiece_inside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let config = config(SubNorm::None, Form::Dense);
    let c = ModelConfig::from_json(&config.to_string()).unwrap();
    let load = |prefix: bool| {
        let mut gguf = metadata("llama", &c);
        for t in &tensors(&config, Form::Dense) {
            gguf.tensor(
                &rename(&t.name, false),
                &t.shape,
                F32,
                &convert("llama", &c, t),
            );
        }
        let tokens = [
            "<unk>",
            "<s>",
            "</s>",
            "<0x0A>",
            "<0xC3>",
            "<0xA9>",
            "\u{2581}",
            "h",
            "e",
            "he",
            "\u{2581}he",
            "eh",
            "l",
        ];
        let scores = [
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -2.0, -3.0, -1.0, -9.0,
        ];
        for (key, value) in [
            ("model", json!("llama")),
            ("tokens", json!(tokens)),
            ("token_type", json!([2, 3, 3, 6, 6, 6, 1, 1, 1, 1, 1, 1, 1])),
            ("scores", json!(scores)),
            ("bos_token_id", json!(1)),
            ("eos_token_id", json!(2)),
            ("add_space_prefix", json!(prefix)),
        ] {
            gguf.pair(&format!("tokenizer.ggml.{key}"), &value);
        }
        gguf.write(&path);
        Engine::load(&path, EngineOptions::default()).unwrap()
    };
    let engine = load(true);
    for (text, ids) in [
        ("he", vec![1, 10]),
        // The best pair first, not the first pair.
        ("heh", vec![1, 6, 7, 11]),
        ("l he\n\u{e9}", vec![1, 6, 12, 10, 3, 4, 5]),
        ("h</s>h", vec![1, 6, 7, 2, 7]),
    ] {
        assert_eq!(engine.encode(text, true).unwrap(), ids, "{text:?}");
        let back = engine.tokenizer().unwrap().decode(&ids).unwrap();
        assert_eq!(back, text.replace("</s>", ""));
    }
    let engine = load(false);
    assert_eq!(engine.encode("he he", false).unwrap(), [9, 10]);
    assert_eq!(
        engine.tokenizer().unwrap().decode(&[9, 10]).unwrap(),
        "he he"
    );
}
