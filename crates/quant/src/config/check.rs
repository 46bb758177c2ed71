//! Which configurations make no model.

use super::features::Family;
use super::{LayerType, ModelConfig, SubNorm};

/// No field may ask for more than this many weights in one tensor: a lying `config.json` must not
/// make the loader allocate without bound.
const MAX_TENSOR_WEIGHTS: usize = 1 << 36;
/// More layers than any model has.
pub(super) const MAX_LAYERS: usize = 4096;

/// Whether models can compute with `value`, which they do in f32: positive, finite and not
/// denormal there.
pub(super) fn fits_f32(value: f64) -> bool {
    let value = value as f32;
    value.is_normal() && value > 0.0
}

impl ModelConfig {
    /// Everything that is wrong with these values, one sentence each; empty where all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut out = self.empty_sizes();
        // Sizes of 0 make no sense of what follows.
        if out.is_empty() {
            self.shapes(&mut out);
            self.quant_problems(&mut out);
        }
        self.numbers(&mut out);
        self.layers(&mut out);
        if Family::of(&self.model_type).is_none() {
            out.push(format!(
                "`model_type` \"{}\" is not supported; supported are {}",
                self.model_type,
                Family::NAMES
            ));
        }
        if let Some(scaling) = self.rope_scaling {
            out.extend(scaling.problems());
        }
        if let Some(bits) = self.weight_bits.filter(|&b| b != 1) {
            out.push(format!("`weight_bits` is {bits}, supported is 1"));
        }
        self.quantization(&mut out);
        out
    }

    fn empty_sizes(&self) -> Vec<String> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        let empty = sizes.iter().filter(|(_, value)| *value == 0);
        empty
            .map(|(name, _)| format!("`{name}` is 0, it must be at least 1"))
            .collect()
    }

    fn shapes(&self, out: &mut Vec<String>) {
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(kv_heads) {
            out.push(format!(
                "`num_attention_heads` {heads} is no multiple of `num_key_value_heads` {kv_heads}"
            ));
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(heads) {
            out.push(format!(
                "`hidden_size` {} is no multiple of `num_attention_heads` {heads}: set `head_dim`",
                self.hidden_size
            ));
        }
        let head_dim = self.head_dim();
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            out.push(format!("`head_dim` {head_dim} must be even and at least 2"));
        }
        let widest = self
            .intermediate_size
            .max(self.vocab_size)
            .max(self.hidden_size);
        let too_many = |n: Option<usize>| n.is_none_or(|n| n > MAX_TENSOR_WEIGHTS);
        let attention = heads.checked_mul(head_dim);
        if self.num_hidden_layers > MAX_LAYERS
            || too_many(widest.checked_mul(self.hidden_size))
            || too_many(attention.and_then(|n| n.checked_mul(self.hidden_size)))
        {
            out.push("the sizes are larger than any supported model".into());
        }
    }

    fn numbers(&self, out: &mut Vec<String>) {
        for (name, value) in [
            ("rms_norm_eps", Some(self.rms_norm_eps)),
            ("rope_theta", Some(self.rope_theta)),
            ("rope_local_base_freq", self.rope_local_base_freq),
            ("query_pre_attn_scalar", self.query_pre_attn_scalar),
            (
                "tritburn.norm_eps",
                self.tritburn.as_ref().and_then(|t| t.norm_eps),
            ),
        ] {
            if let Some(value) = value.filter(|v| !fits_f32(*v)) {
                out.push(format!("`{name}` {value} must be positive and fit in f32"));
            }
        }
    }

    fn layers(&self, out: &mut Vec<String>) {
        let Some(types) = &self.layer_types else {
            return;
        };
        if types.len() != self.num_hidden_layers {
            out.push(format!(
                "`layer_types` names {} layers, but `num_hidden_layers` is {}",
                types.len(),
                self.num_hidden_layers
            ));
        }
        if types.contains(&LayerType::SlidingAttention) && self.sliding_window.unwrap_or(0) == 0 {
            out.push(
                "`sliding_window` must be at least 1 where `layer_types` has sliding_attention"
                    .into(),
            );
        }
    }

    fn quantization(&self, out: &mut Vec<String>) {
        let Some(quantization) = &self.quantization_config else {
            return;
        };
        out.extend(quantization.problems());
        let backbone = Self {
            quantization_config: None,
            ..self.clone()
        };
        if quantization.use_rms_norm && backbone.sub_norm() != SubNorm::None {
            out.push(
                "`quantization_config.use_rms_norm` is true in a model that has other extra norms: \
                 one kind is supported"
                    .into(),
            );
        }
    }
}
