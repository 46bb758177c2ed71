//! `config.json` of a model folder: the one description of an architecture that training and
//! inference share.
//!
//! Field names are those of Hugging Face. What Hugging Face has no word for (a norm in front of
//! every projection) goes under the key `tritburn`. What a field means for the computation is said
//! by the methods of [`ModelConfig`] (`qk_norm()`, `layer_window(i)` and so on), which are all that
//! a forward pass needs: no other code asks for `model_type`.

mod check;
mod defaults;
mod dit;
mod features;
mod parse;
mod quantization;
mod rope;
mod scheme;

use serde::{Deserialize, Serialize};

use crate::scheme::QuantScheme;
pub use dit::{DIT, DitConfig, NoiseKind, Ternary};
pub use quantization::{LinearClass, QuantizationConfig, QuantizationMode};
pub use rope::RopeScaling;

/// Gate activation of the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum HiddenAct {
    /// `x · σ(x)`, as in Llama.
    #[default]
    #[serde(rename = "silu")]
    Silu,
    /// `max(x, 0)²`, as in BitNet b1.58 2B4T (ReLU²GLU).
    #[serde(rename = "relu2")]
    Relu2,
    /// `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`, as in Gemma (GeGLU).
    #[serde(rename = "gelu_pytorch_tanh")]
    GeluTanh,
}

/// Where extra RMSNorms stand, beside those that the backbone has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubNorm {
    /// No extra norm: stock Llama.
    #[default]
    None,
    /// `attn_sub_norm` before `o_proj` and `ffn_sub_norm` before `down_proj` (BitDistill Eq. 4–5).
    SubLn,
    /// A norm in front of every projection, named `….q_proj.norm.weight` and so on: the layout of
    /// the published BitDistill code.
    All,
    /// A LayerNorm without parameters in front of every projection: BitNet b1, Eq. 11–12.
    LayerNorm,
}

/// What the attention of a layer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    /// All tokens so far.
    FullAttention,
    /// The last `sliding_window` tokens, the own one among them.
    SlidingAttention,
}

/// tritburn's own section of `config.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TritburnSection {
    /// Overrides the norm layout that `model_type` implies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_norm: Option<SubNorm>,
    /// Epsilon of the norms in front of every projection, where it is not `rms_norm_eps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm_eps: Option<f64>,
    /// Quantisers of a ternary model, where they are not those of BitNet b1.58.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quant: Option<QuantScheme>,
}

/// One decoder-only transformer, as `config.json` states it.
///
/// Unknown keys are ignored, as Hugging Face folders carry many that do not concern us. The
/// default has sizes of 0, which [`Self::problems`] refuses: it is there to fill up literals.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Class names, for example `["LlamaForCausalLM"]`.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// `llama`, `qwen2`, `qwen3`, `gemma3_text` or `bitnet`.
    pub model_type: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Number of transformer blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; each serves `num_attention_heads / num_key_value_heads`
    /// query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; `hidden_size / num_attention_heads` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Longest sequence the model was made for.
    pub max_position_embeddings: usize,
    /// Base of the rotary embedding of layers that see all tokens.
    #[serde(default = "defaults::rope_theta")]
    pub rope_theta: f64,
    /// How the frequencies of these layers are stretched; `None` leaves them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Base of the rotary embedding of layers with a sliding window; `rope_theta` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_local_base_freq: Option<f64>,
    /// Epsilon of every RMSNorm.
    #[serde(default = "defaults::rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Gate activation.
    pub hidden_act: HiddenAct,
    /// Whether the output head is the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Whether q, k, v and o carry a bias. Qwen2 has one on q, k and v without saying so.
    #[serde(default)]
    pub attention_bias: bool,
    /// Tokens that a layer of [`LayerType::SlidingAttention`] sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// One for each layer; all see everything where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<LayerType>>,
    /// Scores are divided by its square root; `head_dim` where absent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "defaults::whole"
    )]
    pub query_pre_attn_scalar: Option<f64>,
    /// Type of the published weights, as Hugging Face spells it: `bfloat16` and so on.
    #[serde(
        default,
        rename = "torch_dtype",
        alias = "dtype",
        skip_serializing_if = "Option::is_none"
    )]
    pub dtype: Option<String>,
    /// 1 in the checkpoints of 1bitLLM: ternary projections from master weights, with sub-norms of
    /// other [names](Self::sub_norm_names).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_bits: Option<u32>,
    /// Token that starts a sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    /// Token that ends a sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<u32>,
    /// Token that fills short rows of a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<u32>,
    /// Present where projections are ternary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization_config: Option<QuantizationConfig>,
    /// tritburn's own keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tritburn: Option<TritburnSection>,
}

#[cfg(test)]
mod tests;
