//! Shapes of published models, to be filled with random weights.

use tritburn_quant::config::{
    HiddenAct, ModelConfig, QuantizationConfig, QuantizationMode, SubNorm,
};

use crate::error::{EngineError, Result};

/// Names that [`shape`] knows.
pub const SHAPES: [&str; 3] = ["bitnet-2b4t", "bitnet-large", "smollm2-135m"];

/// Sizes as the `config.json` of the published model has them.
struct Shape {
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    vocab: usize,
    context: usize,
    theta: f64,
    act: HiddenAct,
    sub_norm: SubNorm,
}

/// The configuration of a published model with ternary projections.
///
/// `bitnet-2b4t` is microsoft/bitnet-b1.58-2B-4T, `bitnet-large` 1bitLLM/bitnet_b1_58-large,
/// `smollm2-135m` HuggingFaceTB/SmolLM2-135M.
///
/// # Errors
/// [`EngineError::Bench`] where there is none of that name.
pub fn shape(name: &str) -> Result<ModelConfig> {
    let s = match name {
        "bitnet-2b4t" => Shape {
            hidden: 2560,
            ffn: 6912,
            layers: 30,
            heads: 20,
            kv_heads: 5,
            vocab: 128_256,
            context: 4096,
            theta: 500_000.0,
            act: HiddenAct::Relu2,
            sub_norm: SubNorm::SubLn,
        },
        "bitnet-large" => Shape {
            hidden: 1536,
            ffn: 4096,
            layers: 24,
            heads: 16,
            kv_heads: 16,
            vocab: 32_002,
            context: 2048,
            theta: 10_000.0,
            act: HiddenAct::Silu,
            sub_norm: SubNorm::SubLn,
        },
        "smollm2-135m" => Shape {
            hidden: 576,
            ffn: 1536,
            layers: 30,
            heads: 9,
            kv_heads: 3,
            vocab: 49_152,
            context: 8192,
            theta: 100_000.0,
            act: HiddenAct::Silu,
            sub_norm: SubNorm::None,
        },
        "qwen3-0.6b" => {
            return Err(EngineError::Bench(
                "shape \"qwen3-0.6b\" needs norms of queries and keys, which are not supported yet"
                    .into(),
            ));
        }
        _ => {
            return Err(EngineError::Bench(format!(
                "unknown shape \"{name}\"; known are {}",
                SHAPES.join(", ")
            )));
        }
    };
    let mut config = ModelConfig {
        architectures: Vec::new(),
        model_type: String::new(),
        hidden_size: s.hidden,
        intermediate_size: s.ffn,
        num_hidden_layers: s.layers,
        num_attention_heads: s.heads,
        num_key_value_heads: s.kv_heads,
        head_dim: None,
        vocab_size: s.vocab,
        max_position_embeddings: s.context,
        rope_theta: s.theta,
        rms_norm_eps: 1e-5,
        hidden_act: s.act,
        tie_word_embeddings: true,
        attention_bias: false,
        bos_token_id: None,
        eos_token_id: None,
        pad_token_id: None,
        quantization_config: Some(QuantizationConfig::bitnet(QuantizationMode::Offline)),
        tritburn: None,
    };
    config.set_sub_norm(s.sub_norm);
    Ok(config)
}
