//! Small models made for the tests.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tritburn_quant::Dtype;
use tritburn_quant::config::{ModelConfig, QuantizationMode, SubNorm};
use tritburn_quant::hf_pack::pack;
use tritburn_quant::tensor_file::{NamedTensor, write_safetensors};
use tritburn_quant::ternary::{absmean, ternary_codes};

/// Tokens of the test tokenizer: the 256 bytes, then end of text.
pub(crate) const VOCAB: usize = 260;
pub(crate) const EOS: u32 = 256;

pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn f32s(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    Tensor {
        name: name.into(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// How the projections of a test model are stored.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Form {
    Dense,
    Online,
    /// Packed, with `weight_scale` = absmean.
    AutoBitLinear,
    /// Packed, with `weight_scale` = 1 / absmean.
    BitLinear,
}

pub(crate) fn config(sub_norm: SubNorm, form: Form) -> Value {
    let mut config = json!({
        "model_type": if sub_norm == SubNorm::SubLn { "bitnet" } else { "llama" },
        "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": VOCAB,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "hidden_act": if sub_norm == SubNorm::SubLn { "relu2" } else { "silu" },
        "tie_word_embeddings": sub_norm == SubNorm::SubLn, "eos_token_id": [EOS],
    });
    if sub_norm == SubNorm::All {
        config["tritburn"] = json!({"sub_norm": "all"});
    }
    let (class, mode) = match form {
        Form::Dense => return config,
        Form::Online => ("autobitlinear", QuantizationMode::Online),
        Form::AutoBitLinear => ("autobitlinear", QuantizationMode::Offline),
        Form::BitLinear => ("bitlinear", QuantizationMode::Offline),
    };
    config["quantization_config"] =
        json!({"quant_method": "bitnet", "linear_class": class, "quantization_mode": mode});
    config
}

/// Weights for `config`, the same for every form.
pub(crate) fn tensors(config: &Value, form: Form) -> Vec<Tensor> {
    let c = ModelConfig::from_json(&config.to_string()).unwrap();
    let mut seed = 1u64;
    let mut noise = |n: usize| -> Vec<f32> {
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    };
    let mut out = Vec::new();
    let (hidden, ffn, vocab) = (c.hidden_size, c.intermediate_size, c.vocab_size);
    out.push(f32s(
        "model.embed_tokens.weight",
        &[vocab, hidden],
        &noise(vocab * hidden),
    ));
    if !c.tie_word_embeddings {
        out.push(f32s(
            "lm_head.weight",
            &[vocab, hidden],
            &noise(vocab * hidden),
        ));
    }
    let norm = |out: &mut Vec<Tensor>, name: String, width: usize, v: Vec<f32>| {
        let v: Vec<f32> = v.iter().map(|v| 1.0 + 0.2 * v).collect();
        out.push(f32s(&format!("{name}.weight"), &[width], &v));
    };
    norm(&mut out, "model.norm".into(), hidden, noise(hidden));
    for i in 0..c.num_hidden_layers {
        let layer = format!("model.layers.{i}");
        for name in ["input_layernorm", "post_attention_layernorm"] {
            norm(&mut out, format!("{layer}.{name}"), hidden, noise(hidden));
        }
        if c.post_norms() {
            for name in ["pre_feedforward_layernorm", "post_feedforward_layernorm"] {
                norm(&mut out, format!("{layer}.{name}"), hidden, noise(hidden));
            }
        }
        if c.qk_norm() {
            for name in ["q_norm", "k_norm"] {
                let name = format!("{layer}.self_attn.{name}");
                norm(&mut out, name, c.head_dim(), noise(c.head_dim()));
            }
        }
        if c.qkv_bias() {
            for (name, rows) in [("q", c.q_dim()), ("k", c.kv_dim()), ("v", c.kv_dim())] {
                let name = format!("{layer}.self_attn.{name}_proj.bias");
                out.push(f32s(&name, &[rows], &noise(rows)));
            }
        }
        let [attn_sub, ffn_sub] = c.sub_norm_names();
        for (name, rows, cols, sub) in [
            ("self_attn.q_proj", c.q_dim(), hidden, None),
            ("self_attn.k_proj", c.kv_dim(), hidden, None),
            ("self_attn.v_proj", c.kv_dim(), hidden, None),
            ("self_attn.o_proj", hidden, c.q_dim(), Some(attn_sub)),
            ("mlp.gate_proj", ffn, hidden, None),
            ("mlp.up_proj", ffn, hidden, None),
            ("mlp.down_proj", hidden, ffn, Some(ffn_sub)),
        ] {
            match (c.sub_norm(), sub) {
                (SubNorm::All, _) => {
                    let (last, _) = c.projection_norm();
                    norm(
                        &mut out,
                        format!("{layer}.{name}.{last}"),
                        cols,
                        noise(cols),
                    );
                }
                (SubNorm::SubLn, Some(sub)) => {
                    norm(&mut out, format!("{layer}.{sub}"), cols, noise(cols));
                }
                _ => {}
            }
            let w: Vec<f32> = noise(rows * cols).iter().map(|v| v * 0.3).collect();
            let name = format!("{layer}.{name}.weight");
            if matches!(form, Form::Dense | Form::Online) {
                out.push(f32s(&name, &[rows, cols], &w));
                continue;
            }
            let scale = absmean(&w);
            let stored = if form == Form::BitLinear {
                1.0 / scale
            } else {
                scale
            };
            out.push(f32s(&format!("{name}_scale"), &[1], &[stored]));
            out.push(Tensor {
                name,
                dtype: Dtype::U8,
                shape: vec![rows / 4, cols],
                bytes: pack(&ternary_codes(&w, scale), rows, cols).unwrap(),
            });
        }
    }
    out
}

pub(crate) fn write(dir: &Path, config: &Value, tensors: &[Tensor]) {
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let named: Vec<NamedTensor<'_>> = tensors
        .iter()
        .map(|t| {
            (
                t.name.as_str(),
                t.dtype,
                t.shape.as_slice(),
                t.bytes.as_slice(),
            )
        })
        .collect();
    write_safetensors(&dir.join("model.safetensors"), &named, &BTreeMap::new()).unwrap();
}

/// A tokenizer with one token a byte, and `</s>`.
pub(crate) fn write_tokenizer(dir: &Path) {
    // The printable stand-ins of GPT-2 for the 256 bytes.
    let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut spare = 256;
    let mut vocab = serde_json::Map::new();
    for byte in 0..256u32 {
        let code = if printable(byte) {
            byte
        } else {
            spare += 1;
            spare - 1
        };
        vocab.insert(char::from_u32(code).unwrap().to_string(), json!(byte));
    }
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": EOS, "content": "</s>", "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                          "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                    "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
    });
    std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}
