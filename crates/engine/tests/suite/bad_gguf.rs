//! GGUF files whose metadata and tensors are of different models, or ask for what nothing here
//! computes: each is an error that names file, tensor, and what was expected and found.
use serde_json::{Value, json};
use tritburn_engine::{Engine, EngineOptions};
use tritburn_quant::config::{ModelConfig, SubNorm};

use crate::common::{Form, Tensor, config, f32s, tensors};
use crate::gguf_file::{F32, Gguf, convert, pairs, rename};

const Q8_0: u32 = 8;
const TQ2_0: u32 = 35;
const I2_S: u32 = 36;

/// A file of architecture `llama`, before it is written.
struct File {
    pairs: Vec<(String, Value)>,
    tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

impl File {
    fn set(&mut self, key: &str, value: Value) {
        self.pairs.retain(|(k, _)| k != key);
        self.pairs.push((key.to_owned(), value));
    }

    fn replace(&mut self, name: &str, shape: &[usize], kind: u32, bytes: Vec<u8>) {
        self.tensors.retain(|(n, ..)| n != name);
        self.tensors
            .push((name.to_owned(), shape.to_vec(), kind, bytes));
    }
}

fn file() -> File {
    let config = config(SubNorm::None, Form::Dense);
    let c = ModelConfig::from_json(&config.to_string()).unwrap();
    let stored = |t: &Tensor| {
        let name = rename(&t.name, false);
        (name, t.shape.clone(), F32, convert("llama", &c, t))
    };
    File {
        pairs: pairs("llama", &c),
        tensors: tensors(&config, Form::Dense).iter().map(stored).collect(),
    }
}

fn load(change: impl FnOnce(&mut File)) -> Result<Engine, String> {
    let mut file = file();
    change(&mut file);
    let mut gguf = Gguf::default();
    for (key, value) in &file.pairs {
        gguf.pair(key, value);
    }
    for (name, shape, kind, bytes) in &file.tensors {
        gguf.tensor(name, shape, *kind, bytes);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    gguf.write(&path);
    Engine::load(&path, EngineOptions::default()).map_err(|e| e.to_string())
}

/// Expects an error with the name of the file and these words.
fn check(words: &[&str], change: impl FnOnce(&mut File)) {
    let error = load(change).expect_err(words[0]);
    for word in ["model.gguf"].iter().chain(words) {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

#[test]
fn metadata_of_another_model() {
    load(|_| {}).unwrap();
    for (key, value, words) in [
        (
            "embedding_length",
            json!(32),
            ["token_embd.weight", "[260, 24]", "[260, 32]"],
        ),
        (
            "feed_forward_length",
            json!(48),
            ["blk.0.ffn_", "[40, 24]", "[48, 24]"],
        ),
        (
            "attention.head_count",
            json!(8),
            ["blk.0.attn_q.weight", "[32, 24]", "[64, 24]"],
        ),
        (
            "attention.head_count_kv",
            json!(4),
            ["blk.0.attn_k.weight", "[16, 24]", "[32, 24]"],
        ),
        (
            "block_count",
            json!(3),
            ["blk.2.", "model.layers.2.", "missing"],
        ),
        ("block_count", json!(1), ["blk.1.", "without", "tensor"]),
    ] {
        check(&words, |f| f.set(&format!("llama.{key}"), value));
    }
    // Heads of another width, in all that is said of it.
    check(&["blk.0.attn_q.weight", "[32, 24]", "[16, 24]"], |f| {
        for key in [
            "attention.key_length",
            "attention.value_length",
            "rope.dimension_count",
        ] {
            f.set(&format!("llama.{key}"), json!(4));
        }
    });
}

#[test]
fn tensors_of_another_model() {
    let up = "blk.1.ffn_up.weight";
    check(
        &[
            up,
            "model.layers.1.mlp.up_proj.weight",
            "[40, 24]",
            "missing",
        ],
        |f| f.tensors.retain(|(name, ..)| name != up),
    );
    check(&[up, "[24, 40]", "[40, 24]"], |f| {
        f.replace(up, &[24, 40], F32, vec![0; 24 * 40 * 4]);
    });
    check(&["output_norm.weight", "[12]", "[24]"], |f| {
        f.replace("output_norm.weight", &[12], F32, vec![0; 48]);
    });
    check(&["output.weight", "[260]", "[260, 24]"], |f| {
        f.replace("output.weight", &[260], F32, vec![0; 260 * 4]);
    });
    check(&["token_embd.weight", "missing"], |f| {
        f.tensors.retain(|(name, ..)| name != "token_embd.weight");
    });
    check(&["output_norm.weight", "quantised", "F32"], |f| {
        f.replace("output_norm.weight", &[32], Q8_0, vec![0; 34]);
        f.replace("token_embd.weight", &[260, 32], F32, vec![0; 260 * 32 * 4]);
        f.set("llama.embedding_length", json!(32));
        f.set("llama.attention.head_count", json!(4));
        f.tensors.retain(|(name, ..)| !name.starts_with("blk."));
        f.set("llama.block_count", json!(1));
        for (name, shape) in [
            ("attn_norm", &[32][..]),
            ("ffn_norm", &[32]),
            ("attn_q", &[32, 32]),
            ("attn_k", &[16, 32]),
            ("attn_v", &[16, 32]),
            ("attn_output", &[32, 32]),
            ("ffn_gate", &[40, 32]),
            ("ffn_up", &[40, 32]),
            ("ffn_down", &[32, 40]),
        ] {
            let bytes = vec![0; 4 * shape.iter().product::<usize>()];
            f.replace(&format!("blk.0.{name}.weight"), shape, F32, bytes);
        }
        f.replace("output.weight", &[260, 32], F32, vec![0; 260 * 32 * 4]);
    });
    check(&["token_embd.weight", "I2_S"], |f| {
        let bytes = vec![0; 256 * 24 / 4 + 32];
        f.replace("token_embd.weight", &[256, 24], I2_S, bytes.clone());
        f.replace("output.weight", &[256, 24], F32, vec![0; 256 * 24 * 4]);
    });
    for value in [f32::NAN, f32::INFINITY] {
        for name in [
            "token_embd.weight",
            "blk.0.attn_v.weight",
            "output_norm.weight",
        ] {
            check(&[name, "NaN"], |f| {
                let (.., bytes) = f.tensors.iter_mut().find(|(n, ..)| n == name).unwrap();
                bytes[..4].copy_from_slice(&value.to_le_bytes());
            });
        }
    }
    check(&["blk.0.attn_q.scale", "[2]", "[1]"], |f| {
        f.replace("blk.0.attn_q.scale", &[2], F32, vec![0; 8]);
    });
    check(&["rope_freqs.weight", "[3]", "[4]"], |f| {
        f.replace("rope_freqs.weight", &[3], F32, vec![0; 12]);
    });
    check(&["blk.0.attn_q_norm.weight", "without this tensor"], |f| {
        let norm = f32s("", &[8], &[1.0; 8]);
        f.replace("blk.0.attn_q_norm.weight", &[8], F32, norm.bytes);
    });
}

/// Codes and scales that are none.
#[test]
fn ternary_tensors_that_lie() {
    let name = "blk.0.ffn_up.weight";
    let wide = |f: &mut File, kind: u32, bytes: Vec<u8>| {
        f.replace(name, &[256, 24], kind, bytes);
        f.set("llama.feed_forward_length", json!(256));
        f.replace("blk.0.ffn_gate.weight", &[256, 24], F32, vec![0; 256 * 96]);
        f.replace("blk.0.ffn_down.weight", &[24, 256], F32, vec![0; 256 * 96]);
    };
    let i2s = |scale: f32| {
        let mut bytes = vec![0b01_01_01_01; 256 * 24 / 4];
        bytes.extend(scale.to_le_bytes());
        bytes.extend([0; 28]);
        bytes
    };
    check(&[name, "row 5, column 0"], |f| {
        let mut bytes = i2s(1.0);
        // Value 120 of the tensor.
        bytes[24] |= 3;
        wide(f, I2_S, bytes);
    });
    for scale in [f32::NAN, f32::INFINITY] {
        check(&[name, "scale"], |f| wide(f, I2_S, i2s(scale)));
    }
    check(&[name, "blocks of 256"], |f| {
        wide(f, TQ2_0, vec![0; 24 * 66]);
    });
}

#[test]
fn what_is_not_computed_is_refused_by_its_key() {
    for (key, value, words) in [
        ("general.architecture", json!("mamba"), ["mamba", "llama"]),
        ("split.count", json!(2), ["split.count", "merge"]),
        ("llama.expert_count", json!(8), ["expert_count", "experts"]),
        (
            "llama.attn_logit_softcapping",
            json!(50.0),
            ["attn_logit_softcapping", "soft caps"],
        ),
        (
            "llama.final_logit_softcapping",
            json!(30.0),
            ["final_logit_softcapping", "soft caps"],
        ),
        (
            "llama.attention.value_length",
            json!(16),
            ["attention.value_length", "16"],
        ),
        (
            "llama.rope.dimension_count",
            json!(4),
            ["rope.dimension_count", "8"],
        ),
        (
            "llama.feed_forward_length",
            json!([40, 48]),
            ["feed_forward_length", "layer to layer"],
        ),
        (
            "llama.attention.head_count_kv",
            json!(3),
            ["num_key_value_heads", "4"],
        ),
        (
            "llama.attention.head_count",
            json!("4"),
            ["attention.head_count", "a whole number"],
        ),
        (
            "llama.rope.scaling.type",
            json!("yarn"),
            ["rope.scaling.type", "yarn"],
        ),
        (
            "llama.attention.layer_norm_rms_epsilon",
            json!(-1.0),
            ["rms_norm_eps", "-1"],
        ),
        ("llama.block_count", json!(0), ["num_hidden_layers", "0"]),
    ] {
        check(&words, |f| f.set(key, value));
    }
    for key in ["block_count", "context_length", "attention.head_count"] {
        let key = format!("llama.{key}");
        check(&[&key, "missing"], |f| f.pairs.retain(|(k, _)| *k != key));
    }
    // What says that nothing is done is taken, and equal sizes of all layers are one size.
    load(|f| {
        f.set("llama.expert_count", json!(0));
        f.set("llama.rope.scaling.type", json!("none"));
        f.set("llama.feed_forward_length", json!([40, 40]));
        f.set("split.count", json!(1));
    })
    .unwrap();
}
