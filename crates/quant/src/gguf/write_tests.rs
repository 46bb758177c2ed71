#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Value, json};

use super::*;
use crate::config::{HiddenAct, ModelConfig};
use crate::hf_pack::pack;
use crate::tensor_file::write_safetensors;

type Change = fn(&mut Value);

pub(super) const SCALE: f32 = 0.123_456_7;

pub(super) fn config() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 260, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_042.0, "hidden_act": "silu", "tie_word_embeddings": true,
        "bos_token_id": 257, "eos_token_id": 256, "pad_token_id": 258,
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                                "quantization_mode": "offline"},
    })
}

pub(super) fn codes(rows: usize, cols: usize) -> Vec<i8> {
    let code = |i: usize| (i * i / 7 + i / 3) as i8 % 3 - 1;
    (0..rows * cols)
        .map(|i| code(i % 1009).clamp(-1, 1))
        .collect()
}

/// A tensor to be stored.
pub(super) type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

pub(super) fn f32s(name: String, shape: &[usize], values: impl Iterator<Item = f32>) -> Stored {
    let bytes = values.flat_map(f32::to_le_bytes).collect();
    (name, Dtype::F32, shape.to_vec(), bytes)
}

/// The codes of a projection, packed.
pub(super) fn packed(name: &str, rows: usize, cols: usize) -> Stored {
    let packed = pack(&codes(rows, cols), rows, cols).unwrap();
    (name.into(), Dtype::U8, vec![rows / 4, cols], packed)
}

/// A packed folder for `config`; `scales` values beside every projection.
fn folder(dir: &Path, config: &Value, scales: usize) {
    folder_of(dir, config, |name, rows, cols| {
        let all = std::iter::repeat_n(SCALE, scales);
        let scale = f32s(format!("{name}_scale"), &[scales], all);
        vec![scale, packed(name, rows, cols)]
    });
}

/// A folder for `config`, with what `projection` makes of the name and the shape of each projection.
pub(super) fn folder_of(
    dir: &Path,
    config: &Value,
    projection: impl Fn(&str, usize, usize) -> Vec<Stored>,
) {
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let c = ModelConfig::from_json(&config.to_string()).unwrap();
    let (d, ffn) = (c.hidden_size, c.intermediate_size);
    let mut tensors: Vec<Stored> = Vec::new();
    let mut plain = |name: &str, shape: &[usize]| {
        let n: usize = shape.iter().product();
        let values = (0..n).map(|i| (i % 64) as f32 / 32.0);
        tensors.push(f32s(name.into(), shape, values));
    };
    plain("model.embed_tokens.weight", &[c.vocab_size, d]);
    plain("model.norm.weight", &[d]);
    let layer = "model.layers.0.";
    for name in ["input_layernorm", "post_attention_layernorm"] {
        plain(&format!("{layer}{name}.weight"), &[d]);
    }
    for (name, rows, cols) in [
        ("self_attn.q_proj", d, d),
        ("self_attn.k_proj", c.kv_dim(), d),
        ("self_attn.v_proj", c.kv_dim(), d),
        ("self_attn.o_proj", d, d),
        ("mlp.gate_proj", ffn, d),
        ("mlp.up_proj", ffn, d),
        ("mlp.down_proj", d, ffn),
    ] {
        tensors.extend(projection(&format!("{layer}{name}.weight"), rows, cols));
    }
    let named: Vec<_> = tensors
        .iter()
        .map(|(n, d, s, b)| (n.as_str(), *d, s.as_slice(), b.as_slice()))
        .collect();
    write_safetensors(&dir.join("model.safetensors"), &named, &BTreeMap::new()).unwrap();
}

fn tokenizer(dir: &Path, change: impl Fn(&mut Value)) {
    let vocab: serde_json::Map<_, _> = (0..256u32)
        .map(|i| (char::from_u32(0x100 + i).unwrap().to_string(), json!(i)))
        .collect();
    let special = |id: u32, text: &str| json!({"id": id, "content": text, "special": true});
    let mut json = json!({
        "added_tokens": [special(256, "</s>"), special(257, "<s>"),
                         {"id": 258, "content": "tool", "special": false}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["\u{100} \u{101}", ["\u{102}", "\u{103}"]]},
    });
    change(&mut json);
    std::fs::write(dir.join("tokenizer.json"), json.to_string()).unwrap();
}

#[test]
fn ternary_codes_scales_and_metadata_come_back() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path(), &config(), 1);
    tokenizer(dir.path(), |_| {});
    let settings = json!({"bos_token": "<s>", "eos_token": {"content": "tool"},
                          "chat_template": "{{ messages }}"});
    std::fs::write(
        dir.path().join("tokenizer_config.json"),
        settings.to_string(),
    )
    .unwrap();
    let out = dir.path().join("model.gguf");
    for ternary in GgufTernary::ALL {
        assert_eq!(GgufTernary::from_name(ternary.name()), Some(ternary));
        write_gguf(dir.path(), &out, ternary, GgufEmbedding::F16).unwrap();
        let model = GgufModel::open(&out).unwrap();
        let want = if ternary == GgufTernary::I2S {
            SCALE
        } else {
            half::f16::from_f32(SCALE).to_f32()
        };
        assert!((want - SCALE).abs() < SCALE / 2048.0);
        for (name, rows, cols) in [
            ("self_attn.q_proj", 256, 256),
            ("self_attn.k_proj", 128, 256),
            ("self_attn.v_proj", 128, 256),
            ("mlp.down_proj", 256, 512),
        ] {
            let name = format!("model.layers.0.{name}.weight");
            let back = model.ternary(&name, rows, cols).unwrap().unwrap();
            assert_eq!(back.scales, TernaryScales::Tensor(want), "{name}");
            assert!(back.codes == codes(rows, cols), "{name} {ternary:?}");
        }
        let name = "model.embed_tokens.weight";
        let embedding = model.tensor_f32(name, &[260, 256]).unwrap();
        assert!(
            embedding
                .iter()
                .enumerate()
                .all(|(i, &v)| v == (i % 64) as f32 / 32.0)
        );
        let (c, file) = (model.config(), model.file());
        let written = ModelConfig::from_json(&config().to_string()).unwrap();
        assert_eq!(
            (
                c.hidden_size,
                c.intermediate_size,
                c.num_hidden_layers,
                c.vocab_size
            ),
            (256, 512, 1, 260)
        );
        assert_eq!((c.num_attention_heads, c.num_key_value_heads), (4, 2));
        assert_eq!((c.head_dim(), c.max_position_embeddings), (64, 64));
        assert_eq!((c.rope_theta, c.rms_norm_eps), (written.rope_theta, 1e-5));
        assert_eq!(
            (c.hidden_act, c.model_type.as_str()),
            (HiddenAct::Silu, "llama")
        );
        assert!(c.tie_word_embeddings && c.is_ternary());
        assert_eq!(
            (c.bos_token_id, c.eos_token_id, c.pad_token_id),
            (Some(257), Some(258), Some(258))
        );
        let text = |key: &str| file.text(key).unwrap().unwrap();
        assert_eq!(text("tokenizer.ggml.model"), "gpt2");
        assert_eq!(text("tokenizer.ggml.pre"), "gpt-2");
        assert_eq!(text("tokenizer.chat_template"), "{{ messages }}");
        assert_eq!(file.int("tokenizer.ggml.eot_token_id").unwrap(), Some(256));
        assert_eq!(
            file.flag("tokenizer.ggml.add_bos_token").unwrap(),
            Some(true)
        );
        assert_eq!(
            file.flag("tokenizer.ggml.add_eos_token").unwrap(),
            Some(false)
        );
        let tokens = file.texts("tokenizer.ggml.tokens").unwrap().unwrap();
        assert_eq!(
            tokens[255..],
            ["\u{1ff}", "</s>", "<s>", "tool", "[PAD259]"]
        );
        let kinds = file.ints("tokenizer.ggml.token_type").unwrap().unwrap();
        assert_eq!(kinds[255..], [1, 3, 3, 4, 5]);
        let merges = file.texts("tokenizer.ggml.merges").unwrap().unwrap();
        assert_eq!(merges, ["\u{100} \u{101}", "\u{102} \u{103}"]);
    }
    assert_eq!(GgufTernary::from_name("q4_0"), None);
}

#[test]
fn embeddings_of_fewer_bits() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path(), &config(), 1);
    let out = dir.path().join("model.gguf");
    for (embedding, kind, error) in [
        (GgufEmbedding::F16, TensorKind::F16, 0.0),
        (GgufEmbedding::Q8_0, TensorKind::Q8_0, 0.01),
        (GgufEmbedding::Q6K, TensorKind::Q6K, 0.05),
    ] {
        write_gguf(dir.path(), &out, GgufTernary::Tq2_0, embedding).unwrap();
        let model = GgufModel::open(&out).unwrap();
        assert_eq!(model.file().tensor("token_embd.weight").unwrap().kind, kind);
        let name = "model.embed_tokens.weight";
        let found = model.tensor_f32(name, &[260, 256]).unwrap();
        for (i, found) in found.iter().enumerate() {
            let want = (i % 64) as f32 / 32.0;
            assert!((want - found).abs() <= error, "{kind:?} {i}: {found}");
        }
    }
    let mut narrow = config();
    narrow["hidden_size"] = json!(128);
    folder(dir.path(), &narrow, 1);
    let error = write_gguf(dir.path(), &out, GgufTernary::I2S, GgufEmbedding::Q6K);
    let error = error.unwrap_err().to_string();
    for word in ["embed_tokens", "128", "blocks of 256", "q8_0"] {
        assert!(error.contains(word), "{error}");
    }
    write_gguf(dir.path(), &out, GgufTernary::I2S, GgufEmbedding::Q8_0).unwrap();
}

#[test]
fn what_gguf_cannot_say_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    let error = |ternary| {
        let error = write_gguf(dir.path(), &out, ternary, GgufEmbedding::F16)
            .unwrap_err()
            .to_string();
        assert!(!out.exists());
        error
    };
    let change = |path: &[&str], value: Value| {
        let mut config = config();
        let mut at = &mut config;
        for key in path {
            at = &mut at[*key];
        }
        *at = value;
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    };
    folder(dir.path(), &config(), 1);
    for (path, value, word) in [
        (vec!["hidden_act"], json!("relu2"), "`hidden_act`"),
        (
            vec!["tritburn", "quant", "kv_bits"],
            json!(4),
            "`tritburn.quant`",
        ),
        (
            vec!["tritburn", "quant", "weights"],
            json!("none"),
            "`tritburn.quant`",
        ),
        (
            vec!["tritburn", "sub_norm"],
            json!("layer_norm"),
            "`tritburn.sub_norm`",
        ),
        (
            vec!["tritburn"],
            json!({"sub_norm": "all", "norm_eps": 1e-3}),
            "`tritburn.norm_eps`",
        ),
        (
            vec!["query_pre_attn_scalar"],
            json!(8),
            "`query_pre_attn_scalar`",
        ),
        (vec!["num_hidden_layers"], json!(2), "model.layers.1"),
        (
            vec!["tie_word_embeddings"],
            json!(false),
            "`lm_head.weight`",
        ),
        (vec!["quantization_config"], Value::Null, "weight_scale"),
        (
            vec!["rope_scaling"],
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                   "high_freq_factor": 2.0, "original_max_position_embeddings": 8192}),
            "`rope_scaling`",
        ),
    ] {
        change(&path, value);
        let error = error(GgufTernary::Tq2_0);
        assert!(error.contains(word), "{word}: {error}");
    }
    // Widths.
    let mut narrow = config();
    narrow["intermediate_size"] = json!(384);
    folder(dir.path(), &narrow, 1);
    let text = error(GgufTernary::Tq1_0);
    for word in ["down_proj", "384", "256", "i2_s"] {
        assert!(text.contains(word), "{text}");
    }
    write_gguf(dir.path(), &out, GgufTernary::I2S, GgufEmbedding::F16).unwrap();
    std::fs::remove_file(&out).unwrap();
    narrow["intermediate_size"] = json!(320);
    folder(dir.path(), &narrow, 1);
    assert!(error(GgufTernary::I2S).contains("q2_0 takes this width"));
    write_gguf(dir.path(), &out, GgufTernary::Q2_0, GgufEmbedding::F16).unwrap();
    std::fs::remove_file(&out).unwrap();
    narrow["intermediate_size"] = json!(288);
    folder(dir.path(), &narrow, 1);
    assert!(error(GgufTernary::Q2_0).contains("multiples of 256"));
    // Scales.
    folder(dir.path(), &config(), 3);
    assert!(error(GgufTernary::I2S).contains("one scale a tensor"));
    // Tokenizers.
    folder(dir.path(), &config(), 1);
    let cases: [(Change, &str); 8] = [
        (
            |t| t["model"]["byte_fallback"] = json!(true),
            "byte-level BPE",
        ),
        (
            |t| t["pre_tokenizer"] = json!({"type": "Whitespace"}),
            "`pre_tokenizer`",
        ),
        (
            |t| t["normalizer"] = json!({"type": "NFKC"}),
            "`normalizer`",
        ),
        (
            |t| t["model"]["ignore_merges"] = json!(true),
            "ignore_merges",
        ),
        (|t| t["added_tokens"][0]["lstrip"] = json!(true), "`lstrip`"),
        (|t| t["added_tokens"][0]["id"] = json!(260), "`vocab_size`"),
        (
            |t| t["model"]["merges"] = json!(["a b c"]),
            "`model.merges`",
        ),
        (
            |t| t["post_processor"] = json!({"type": "BertProcessing"}),
            "`post_processor`",
        ),
    ];
    for (change, word) in cases {
        tokenizer(dir.path(), change);
        let error = error(GgufTernary::I2S);
        assert!(error.contains(word), "{word}: {error}");
    }
}
