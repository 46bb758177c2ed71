//! Every type that matrices of a GGUF file may have and that is not ternary alone, on every architecture: the model is the folder
//! with the same values in f32.
use std::path::Path;

use serde_json::{Value, json};
use tritburn_engine::{Engine, EngineOptions, HeadFormat};
use tritburn_quant::Dtype;
use tritburn_quant::config::{ModelConfig, SubNorm};
use tritburn_quant::gguf::{GgufModel, TensorKind};

use crate::common::{Form, Tensor, VOCAB, config, tensors, write};
use crate::gguf_file::{F32, convert, metadata, rename};

/// Columns of every matrix: the largest block.
const WIDTH: usize = 256;

fn logits(path: &Path, head: HeadFormat) -> Vec<f32> {
    let options = EngineOptions {
        threads: Some(1),
        head: Some(head),
        ..EngineOptions::exact()
    };
    let engine = Engine::load(path, options).unwrap();
    let tokens: Vec<u32> = (0..12).map(|i| i * 37 % VOCAB as u32).collect();
    engine.new_session(64).prefill_all(&tokens).unwrap()
}

/// Places of the f16 scales of a block, and what is put there.
fn scales(kind: TensorKind) -> &'static [(usize, f32)] {
    match kind {
        TensorKind::Q4_0 => &[(0, 0.03)],
        TensorKind::Q4_1 => &[(0, 0.03), (2, -0.2)],
        TensorKind::Q5_0 => &[(0, 0.015)],
        TensorKind::Q8_0 => &[(0, 0.002)],
        TensorKind::Q4K => &[(0, 6e-4), (2, 4e-3)],
        TensorKind::Q5K => &[(0, 3e-4), (2, 4e-3)],
        TensorKind::Q6K => &[(208, 8e-5)],
        TensorKind::Q2_0 | TensorKind::Pq2_0 => &[(0, 0.15)],
        kind => panic!("{kind:?} has no scales"),
    }
}

/// Values of `n` weights in a type: those of `f32s` where that is a type of single values, else
/// blocks of random bits.
fn store(kind: TensorKind, f32s: &[u8], seed: &mut u64) -> Vec<u8> {
    let values = f32s.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
    match kind {
        TensorKind::F32 => return f32s.to_vec(),
        TensorKind::F16 => {
            return values
                .flat_map(|v| half::f16::from_f32(v).to_le_bytes())
                .collect();
        }
        TensorKind::Bf16 => {
            return values
                .flat_map(|v| half::bf16::from_f32(v).to_le_bytes())
                .collect();
        }
        _ => {}
    }
    let blocks = f32s.len() / 4 / kind.block_len();
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*seed >> 40) as u8
    };
    let mut bytes: Vec<u8> = (0..blocks * kind.block_bytes()).map(|_| next()).collect();
    for block in bytes.chunks_mut(kind.block_bytes()) {
        for (at, scale) in scales(kind) {
            block[*at..at + 2].copy_from_slice(&half::f16::from_f32(*scale).to_le_bytes());
        }
    }
    bytes
}

/// The values of rows that are no one's heads: the embedding of a model of another architecture.
/// What blocks hold is checked elsewhere against the reference.
fn values(dir: &Path, id: u32, bytes: &[u8], rows: usize) -> Vec<u8> {
    let mut config = config(SubNorm::None, Form::Dense);
    (config["hidden_size"], config["head_dim"]) = (json!(WIDTH), json!(64));
    let c = ModelConfig::from_json(&config.to_string()).unwrap();
    let mut gguf = metadata("qwen3", &c);
    gguf.tensor("token_embd.weight", &[rows, WIDTH], id, bytes);
    let path = dir.join("values.gguf");
    gguf.write(&path);
    let model = GgufModel::open(&path).unwrap();
    let name = "model.embed_tokens.weight";
    let values = model.tensor_f32(name, &[rows, WIDTH]).unwrap();
    assert!(values.iter().any(|v| *v != values[0]), "{id}");
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn config_of(arch: &str, model_type: &str) -> Value {
    let sub_norm = if model_type == "bitnet" {
        SubNorm::SubLn
    } else {
        SubNorm::None
    };
    let mut config = config(sub_norm, Form::Dense);
    config["model_type"] = json!(model_type);
    config["hidden_act"] = json!(match arch {
        "gemma3" => "gelu_pytorch_tanh",
        "bitnet-b1.58" | "bitnet-25" => "relu2",
        _ => "silu",
    });
    for key in ["hidden_size", "intermediate_size"] {
        config[key] = json!(WIDTH);
    }
    config["head_dim"] = json!(64);
    config["rope_theta"] = json!(50_000.0);
    if arch == "gemma3" {
        config["sliding_window"] = json!(6);
        config["query_pre_attn_scalar"] = json!(64);
    }
    config
}

fn check(id: u32, kind: TensorKind, arch: &str, model_type: &str) {
    let dir = tempfile::tempdir().unwrap();
    let config = config_of(arch, model_type);
    let c = ModelConfig::from_json(&config.to_string()).unwrap();
    let mut all = tensors(&config, Form::Dense);
    let mut gguf = metadata(arch, &c);
    let mut seed = 3;
    for t in &mut all {
        let name = rename(&t.name, arch == "gemma3");
        if t.shape.len() == 1 {
            gguf.tensor(&name, &t.shape, F32, &convert(arch, &c, t));
            continue;
        }
        let stored = Tensor {
            name: t.name.clone(),
            dtype: Dtype::U8,
            shape: t.shape.clone(),
            bytes: store(kind, &t.bytes, &mut seed),
        };
        t.bytes = values(dir.path(), id, &stored.bytes, t.shape[0]);
        gguf.tensor(&name, &t.shape, id, &convert(arch, &c, &stored));
    }
    write(dir.path(), &config, &all);
    let path = dir.path().join("model.gguf");
    gguf.write(&path);
    for head in [HeadFormat::F32, HeadFormat::Int8] {
        let (folder, file) = (logits(dir.path(), head), logits(&path, head));
        assert!(folder.iter().all(|v| v.is_finite()), "{arch} {kind:?}");
        let largest = folder.iter().fold(0f32, |m, v| m.max(v.abs()));
        let pairs = folder.iter().zip(&file);
        let diff = pairs.fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest;
        // 1 + w − 1 rounds for Gemma, and an int8 head may then round to a neighbour.
        let tolerance = match (arch, head) {
            ("gemma3", HeadFormat::F32) => 2e-6,
            ("gemma3", HeadFormat::Int8) => 1e-2,
            _ => 0.0,
        };
        assert!(diff <= tolerance, "{arch} {kind:?} {head:?}: {diff}");
    }
}

#[test]
fn every_type_on_every_architecture() {
    // Random codes of these make no ternary weights.
    let four_values = [TensorKind::Q2_0, TensorKind::Pq2_0];
    let plain = TensorKind::ALL.iter();
    let plain = plain.filter(|(_, k, _)| !k.is_ternary() || four_values.contains(k));
    let plain: Vec<_> = plain.collect();
    assert_eq!(plain.len(), 12);
    for (id, kind, _) in plain {
        for (arch, model_type) in [
            ("llama", "llama"),
            ("qwen2", "qwen2"),
            ("qwen3", "qwen3"),
            ("gemma3", "gemma3_text"),
            ("bitnet", "bitnet"),
            ("bitnet-b1.58", "bitnet"),
            ("bitnet-25", "bitnet"),
        ] {
            check(*id, *kind, arch, model_type);
        }
    }
}
