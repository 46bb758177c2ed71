//! `config.json` of a model folder: the one description of an architecture that training and
//! inference share.
//!
//! Field names are those of Hugging Face. What Hugging Face has no word for (a norm in front of
//! every projection) goes under the key `tritburn`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{QuantError, Result};
use crate::scheme::QuantScheme;

/// Gate activation of the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HiddenAct {
    /// `x · σ(x)`, as in Llama.
    #[serde(rename = "silu")]
    Silu,
    /// `max(x, 0)²`, as in BitNet b1.58 2B4T (ReLU²GLU).
    #[serde(rename = "relu2")]
    Relu2,
}

/// Where extra RMSNorms stand, beside the two pre-norms of every block.
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

/// How ternary weights are stored (`quantization_config.quantization_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuantizationMode {
    /// Packed uint8 codes beside a `weight_scale`.
    #[default]
    Offline,
    /// Full-precision master weights, quantised in the forward pass.
    Online,
}

/// Which convention `weight_scale` follows (`quantization_config.linear_class`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinearClass {
    /// `weight_scale` = 1 / absmean; the output is divided by it.
    #[default]
    BitLinear,
    /// `weight_scale` = absmean; the output is multiplied by it.
    AutoBitLinear,
}

/// `quantization_config` of a BitNet checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantizationConfig {
    /// Always `bitnet`.
    pub quant_method: String,
    /// Convention of `weight_scale`.
    #[serde(default)]
    pub linear_class: LinearClass,
    /// Packed codes or master weights.
    #[serde(default)]
    pub quantization_mode: QuantizationMode,
    /// Modules that stay in full precision.
    #[serde(default)]
    pub modules_to_not_convert: Option<Vec<String>>,
}

impl QuantizationConfig {
    /// The configuration that tritburn writes: absmean scales, `lm_head` untouched.
    #[must_use]
    pub fn bitnet(mode: QuantizationMode) -> Self {
        Self {
            quant_method: "bitnet".into(),
            linear_class: LinearClass::AutoBitLinear,
            quantization_mode: mode,
            modules_to_not_convert: Some(vec!["lm_head".into()]),
        }
    }
}

/// tritburn's own section of `config.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TritburnSection {
    /// Overrides the norm layout that `model_type` implies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_norm: Option<SubNorm>,
    /// Quantisers of a ternary model, where they are not those of BitNet b1.58.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quant: Option<QuantScheme>,
}

/// One decoder-only transformer, as `config.json` states it.
///
/// Unknown keys are ignored, as Hugging Face folders carry many that do not concern us.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Class names, for example `["LlamaForCausalLM"]`.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// `llama` or `bitnet`.
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
    /// Base of the rotary embedding.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f64,
    /// Epsilon of every RMSNorm.
    #[serde(default = "default_rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Gate activation.
    pub hidden_act: HiddenAct,
    /// Whether the output head is the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Whether the attention projections carry a bias. Only `false` is supported.
    #[serde(default)]
    pub attention_bias: bool,
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

fn default_rope_theta() -> f64 {
    10_000.0
}

fn default_rms_norm_eps() -> f64 {
    1e-6
}

/// Brings what transformers versions write in different ways to the form of [`ModelConfig`], and
/// reports what the model needs but no field of it can say.
fn modernise(map: &mut Map<String, Value>) -> Vec<String> {
    let mut problems = Vec::new();
    // transformers 5 has `rope_parameters`, earlier versions `rope_theta` and `rope_scaling`.
    for key in ["rope_parameters", "rope_scaling"] {
        let Some(Value::Object(rope)) = map.get(key) else {
            continue;
        };
        let kind = rope.get("rope_type").or_else(|| rope.get("type"));
        if let Some(kind) = kind.filter(|&k| k != "default") {
            problems.push(format!(
                "`{key}.rope_type` {kind} is not supported; supported is \"default\""
            ));
        }
        if let Some(theta) = rope.get("rope_theta").cloned() {
            map.insert("rope_theta".into(), theta);
        }
    }
    // Llama 3 lists several: the first is the token that ends a text.
    if let Some(Value::Array(ids)) = map.get("eos_token_id") {
        let first = ids.first().cloned().unwrap_or_default();
        map.insert("eos_token_id".into(), first);
    }
    let rms_norm = map
        .get("quantization_config")
        .and_then(|q| q.get("use_rms_norm"));
    if rms_norm == Some(&Value::Bool(true)) {
        problems.push(
            "`quantization_config.use_rms_norm` is true: say `tritburn.sub_norm` = \"all\" and name \
             the norms `….q_proj.norm.weight`"
                .into(),
        );
    }
    if map.get("mlp_bias") == Some(&Value::Bool(true)) {
        problems.push("`mlp_bias` is true: biases are not supported".into());
    }
    problems
}

/// No field may ask for more than this many weights in one tensor: a lying `config.json` must not
/// make the loader allocate without bound.
const MAX_TENSOR_WEIGHTS: usize = 1 << 36;

impl ModelConfig {
    /// Reads and validates `config.json`.
    ///
    /// # Errors
    /// [`QuantError::Io`] where the file cannot be read, [`QuantError::Config`] where it is not
    /// the configuration of a supported model; the message names file and field.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| QuantError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        Self::from_json(&text).map_err(|message| QuantError::config(path, message))
    }

    /// Parses and validates the text of a `config.json` of any transformers version.
    fn from_json(text: &str) -> std::result::Result<Self, String> {
        // Through a map, where the last of two equal keys wins: published BitNet folders repeat
        // `quantization_config`.
        let mut map: Map<String, Value> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let mut problems = modernise(&mut map);
        let config: Self = serde_json::from_value(Value::Object(map)).map_err(|e| e.to_string())?;
        problems.extend(config.problems());
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(problems.join("; "))
        }
    }

    /// Everything that is wrong with these values, one sentence each; empty where all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (name, value) in sizes {
            if value == 0 {
                out.push(format!("`{name}` is 0, it must be at least 1"));
            }
        }
        if !out.is_empty() {
            return out;
        }
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            out.push(format!(
                "`num_attention_heads` {} is no multiple of `num_key_value_heads` {}",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            out.push(format!(
                "`hidden_size` {} is no multiple of `num_attention_heads` {}: set `head_dim`",
                self.hidden_size, self.num_attention_heads
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
        if self.num_hidden_layers > 4096
            || widest
                .checked_mul(self.hidden_size)
                .is_none_or(|n| n > MAX_TENSOR_WEIGHTS)
            || self
                .num_attention_heads
                .checked_mul(head_dim)
                .and_then(|n| n.checked_mul(self.hidden_size))
                .is_none_or(|n| n > MAX_TENSOR_WEIGHTS)
        {
            out.push("the sizes are larger than any supported model".into());
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps > 0.0) {
            out.push(format!(
                "`rms_norm_eps` {} must be positive",
                self.rms_norm_eps
            ));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            out.push(format!("`rope_theta` {} must be positive", self.rope_theta));
        }
        if self.attention_bias {
            out.push("`attention_bias` is true: biases are not supported".into());
        }
        if !matches!(self.model_type.as_str(), "llama" | "bitnet") {
            out.push(format!(
                "`model_type` \"{}\" is not supported; supported are llama, bitnet",
                self.model_type
            ));
        }
        if let Some(scheme) = self.quant_scheme() {
            let found = self.quant_problems(&scheme);
            out.extend(found.into_iter().map(|p| format!("`tritburn`: {p}")));
        } else if self.tritburn.as_ref().is_some_and(|t| t.quant.is_some()) {
            out.push("`tritburn.quant` needs a `quantization_config`".into());
        }
        if let Some(q) = &self.quantization_config
            && q.quant_method != "bitnet"
        {
            out.push(format!(
                "`quantization_config.quant_method` \"{}\" is not supported; supported is bitnet",
                q.quant_method
            ));
        }
        out
    }

    /// Width of one head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Width of all query heads together: the input of `o_proj`.
    #[must_use]
    pub fn q_dim(&self) -> usize {
        self.num_attention_heads * self.head_dim()
    }

    /// Width of all key (or value) heads together.
    #[must_use]
    pub fn kv_dim(&self) -> usize {
        self.num_key_value_heads * self.head_dim()
    }

    /// Where extra norms stand: the `tritburn` section, else what `model_type` implies.
    #[must_use]
    pub fn sub_norm(&self) -> SubNorm {
        let implied = if self.model_type == "bitnet" {
            SubNorm::SubLn
        } else {
            SubNorm::None
        };
        self.tritburn
            .as_ref()
            .and_then(|t| t.sub_norm)
            .unwrap_or(implied)
    }

    /// Sets the norm layout and the class names that Hugging Face knows it by.
    pub fn set_sub_norm(&mut self, sub_norm: SubNorm) {
        let (model_type, class) = match sub_norm {
            SubNorm::SubLn => ("bitnet", "BitNetForCausalLM"),
            SubNorm::None | SubNorm::All | SubNorm::LayerNorm => ("llama", "LlamaForCausalLM"),
        };
        self.model_type = model_type.into();
        self.architectures = vec![class.into()];
        let implied = matches!(sub_norm, SubNorm::None | SubNorm::SubLn);
        self.set_section(|t| t.sub_norm = (!implied).then_some(sub_norm));
    }

    /// Quantisers of the projections; none where they are in full precision.
    #[must_use]
    pub fn quant_scheme(&self) -> Option<QuantScheme> {
        let named = self.tritburn.as_ref().and_then(|t| t.quant);
        self.is_ternary().then(|| named.unwrap_or_default())
    }

    /// Makes the model quantised by `scheme`, with weights stored as `mode` says, or full precision.
    pub fn set_quant(&mut self, scheme: Option<QuantScheme>, mode: QuantizationMode) {
        self.quantization_config = scheme.map(|_| QuantizationConfig::bitnet(mode));
        self.set_section(|t| t.quant = scheme.filter(|s| *s != QuantScheme::default()));
    }

    fn set_section(&mut self, change: impl FnOnce(&mut TritburnSection)) {
        let mut section = self.tritburn.take().unwrap_or_default();
        change(&mut section);
        self.tritburn = (section != TritburnSection::default()).then_some(section);
    }

    /// What of the quantisers does not fit this architecture, each with its field.
    #[must_use]
    pub fn quant_problems(&self, scheme: &QuantScheme) -> Vec<String> {
        let (d, q, ffn) = (self.hidden_size, self.q_dim(), self.intermediate_size);
        let mut out = Vec::new();
        for (name, width, act) in [
            ("qkv", d, scheme.qkv),
            ("o", q, scheme.o),
            ("gate_up", d, scheme.gate_up),
            ("down", ffn, scheme.down),
        ] {
            out.extend(act.problem(width).map(|p| format!("quant.{name}: {p}")));
            out.extend(
                scheme
                    .weights
                    .problem(width)
                    .map(|p| format!("quant.weights: {p} ({name})")),
            );
        }
        for (name, bits) in [("q_bits", scheme.q_bits), ("kv_bits", scheme.kv_bits)] {
            if bits.is_some_and(|b| !crate::kv::BITS.contains(&b)) {
                out.push(format!("quant.{name}: must be 8, 4 or 3"));
            }
        }
        out
    }

    /// Whether the projections inside the blocks are ternary.
    #[must_use]
    pub fn is_ternary(&self) -> bool {
        self.quantization_config.is_some()
    }
}

#[cfg(test)]
mod tests;
