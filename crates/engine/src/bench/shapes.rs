//! Shapes of published models, to be filled with random weights.

use tritburn_quant::config::{
    HiddenAct, ModelConfig, QuantizationConfig, QuantizationMode, SubNorm,
};
use tritburn_quant::scheme::Preset;

use crate::error::{EngineError, Result};

/// Names that [`shape`] knows.
pub const SHAPES: [&str; 5] = [
    "bitnet-2b4t",
    "bitnet-2b4t-a4.8",
    "bitnet-large",
    "qwen3-0.6b",
    "smollm2-135m",
];

/// Sizes as the `config.json` of the published model has them.
struct Shape {
    model_type: &'static str,
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: Option<usize>,
    vocab: usize,
    context: usize,
    theta: f64,
    eps: f64,
    act: HiddenAct,
    sub_norm: SubNorm,
}

/// The configuration of a published model with ternary projections.
///
/// `bitnet-2b4t` is microsoft/bitnet-b1.58-2B-4T, `bitnet-2b4t-a4.8` the same with the activations of
/// BitNet a4.8 (arXiv 2411.04965), `bitnet-large` 1bitLLM/bitnet_b1_58-large,
/// `qwen3-0.6b` Qwen/Qwen3-0.6B, `smollm2-135m` HuggingFaceTB/SmolLM2-135M.
///
/// # Errors
/// [`EngineError::Bench`] where there is none of that name.
pub fn shape(name: &str) -> Result<ModelConfig> {
    let s = match name {
        "bitnet-2b4t" | "bitnet-2b4t-a4.8" => Shape {
            model_type: "bitnet",
            hidden: 2560,
            ffn: 6912,
            layers: 30,
            heads: 20,
            kv_heads: 5,
            head_dim: None,
            vocab: 128_256,
            context: 4096,
            theta: 500_000.0,
            eps: 1e-5,
            act: HiddenAct::Relu2,
            sub_norm: SubNorm::SubLn,
        },
        "bitnet-large" => Shape {
            model_type: "bitnet",
            hidden: 1536,
            ffn: 4096,
            layers: 24,
            heads: 16,
            kv_heads: 16,
            head_dim: None,
            vocab: 32_002,
            context: 2048,
            theta: 10_000.0,
            eps: 1e-5,
            act: HiddenAct::Silu,
            sub_norm: SubNorm::SubLn,
        },
        "smollm2-135m" => Shape {
            model_type: "llama",
            hidden: 576,
            ffn: 1536,
            layers: 30,
            heads: 9,
            kv_heads: 3,
            head_dim: None,
            vocab: 49_152,
            context: 8192,
            theta: 100_000.0,
            eps: 1e-5,
            act: HiddenAct::Silu,
            sub_norm: SubNorm::None,
        },
        "qwen3-0.6b" => Shape {
            model_type: "qwen3",
            hidden: 1024,
            ffn: 3072,
            layers: 28,
            heads: 16,
            kv_heads: 8,
            head_dim: Some(128),
            vocab: 151_936,
            context: 40_960,
            theta: 1e6,
            eps: 1e-6,
            act: HiddenAct::Silu,
            sub_norm: SubNorm::None,
        },
        _ => {
            return Err(EngineError::Bench(format!(
                "unknown shape \"{name}\"; known are {}",
                SHAPES.join(", ")
            )));
        }
    };
    let mut config = ModelConfig {
        model_type: s.model_type.into(),
        hidden_size: s.hidden,
        intermediate_size: s.ffn,
        num_hidden_layers: s.layers,
        num_attention_heads: s.heads,
        num_key_value_heads: s.kv_heads,
        head_dim: s.head_dim,
        vocab_size: s.vocab,
        max_position_embeddings: s.context,
        rope_theta: s.theta,
        rms_norm_eps: s.eps,
        hidden_act: s.act,
        tie_word_embeddings: true,
        quantization_config: Some(QuantizationConfig::bitnet(QuantizationMode::Offline)),
        ..ModelConfig::default()
    };
    config.set_sub_norm(s.sub_norm);
    if name == "bitnet-2b4t-a4.8" {
        config.set_quant(Some(Preset::A48.into()), QuantizationMode::Offline);
    }
    Ok(config)
}
