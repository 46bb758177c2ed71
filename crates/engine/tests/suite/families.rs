//! Checkpoints of every family say the same model in other words.
use std::path::Path;

use serde_json::{Value, json};
use tritburn_engine::{Engine, EngineOptions};
use tritburn_quant::Dtype;
use tritburn_quant::config::SubNorm;

use crate::common::{Form, Tensor, VOCAB, config, f32s, tensors, write};

fn load(dir: &Path) -> Vec<f32> {
    let options = EngineOptions {
        threads: Some(1),
        ..EngineOptions::exact()
    };
    let engine = Engine::load(dir, options).unwrap();
    let tokens: Vec<u32> = (0..20).map(|i| i * 37 % VOCAB as u32).collect();
    engine.new_session(64).prefill_all(&tokens).unwrap()
}

/// Logits of a folder with this configuration and these tensors.
fn logits(config: &Value, tensors: &[Tensor]) -> Vec<f32> {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), config, tensors);
    load(dir.path())
}

fn rename(all: &mut [Tensor], from: &str, to: &str) {
    for t in all {
        t.name = t.name.replace(from, to);
    }
}

const PROJECTIONS: [&str; 7] = ["q", "k", "v", "o", "gate", "up", "down"];

#[test]
fn one_bit_llm_is_bitnet_with_other_names() {
    let mut microsoft = config(SubNorm::SubLn, Form::Online);
    microsoft["hidden_act"] = json!("silu");
    microsoft["rope_theta"] = json!(10_000.0);
    let mut all = tensors(&microsoft, Form::Online);
    let want = logits(&microsoft, &all);
    rename(&mut all, "attn_sub_norm", "inner_attn_ln");
    rename(&mut all, "ffn_sub_norm", "ffn_layernorm");
    for model_type in ["llama", "bitnet"] {
        let mut one_bit = microsoft.clone();
        one_bit
            .as_object_mut()
            .unwrap()
            .remove("quantization_config");
        one_bit["model_type"] = json!(model_type);
        one_bit["architectures"] = json!(["BitnetForCausalLM"]);
        (one_bit["weight_bits"], one_bit["input_bits"]) = (json!(1), json!(8));
        assert!(logits(&one_bit, &all) == want);
    }
}

/// HF1BitLLM and Falcon store 1 / absmean, say no `linear_class` and have no extra norms.
#[test]
fn inverse_scales_are_scales() {
    let mut inverse = config(SubNorm::None, Form::BitLinear);
    let mut all = tensors(&inverse, Form::BitLinear);
    inverse["quantization_config"] =
        json!({"quant_method": "bitnet", "modules_to_not_convert": null});
    inverse["is_bitnet_config"] = json!(true);
    let got = logits(&inverse, &all);
    for t in &mut all {
        if t.name.ends_with("weight_scale") {
            let stored = f32::from_le_bytes(t.bytes[..4].try_into().unwrap());
            t.bytes = (1.0 / stored).to_le_bytes().to_vec();
        }
    }
    let direct = config(SubNorm::None, Form::AutoBitLinear);
    assert!(got == logits(&direct, &all));
}

#[test]
fn packed_weights_are_the_master_weights() {
    for sub_norm in [SubNorm::None, SubNorm::SubLn, SubNorm::All] {
        let both = [Form::Online, Form::AutoBitLinear].map(|form| {
            let config = config(sub_norm, form);
            logits(&config, &tensors(&config, form))
        });
        assert!(both[0] == both[1], "{sub_norm:?}");
    }
}

#[test]
fn norms_of_projections_have_two_names() {
    let ours = config(SubNorm::All, Form::Online);
    let mut all = tensors(&ours, Form::Online);
    let want = logits(&ours, &all);
    for name in PROJECTIONS {
        rename(
            &mut all,
            &format!("{name}_proj.norm."),
            &format!("{name}_proj.rms_norm."),
        );
    }
    let mut theirs = ours.clone();
    theirs.as_object_mut().unwrap().remove("tritburn");
    theirs["quantization_config"]["use_rms_norm"] = json!(true);
    theirs["quantization_config"]["rms_norm_eps"] = ours["rms_norm_eps"].clone();
    assert!(logits(&theirs, &all) == want);
    // A module that is not converted has no norm either.
    theirs["quantization_config"]["modules_to_not_convert"] = json!(["down_proj"]);
    all.retain(|t| !t.name.contains("down_proj.rms_norm"));
    assert!(logits(&theirs, &all) != want);
}

#[test]
fn modules_that_are_not_converted_stay_as_they_are() {
    let mut excluded = config(SubNorm::SubLn, Form::Online);
    let all = tensors(&excluded, Form::Online);
    let names: Vec<String> = PROJECTIONS.map(|n| format!("{n}_proj")).into();
    excluded["quantization_config"]["modules_to_not_convert"] = json!(names);
    assert!(logits(&excluded, &all) == logits(&config(SubNorm::SubLn, Form::Dense), &all));
}

#[test]
fn half_precision_shards_and_tied_heads() {
    let mut untied = config(SubNorm::None, Form::Dense);
    let mut all = tensors(&untied, Form::Dense);
    // Values that every type can hold.
    for t in &mut all {
        for b in t.bytes.as_chunks_mut().0 {
            *b = half::bf16::from_f32(f32::from_le_bytes(*b))
                .to_f32()
                .to_le_bytes();
        }
    }
    let embedding = all[0].bytes.clone();
    all[1].bytes.clone_from(&embedding);
    let want = logits(&untied, &all);
    let store = |dtype: Dtype| {
        let convert = |t: &Tensor| Tensor {
            name: t.name.clone(),
            dtype,
            shape: t.shape.clone(),
            bytes: t
                .bytes
                .as_chunks()
                .0
                .iter()
                .flat_map(|b| half(dtype, f32::from_le_bytes(*b)))
                .collect(),
        };
        all.iter().map(convert).collect::<Vec<_>>()
    };
    for dtype in [Dtype::BF16, Dtype::F16] {
        assert!(logits(&untied, &store(dtype)) == want, "{dtype:?}");
    }
    assert_eq!(all[1].name, "lm_head.weight");
    // The same in three shards, of different types, without a head of its own.
    untied["tie_word_embeddings"] = json!(true);
    let (mut f16, mut bf16) = (store(Dtype::F16), store(Dtype::BF16));
    all.remove(1);
    f16.remove(1);
    bf16.remove(1);
    let dir = tempfile::tempdir().unwrap();
    let mut map = serde_json::Map::new();
    for (i, part) in [&all, &f16, &bf16].into_iter().enumerate() {
        let part: Vec<Tensor> = part.iter().skip(i).step_by(3).map(copy).collect();
        let file = format!("model-0000{i}-of-00003.safetensors");
        map.extend(part.iter().map(|t| (t.name.clone(), json!(file))));
        write(dir.path(), &untied, &part);
        std::fs::rename(dir.path().join("model.safetensors"), dir.path().join(file)).unwrap();
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    assert!(load(dir.path()) == want);
}

fn half(dtype: Dtype, v: f32) -> [u8; 2] {
    match dtype {
        Dtype::F16 => half::f16::from_f32(v).to_le_bytes(),
        _ => half::bf16::from_f32(v).to_le_bytes(),
    }
}

fn copy(t: &Tensor) -> Tensor {
    Tensor {
        name: t.name.clone(),
        dtype: t.dtype,
        shape: t.shape.clone(),
        bytes: t.bytes.clone(),
    }
}

/// Extra norms and ternary projections on every backbone.
#[test]
fn ternary_forms_of_other_backbones() {
    for model_type in ["qwen2", "qwen3", "gemma3_text"] {
        let mut before = Vec::new();
        for sub_norm in ["none", "sub_ln", "all"] {
            let mut config = config(SubNorm::None, Form::Online);
            config["model_type"] = json!(model_type);
            config["hidden_act"] = json!(if model_type == "gemma3_text" {
                "gelu_pytorch_tanh"
            } else {
                "silu"
            });
            config["sliding_window"] = json!(5);
            config["tritburn"] = json!({"sub_norm": sub_norm});
            let got = logits(&config, &tensors(&config, Form::Online));
            assert!(got.iter().all(|v| v.is_finite()), "{model_type} {sub_norm}");
            assert!(got != before, "{model_type} {sub_norm}");
            config["quantization_config"]["quantization_mode"] = json!("offline");
            assert!(got == logits(&config, &tensors(&config, Form::AutoBitLinear)));
            before = got;
        }
    }
}

/// What a layer with a window computes is what a model computes that never saw more.
#[test]
fn a_window_forgets_what_is_before_it() {
    let mut config = config(SubNorm::None, Form::Dense);
    config["model_type"] = json!("gemma3_text");
    config["hidden_act"] = json!("gelu_pytorch_tanh");
    config["num_hidden_layers"] = json!(1);
    config["sliding_window"] = json!(6);
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &config, &tensors(&config, Form::Dense));
    let engine = Engine::load(dir.path(), EngineOptions::exact()).unwrap();
    let after = |tokens: &[u32]| engine.new_session(64).prefill(tokens).unwrap().to_vec();
    let tokens: Vec<u32> = (0..40).map(|i| i * 37 % VOCAB as u32).collect();
    let mut other = tokens.clone();
    other[33] = 7;
    assert!(
        after(&tokens) == after(&other),
        "seven back is outside a window of six"
    );
    other[34] = 7;
    assert!(after(&tokens) != after(&other), "six with itself is inside");
}

/// Llama with `attention_bias` is Qwen2 with one more bias.
#[test]
fn biases_of_llama_and_qwen2() {
    let mut qwen = config(SubNorm::None, Form::Online);
    qwen["rope_theta"] = json!(10_000.0);
    let mut llama = qwen.clone();
    qwen["model_type"] = json!("qwen2");
    llama["attention_bias"] = json!(true);
    let mut all = tensors(&qwen, Form::Online);
    let want = logits(&qwen, &all);
    for value in [0.0, 0.5] {
        all.retain(|t| !t.name.ends_with("o_proj.bias"));
        for i in 0..2 {
            let name = format!("model.layers.{i}.self_attn.o_proj.bias");
            all.push(f32s(&name, &[24], &[value; 24]));
        }
        assert_eq!(logits(&llama, &all) == want, value == 0.0);
    }
}
