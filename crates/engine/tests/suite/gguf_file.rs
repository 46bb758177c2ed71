//! Writes GGUF files the way llama.cpp's converter does.
use std::path::Path;

use serde_json::{Value, json};
use tritburn_quant::config::ModelConfig;

use crate::common::Tensor;

/// Number of the type.
pub(crate) const F32: u32 = 0;

/// The parts of a GGUF file.
#[derive(Default)]
pub(crate) struct Gguf {
    counts: [u64; 2],
    pairs: Vec<u8>,
    infos: Vec<u8>,
    data: Vec<u8>,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Gguf {
    pub(crate) fn pair(&mut self, key: &str, value: &Value) {
        text(&mut self.pairs, key);
        let out = &mut self.pairs;
        match value {
            Value::Bool(v) => out.extend([7, 0, 0, 0, u8::from(*v)]),
            Value::String(v) => {
                out.extend(8u32.to_le_bytes());
                text(out, v);
            }
            Value::Array(all) => {
                let kind = match &all[0] {
                    Value::String(_) => 8u32,
                    v if v.is_f64() => 6,
                    _ => 5,
                };
                out.extend(9u32.to_le_bytes());
                out.extend(kind.to_le_bytes());
                out.extend((all.len() as u64).to_le_bytes());
                for v in all {
                    match v {
                        Value::String(v) => text(out, v),
                        v if v.is_f64() => {
                            out.extend((v.as_f64().unwrap() as f32).to_le_bytes());
                        }
                        v => out.extend((v.as_i64().unwrap() as i32).to_le_bytes()),
                    }
                }
            }
            v if v.is_u64() => {
                out.extend(4u32.to_le_bytes());
                out.extend((v.as_u64().unwrap() as u32).to_le_bytes());
            }
            v => {
                out.extend(6u32.to_le_bytes());
                out.extend((v.as_f64().unwrap() as f32).to_le_bytes());
            }
        }
        self.counts[1] += 1;
    }

    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize], kind: u32, bytes: &[u8]) {
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        text(&mut self.infos, name);
        self.infos.extend((shape.len() as u32).to_le_bytes());
        for d in shape.iter().rev() {
            self.infos.extend((*d as u64).to_le_bytes());
        }
        self.infos.extend(kind.to_le_bytes());
        self.infos.extend((self.data.len() as u64).to_le_bytes());
        self.data.extend(bytes);
        self.counts[0] += 1;
    }

    pub(crate) fn write(&self, path: &Path) {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        self.counts.iter().for_each(|c| out.extend(c.to_le_bytes()));
        out.extend(&self.pairs);
        out.extend(&self.infos);
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        std::fs::write(path, out).unwrap();
    }
}

/// llama.cpp's metadata for `config`.
pub(crate) fn metadata(arch: &str, c: &ModelConfig) -> Gguf {
    let mut gguf = Gguf::default();
    for (key, value) in pairs(arch, c) {
        gguf.pair(&key, &value);
    }
    gguf
}

/// The entries of [`metadata`].
pub(crate) fn pairs(arch: &str, c: &ModelConfig) -> Vec<(String, Value)> {
    let mut all = vec![("general.architecture".to_owned(), json!(arch))];
    for (key, value) in [
        ("block_count", json!(c.num_hidden_layers)),
        ("context_length", json!(c.max_position_embeddings)),
        ("embedding_length", json!(c.hidden_size)),
        ("feed_forward_length", json!(c.intermediate_size)),
        ("attention.head_count", json!(c.num_attention_heads)),
        ("attention.head_count_kv", json!(c.num_key_value_heads)),
        ("attention.key_length", json!(c.head_dim())),
        ("attention.value_length", json!(c.head_dim())),
        ("attention.layer_norm_rms_epsilon", json!(c.rms_norm_eps)),
        ("rope.freq_base", json!(c.rope_theta)),
        ("rope.dimension_count", json!(c.head_dim())),
    ] {
        all.push((format!("{arch}.{key}"), value));
    }
    if let Some(window) = c.sliding_window {
        all.push((format!("{arch}.attention.sliding_window"), json!(window)));
    }
    all
}

/// llama.cpp's name, by its converter's table.
pub(crate) fn rename(name: &str, gemma: bool) -> String {
    let post = if gemma {
        "post_attention_norm"
    } else {
        "ffn_norm"
    };
    let mut name = name.to_owned();
    for (from, to) in [
        ("model.layers.", "blk."),
        ("model.embed_tokens", "token_embd"),
        ("lm_head", "output"),
        ("model.norm", "output_norm"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", post),
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
        ("self_attn.attn_sub_norm", "attn_sub_norm"),
        ("mlp.ffn_sub_norm", "ffn_sub_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.", "attn_"),
        ("mlp.", "ffn_"),
        ("_proj", ""),
    ] {
        name = name.replace(from, to);
    }
    name
}

/// Rows of each head from two halves to pairs, as the converter does for architecture `llama`.
fn interleave(rows: &[&[u8]], head: usize) -> Vec<u8> {
    let order = (0..rows.len()).map(|r| (r - r % head) + r % head / 2 + (r % 2) * (head / 2));
    order.flat_map(|r| rows[r].to_vec()).collect()
}

pub(crate) fn convert(arch: &str, c: &ModelConfig, t: &Tensor) -> Vec<u8> {
    let turned = [
        "q_proj.weight",
        "k_proj.weight",
        "q_proj.bias",
        "k_proj.bias",
    ];
    if arch == "llama" && turned.iter().any(|end| t.name.ends_with(end)) {
        let rows: Vec<&[u8]> = t.bytes.chunks(t.bytes.len() / t.shape[0]).collect();
        return interleave(&rows, c.head_dim());
    }
    if arch == "gemma3" && t.name.ends_with("norm.weight") {
        let plus_one = |b: &[u8; 4]| (f32::from_le_bytes(*b) + 1.0).to_le_bytes();
        return t.bytes.as_chunks().0.iter().flat_map(plus_one).collect();
    }
    t.bytes.clone()
}
