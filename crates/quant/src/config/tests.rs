#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn parse(extra: &str) -> std::result::Result<ModelConfig, String> {
    ModelConfig::from_json(&format!(
        r#"{{"model_type": "llama", "hidden_size": 8, "intermediate_size": 12,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
            "vocab_size": 9, "max_position_embeddings": 16, "hidden_act": "silu"{extra}}}"#
    ))
}

#[test]
fn old_and_new_transformers_spellings() {
    let rope = r#", "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}"#;
    assert_eq!(parse(rope).unwrap().rope_theta, 5e5);
    assert_eq!(
        parse(r#", "rope_theta": 7, "rope_scaling": null"#)
            .unwrap()
            .rope_theta,
        7.0
    );
    assert_eq!(
        parse(r#", "eos_token_id": [5, 6]"#).unwrap().eos_token_id,
        Some(5)
    );
    let twice = r#", "quantization_config": {"quant_method": "x"},
        "quantization_config": {"quant_method": "bitnet"}"#;
    let config = parse(twice).unwrap();
    assert_eq!(
        config.quantization_config.unwrap().linear_class,
        LinearClass::BitLinear
    );
}

#[test]
fn every_problem_is_named() {
    let error = parse(
        r#", "mlp_bias": true, "head_dim": 3, "rms_norm_eps": 0,
            "rope_scaling": {"rope_type": "yarn"}"#,
    )
    .unwrap_err();
    for word in ["mlp_bias", "head_dim", "rms_norm_eps", "yarn"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    assert!(
        parse(r#", "hidden_act": "gelu""#)
            .unwrap_err()
            .contains("gelu")
    );
    assert!(ModelConfig::from_json("[]").is_err());
}

#[test]
fn what_is_written_reads_back() {
    let mut config = parse("").unwrap();
    config.set_sub_norm(SubNorm::All);
    config.quantization_config = Some(QuantizationConfig::bitnet(QuantizationMode::Offline));
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(ModelConfig::from_json(&text).unwrap(), config);
}

fn gemma(extra: &str) -> std::result::Result<ModelConfig, String> {
    ModelConfig::from_json(&format!(
        r#"{{"model_type": "gemma3_text", "hidden_size": 640, "intermediate_size": 12,
            "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 1,
            "vocab_size": 9, "max_position_embeddings": 16{extra}}}"#
    ))
}

#[test]
fn a_whole_scalar_of_queries_is_written_as_an_integer() {
    for (value, want) in [("256.0", "256"), ("168", "168"), ("0.5", "0.5")] {
        let config = gemma(&format!(r#", "query_pre_attn_scalar": {value}"#)).unwrap();
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(json["query_pre_attn_scalar"].to_string(), want);
    }
    let json = serde_json::to_value(parse("").unwrap()).unwrap();
    assert!(json.get("query_pre_attn_scalar").is_none());
}

#[test]
fn rope_scaling_of_both_spellings() {
    let numbers = r#""factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
        "original_max_position_embeddings": 8192}"#;
    let want = Some(RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    });
    for text in [
        format!(r#", "rope_theta": 5e5, "rope_scaling": {{"rope_type": "llama3", {numbers}"#),
        format!(r#", "rope_parameters": {{"rope_theta": 5e5, "rope_type": "llama3", {numbers}"#),
    ] {
        let config = parse(&text).unwrap();
        assert_eq!((config.rope_scaling, config.rope_theta), (want, 5e5));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(ModelConfig::from_json(&text).unwrap(), config);
    }
    let config = parse(r#", "rope_scaling": {"type": "linear", "factor": 2.0}"#).unwrap();
    assert_eq!(
        config.rope_scaling,
        Some(RopeScaling::Linear { factor: 2.0 })
    );
    for (section, word) in [
        (r#"{"rope_type": "llama3", "factor": 8}"#, "low_freq_factor"),
        (r#"{"type": "linear", "factor": 0.5}"#, "factor"),
        (r#"{"type": "linear", "factor": "x"}"#, "linear"),
        (r#"{"rope_type": 3}"#, "rope_type"),
        (r#"{"partial_rotary_factor": 0.5}"#, "partial_rotary_factor"),
        ("7", "rope_scaling"),
    ] {
        let error = parse(&format!(r#", "rope_scaling": {section}"#)).unwrap_err();
        assert!(error.contains(word), "{section}: {error}");
    }
}

#[test]
fn gemma_says_its_layers_in_three_ways() {
    let config = gemma("").unwrap();
    let windows: Vec<bool> = (0..7).map(|i| config.layer_window(i).is_some()).collect();
    assert_eq!(windows, [true, true, true, true, true, false, true]);
    assert_eq!(config.layer_window(0), Some(4096));
    assert_eq!(
        (config.layer_rope_theta(0), config.layer_rope_theta(5)),
        (1e4, 1e6)
    );
    assert!(config.tie_word_embeddings && config.qk_norm() && config.post_norms());
    assert_eq!(
        (config.head_dim(), config.hidden_act),
        (256, HiddenAct::GeluTanh)
    );
    assert_eq!(
        (config.norm_offset(), config.attention_scale()),
        (1.0, 0.0625)
    );
    let config = gemma(r#", "sliding_window_pattern": 2, "sliding_window": 8"#).unwrap();
    assert_eq!(
        (config.layer_window(0), config.layer_window(1)),
        (Some(8), None)
    );
    let nested = r#", "layer_types": ["full_attention", "sliding_attention", "full_attention",
        "full_attention", "full_attention", "full_attention", "full_attention"],
        "rope_parameters": {"full_attention": {"rope_theta": 3.0, "rope_type": "linear", "factor": 2},
                            "sliding_attention": {"rope_theta": 2.0, "rope_type": "default"}}"#;
    let config = gemma(nested).unwrap();
    assert_eq!(
        (config.layer_rope_theta(0), config.layer_rope_theta(1)),
        (3.0, 2.0)
    );
    assert_eq!(config.layer_inv_freq(1)[0], 1.0);
    assert_eq!(config.layer_inv_freq(0)[0], 0.5);
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(ModelConfig::from_json(&text).unwrap(), config);
}

#[test]
fn the_embedding_is_scaled_in_the_type_of_the_weights() {
    assert_eq!(gemma("").unwrap().embed_scale(), 640f32.sqrt());
    assert_eq!(
        gemma(r#", "torch_dtype": "bfloat16""#)
            .unwrap()
            .embed_scale(),
        25.25
    );
    assert_eq!(
        gemma(r#", "dtype": "bfloat16""#).unwrap().embed_scale(),
        25.25
    );
    assert_eq!(parse("").unwrap().embed_scale(), 1.0);
}

#[test]
fn what_would_change_the_result_is_refused() {
    for (extra, word) in [
        (
            r#", "attn_logit_softcapping": 50.0"#,
            "attn_logit_softcapping",
        ),
        (
            r#", "final_logit_softcapping": 30.0"#,
            "final_logit_softcapping",
        ),
        (
            r#", "use_bidirectional_attention": true"#,
            "use_bidirectional_attention",
        ),
        (r#", "layer_types": ["full_attention"]"#, "layer_types"),
        (r#", "layer_types": ["chunked_attention"]"#, "layer_types"),
        (r#", "sliding_window": 0"#, "sliding_window"),
        (r#", "sliding_window_pattern": 0"#, "sliding_window_pattern"),
        (r#", "query_pre_attn_scalar": 0"#, "query_pre_attn_scalar"),
        (
            r#", "rope_parameters": {"sliding_attention": {"rope_type": "linear"}}"#,
            "sliding_attention",
        ),
    ] {
        let error = gemma(extra).unwrap_err();
        assert!(error.contains(word), "{extra}: {error}");
    }
    for (extra, word) in [
        (r#", "use_sliding_window": true"#, "use_sliding_window"),
        (r#", "layer_types": ["sliding_attention"]"#, "layer_types"),
        (r#", "weight_bits": 2"#, "weight_bits"),
        (r#", "weight_bits": 1, "input_bits": 4"#, "input_bits"),
        (r#", "hidden_size": "8""#, "hidden_size"),
    ] {
        let error = parse(extra).unwrap_err();
        assert!(error.contains(word), "{extra}: {error}");
    }
    let q = |extra: &str| {
        parse(&format!(
            r#", "quantization_config": {{"quant_method": "bitnet", {extra}}}"#
        ))
    };
    assert!(
        q(r#""quantization_mode": "online""#)
            .unwrap_err()
            .contains("linear_class")
    );
    let rms = q(r#""use_rms_norm": true, "rms_norm_eps": 1e-3"#).unwrap();
    assert_eq!(rms.sub_norm(), SubNorm::All);
    assert_eq!(rms.projection_norm(), ("rms_norm", 1e-3));
}

#[test]
fn extra_norms_keep_a_backbone_that_is_not_llama() {
    let mut config = gemma("").unwrap();
    for sub_norm in [SubNorm::SubLn, SubNorm::All, SubNorm::None] {
        config.set_sub_norm(sub_norm);
        assert_eq!(
            (config.model_type.as_str(), config.sub_norm()),
            ("gemma3_text", sub_norm)
        );
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(ModelConfig::from_json(&text).unwrap(), config);
    }
    let mut config = parse("").unwrap();
    config.set_sub_norm(SubNorm::SubLn);
    assert_eq!(
        (config.model_type.as_str(), config.hidden_act),
        ("bitnet", HiddenAct::Silu)
    );
    let b158 = parse(r#", "weight_bits": 1, "input_bits": 8"#).unwrap();
    assert_eq!(b158.sub_norm(), SubNorm::SubLn);
    assert_eq!(b158.sub_norm_names()[0], "self_attn.inner_attn_ln");
    let mode = b158.quantization_config.unwrap().quantization_mode;
    assert_eq!(mode, QuantizationMode::Online);
}

/// A configuration with a value for every key that is looked at.
const FULL: &str = r#"{"architectures": ["X"], "model_type": "gemma3_text", "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 300, "max_position_embeddings": 128,
    "rope_theta": 1e4, "rope_local_base_freq": 1e3, "rms_norm_eps": 1e-6, "hidden_act": "silu",
    "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": true, "attention_bias": false,
    "mlp_bias": false, "sliding_window": 8, "sliding_window_pattern": 2, "layer_types":
    ["full_attention", "sliding_attention", "full_attention"], "query_pre_attn_scalar": 16,
    "attn_logit_softcapping": null, "use_sliding_window": false, "torch_dtype": "bfloat16",
    "weight_bits": 1, "input_bits": 8, "bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
    "original_max_position_embeddings": 64}, "rope_parameters": {"full_attention": {"rope_theta": 5,
    "type": "linear", "factor": 2}, "sliding_attention": {"rope_type": "default"}},
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
    "quantization_mode": "online", "modules_to_not_convert": ["lm_head"], "use_rms_norm": false,
    "rms_norm_eps": 1e-6}, "tritburn": {"sub_norm": "all", "norm_eps": 1e-5}}"#;

/// What is accepted can be asked everything.
fn ask(text: &str) {
    let Ok(config) = ModelConfig::from_json(text) else {
        return;
    };
    for i in [0, config.num_hidden_layers - 1] {
        let angles = config.layer_inv_freq(i);
        assert!(angles.iter().all(|a| a.is_finite()), "{angles:?}");
        assert_ne!(config.layer_window(i), Some(0));
    }
    for scale in [config.embed_scale(), config.attention_scale()] {
        assert!(scale > 0.0 && scale.is_finite(), "{scale}");
    }
    assert!(config.q_dim() > 0 && config.kv_dim() > 0);
    let again = ModelConfig::from_json(&serde_json::to_string(&config).unwrap());
    assert!(again.is_ok(), "{again:?}");
}

#[test]
fn a_full_configuration_is_accepted() {
    assert!(ModelConfig::from_json(FULL).is_ok());
}

#[test]
fn numbers_outside_f32_are_refused() {
    for (field, value) in [
        ("query_pre_attn_scalar", "2.5e100"),
        ("query_pre_attn_scalar", "1e-40"),
        ("rope_theta", "1e39"),
        ("rope_local_base_freq", "1e-300"),
        ("rms_norm_eps", "1e-60"),
    ] {
        let mut map: serde_json::Map<_, _> = serde_json::from_str(FULL).unwrap();
        map.remove("rope_parameters");
        map.insert(field.into(), serde_json::from_str(value).unwrap());
        let error = ModelConfig::from_json(&serde_json::Value::Object(map).to_string());
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains(field) && error.contains("fit in f32"),
            "{error}"
        );
    }
}

#[test]
fn widths_that_cannot_be_counted_do_not_become_small_ones() {
    for field in ["num_attention_heads", "num_key_value_heads", "head_dim"] {
        let mut map: serde_json::Map<_, _> = serde_json::from_str(FULL).unwrap();
        map.insert(field.into(), (1u64 << 60).into());
        let error = ModelConfig::from_json(&serde_json::Value::Object(map).to_string());
        assert!(error.is_err(), "{field}");
    }
    let config = ModelConfig {
        num_attention_heads: 1 << 60,
        num_key_value_heads: 1 << 60,
        head_dim: Some(16),
        ..ModelConfig::default()
    };
    assert_eq!([config.q_dim(), config.kv_dim()], [usize::MAX; 2]);
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{Value, json};
    let families = [
        "llama",
        "bitnet",
        "qwen2",
        "qwen3",
        "gemma3_text",
        "silu",
        "llama3",
        "linear",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0..300u64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(families.to_vec()).prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([1, "x", null])),
        Just(json!({"rope_type": "linear", "factor": 1e308})),
    ]
}

proptest! {
    #[test]
    fn values_that_nobody_expects(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..4),
    ) {
        let mut map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(FULL).unwrap();
        for (at, value) in changes {
            let key = map.keys().nth(at.index(map.len())).unwrap().clone();
            map.insert(key, value);
        }
        ask(&serde_json::Value::Object(map).to_string());
    }

    #[test]
    fn bytes_that_nobody_expects(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = FULL.as_bytes().to_vec();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        ask(&String::from_utf8_lossy(&bytes));
    }
}
