//! What a configuration means for the computation.

use super::{HiddenAct, LayerType, ModelConfig, SubNorm};

/// The backbones that are supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Bitnet,
    Qwen2,
    Qwen3,
    Gemma3,
}

impl Family {
    /// Values of `model_type`.
    pub(super) const NAMES: &str = "llama, bitnet, qwen2, qwen3, gemma3_text";

    pub(super) fn of(model_type: &str) -> Option<Self> {
        match model_type {
            "llama" => Some(Self::Llama),
            "bitnet" => Some(Self::Bitnet),
            "qwen2" => Some(Self::Qwen2),
            "qwen3" => Some(Self::Qwen3),
            "gemma3_text" => Some(Self::Gemma3),
            _ => None,
        }
    }
}

impl ModelConfig {
    fn is(&self, family: Family) -> bool {
        Family::of(&self.model_type) == Some(family)
    }

    /// Width of one head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Width of all query heads together: the input of `o_proj`. The largest number stands for all that
    /// cannot be counted.
    #[must_use]
    pub fn q_dim(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.head_dim())
    }

    /// Width of all key (or value) heads together, counted as [`Self::q_dim`].
    #[must_use]
    pub fn kv_dim(&self) -> usize {
        self.num_key_value_heads.saturating_mul(self.head_dim())
    }

    /// Whether `q_proj`, `k_proj` and `v_proj` add a bias.
    #[must_use]
    pub fn qkv_bias(&self) -> bool {
        self.attention_bias || self.is(Family::Qwen2)
    }

    /// Whether `o_proj` adds a bias.
    #[must_use]
    pub fn o_bias(&self) -> bool {
        self.attention_bias && !self.is(Family::Qwen2)
    }

    /// Whether every head of queries and keys goes through an RMSNorm of width `head_dim` before
    /// it is turned: `self_attn.q_norm` and `self_attn.k_norm`.
    #[must_use]
    pub fn qk_norm(&self) -> bool {
        self.is(Family::Qwen3) || self.is(Family::Gemma3)
    }

    /// Added to the stored weights of the backbone's RMSNorms: 1 where a norm multiplies by
    /// `1 + weight`, else 0. The extra norms of [`Self::sub_norm`] multiply by `weight` everywhere.
    #[must_use]
    pub fn norm_offset(&self) -> f32 {
        if self.is(Family::Gemma3) { 1.0 } else { 0.0 }
    }

    /// Whether the results of attention and feed-forward block are normalised before they are
    /// added to the residual stream. Tensors of a layer are then `input_layernorm`,
    /// `post_attention_layernorm` (on the result), `pre_feedforward_layernorm` and
    /// `post_feedforward_layernorm` (on the result); else `input_layernorm` and
    /// `post_attention_layernorm`, which is the norm in front of the feed-forward block.
    #[must_use]
    pub fn post_norms(&self) -> bool {
        self.is(Family::Gemma3)
    }

    /// Factor of the embedding: √hidden_size for Gemma, rounded to the type of the published
    /// weights as transformers does, else 1. The output head does not have it.
    #[must_use]
    pub fn embed_scale(&self) -> f32 {
        if !self.is(Family::Gemma3) {
            return 1.0;
        }
        let scale = (self.hidden_size as f64).sqrt() as f32;
        match self.dtype.as_deref() {
            Some("bfloat16") => half::bf16::from_f32(scale).to_f32(),
            Some("float16") => half::f16::from_f32(scale).to_f32(),
            _ => scale,
        }
    }

    /// Factor of the products of queries and keys.
    #[must_use]
    pub fn attention_scale(&self) -> f32 {
        let width = self.query_pre_attn_scalar;
        1.0 / (width.unwrap_or(self.head_dim() as f64) as f32).sqrt()
    }

    /// How many tokens a token of layer `i` sees, itself among them; `None` where it sees all.
    #[must_use]
    pub fn layer_window(&self, i: usize) -> Option<usize> {
        let kind = self.layer_types.as_ref()?.get(i)?;
        match kind {
            LayerType::FullAttention => None,
            LayerType::SlidingAttention => self.sliding_window,
        }
    }

    /// Where extra norms stand: the `tritburn` section, else what `quantization_config` or
    /// `model_type` imply.
    #[must_use]
    pub fn sub_norm(&self) -> SubNorm {
        let quantization = self.quantization_config.as_ref();
        let implied = if quantization.is_some_and(|q| q.use_rms_norm) {
            SubNorm::All
        } else if self.is(Family::Bitnet) || self.is_1bit_llm() {
            SubNorm::SubLn
        } else {
            SubNorm::None
        };
        let own = self.tritburn.as_ref().and_then(|t| t.sub_norm);
        own.unwrap_or(implied)
    }

    /// Names of the norms of [`SubNorm::SubLn`]: in front of `self_attn.o_proj` and of
    /// `mlp.down_proj`.
    #[must_use]
    pub fn sub_norm_names(&self) -> [&'static str; 2] {
        if self.is_1bit_llm() {
            ["self_attn.inner_attn_ln", "mlp.ffn_layernorm"]
        } else {
            ["self_attn.attn_sub_norm", "mlp.ffn_sub_norm"]
        }
    }

    /// Name after that of a projection, and epsilon, of the norms of [`SubNorm::All`].
    #[must_use]
    pub fn projection_norm(&self) -> (&'static str, f64) {
        match &self.quantization_config {
            Some(q) if q.use_rms_norm => ("rms_norm", q.rms_norm_eps),
            _ => {
                let own = self.tritburn.as_ref().and_then(|t| t.norm_eps);
                ("norm", own.unwrap_or(self.rms_norm_eps))
            }
        }
    }

    /// Sets the norm layout and, for Llama and BitNet, the class names that Hugging Face knows it
    /// by; other backbones keep theirs and say it in the `tritburn` section.
    pub fn set_sub_norm(&mut self, sub_norm: SubNorm) {
        let other = !matches!(
            Family::of(&self.model_type),
            Some(Family::Llama | Family::Bitnet) | None
        );
        if other {
            return self.set_section(|t| {
                t.sub_norm = Some(sub_norm).filter(|s| *s != SubNorm::None);
            });
        }
        let (model_type, class) = match sub_norm {
            SubNorm::SubLn => ("bitnet", "BitNetForCausalLM"),
            SubNorm::None | SubNorm::All | SubNorm::LayerNorm => ("llama", "LlamaForCausalLM"),
        };
        self.model_type = model_type.into();
        self.architectures = vec![class.into()];
        self.weight_bits = None;
        let implied = matches!(sub_norm, SubNorm::None | SubNorm::SubLn);
        self.set_section(|t| t.sub_norm = (!implied).then_some(sub_norm));
    }

    /// Whether the projections inside the blocks are ternary.
    #[must_use]
    pub fn is_ternary(&self) -> bool {
        self.quantization_config.is_some()
    }

    fn is_1bit_llm(&self) -> bool {
        self.weight_bits == Some(1)
    }

    /// The gate that transformers gives this family where the file names none.
    pub(super) fn default_act(family: Family) -> HiddenAct {
        match family {
            Family::Bitnet => HiddenAct::Relu2,
            Family::Gemma3 => HiddenAct::GeluTanh,
            Family::Llama | Family::Qwen2 | Family::Qwen3 => HiddenAct::Silu,
        }
    }
}
