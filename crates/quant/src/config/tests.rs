#![allow(clippy::unwrap_used)]
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
        r#", "mlp_bias": true, "attention_bias": true, "head_dim": 3, "rms_norm_eps": 0,
            "rope_scaling": {"rope_type": "llama3"}"#,
    )
    .unwrap_err();
    for word in [
        "mlp_bias",
        "attention_bias",
        "head_dim",
        "rms_norm_eps",
        "llama3",
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
    let q = r#", "quantization_config": {"quant_method": "bitnet", "use_rms_norm": true}"#;
    assert!(parse(q).unwrap_err().contains("use_rms_norm"));
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
