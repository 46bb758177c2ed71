//! Models whose projections, embedding and head have a scale for each 128 weights, in the forms that
//! GGUF files of Ternary-Bonsai have: the same as a packed folder.
use std::path::{Path, PathBuf};

use serde_json::json;
use tritburn_engine::{Engine, EngineOptions};
use tritburn_quant::Dtype;
use tritburn_quant::config::{ModelConfig, SubNorm};
use tritburn_quant::gguf::{GgufEmbedding, GgufTernary, write_gguf};
use tritburn_quant::hf_pack::pack;
use tritburn_quant::scheme::WeightQuant;
use tritburn_quant::weight::quantise;

use crate::common::{Form, Tensor, VOCAB, config, f32s, tensors, write};
use crate::gguf_file::{F32, convert, metadata, rename};

const GROUP: usize = 128;

fn logits(path: &Path) -> Vec<f32> {
    let engine = Engine::load(path, EngineOptions::exact()).unwrap();
    let tokens: Vec<u32> = (0..30).map(|i| i * 37 % VOCAB as u32).collect();
    engine.new_session(64).prefill_all(&tokens).unwrap()
}

/// Blocks of `len` weights, of which [`GROUP`] have one scale.
fn blocks(codes: &[i8], scales: &[f32], len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, codes) in codes.chunks(len).enumerate() {
        out.extend(half::f16::from_f32(scales[i * len / GROUP]).to_le_bytes());
        let bits = |(i, code): (usize, &i8)| ((code + 1) as u8) << (2 * i);
        out.extend(
            codes
                .chunks(4)
                .map(|four| four.iter().enumerate().map(bits).sum::<u8>()),
        );
    }
    out
}

/// What inputs of projections were while a model was trained.
#[derive(Clone, Copy, PartialEq)]
enum Inputs {
    Int8,
    Full,
}

/// A model of `model_type` as a folder in `dir`, packed or in full precision as its inputs are, and as a
/// file of blocks of number `id`. One value in front of each
/// feed-forward block is large, as in real models.
fn both(dir: &Path, model_type: &str, (id, len): (u32, usize), inputs: Inputs) -> PathBuf {
    let packed = inputs == Inputs::Int8;
    let mut config = config(SubNorm::None, Form::AutoBitLinear);
    config["model_type"] = json!(model_type);
    (config["hidden_size"], config["intermediate_size"]) = (json!(1024), json!(1024));
    (config["head_dim"], config["rope_theta"]) = (json!(64), json!(10_000.0));
    config["tritburn"] = json!({"quant": {"weights": "absmean-group128"}});
    let c = ModelConfig::from_json(&config.to_string()).unwrap();
    let (mut gguf, mut folder) = (metadata(model_type, &c), Vec::new());
    if packed {
        gguf.pair("tritburn.input_bits", &json!(8));
    }
    for mut t in tensors(&config, Form::Online) {
        let name = rename(&t.name, false);
        let &[rows, cols] = t.shape.as_slice() else {
            if name.contains("ffn_norm") {
                t.bytes[..4].copy_from_slice(&40f32.to_le_bytes());
            }
            gguf.tensor(&name, &t.shape, F32, &t.bytes);
            folder.push(t);
            continue;
        };
        let values = t.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
        let values: Vec<f32> = values.collect();
        let w = quantise(&values, cols, WeightQuant::AbsmeanGroup128).unwrap();
        let round = |s: f32| half::f16::from_f32(s).to_f32();
        let scales: Vec<f32> = w.scales.into_iter().map(round).collect();
        let stored = Tensor {
            name: t.name.clone(),
            dtype: Dtype::U8,
            shape: t.shape.clone(),
            bytes: blocks(&w.codes, &scales, len),
        };
        gguf.tensor(&name, &t.shape, id, &convert(model_type, &c, &stored));
        if packed && t.name.contains("_proj.") {
            let shape = [rows, cols / GROUP];
            folder.push(f32s(&format!("{}_scale", t.name), &shape, &scales));
            folder.push(Tensor {
                shape: vec![rows / 4, cols],
                bytes: pack(&w.codes, rows, cols).unwrap(),
                ..stored
            });
        } else {
            let value = |(i, code): (usize, &i8)| f32::from(*code) * scales[i / GROUP];
            let values: Vec<f32> = w.codes.iter().enumerate().map(value).collect();
            folder.push(f32s(&t.name, &t.shape, &values));
        }
    }
    if !packed {
        let config = config.as_object_mut().unwrap();
        config.remove("quantization_config");
        config.remove("tritburn");
    }
    write(dir, &config, &folder);
    let path = dir.join("model.gguf");
    gguf.write(&path);
    path
}

const KINDS: [(u32, usize); 3] = [(42, 64), (42, 128), (142, 128)];

#[test]
fn groups_of_128_have_the_logits_of_a_packed_folder() {
    for model_type in ["qwen3", "llama"] {
        for kind in KINDS {
            let dir = tempfile::tempdir().unwrap();
            let path = both(dir.path(), model_type, kind, Inputs::Int8);
            let folder = logits(dir.path());
            assert!(folder.iter().all(|v| v.is_finite()));
            assert!(folder == logits(&path), "{model_type} {kind:?}");
            let engine = Engine::load(&path, EngineOptions::default()).unwrap();
            assert_eq!(engine.info().format, "ternary-2bit");
        }
    }
}

/// The largest difference as a share of the largest logit.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let largest = b.iter().fold(0f32, |m, v| m.max(v.abs()));
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0f32, f32::max) / largest
}

#[test]
fn models_with_full_inputs_are_close_to_full_precision() {
    for model_type in ["qwen3", "llama"] {
        for kind in KINDS {
            let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
            let file = both(dirs[0].path(), model_type, kind, Inputs::Full);
            let full = logits(dirs[0].path());
            let engine = Engine::load(&file, EngineOptions::exact()).unwrap();
            assert_eq!(engine.info().format, "ternary-2bit");
            let near = distance(&logits(&file), &full);
            both(dirs[1].path(), model_type, kind, Inputs::Int8);
            let far = distance(&logits(dirs[1].path()), &full);
            assert!(
                near < 0.1 && near < 0.75 * far,
                "{model_type} {kind:?}: {near} {far}"
            );
        }
    }
}

/// Embedding and head are f16 there, which holds what they are here.
#[test]
fn a_folder_with_groups_becomes_a_file_of_the_same_logits() {
    let dir = tempfile::tempdir().unwrap();
    both(dir.path(), "llama", KINDS[0], Inputs::Int8);
    let path = dir.path().join("written.gguf");
    write_gguf(dir.path(), &path, GgufTernary::Q2_0, GgufEmbedding::F16).unwrap();
    assert!(logits(dir.path()) == logits(&path));
}
