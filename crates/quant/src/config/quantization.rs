//! `quantization_config`: how the ternary projections of a checkpoint are stored.

use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Whether an RMSNorm named `….q_proj.rms_norm.weight` and so on stands in front of every
    /// ternary projection.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_rms_norm: bool,
    /// Epsilon of these norms.
    #[serde(default = "super::defaults::rms_norm_eps")]
    pub rms_norm_eps: f64,
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
            use_rms_norm: false,
            rms_norm_eps: super::defaults::rms_norm_eps(),
        }
    }

    /// Whether `modules_to_not_convert` names `module` (`model.layers.0.mlp.up_proj`) or a module
    /// that contains it.
    #[must_use]
    pub fn excludes(&self, module: &str) -> bool {
        let module = format!(".{module}.");
        let mut names = self.modules_to_not_convert.iter().flatten();
        names.any(|n| module.contains(&format!(".{n}.")))
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.quant_method != "bitnet" {
            out.push(format!(
                "`quantization_config.quant_method` \"{}\" is not supported; supported is bitnet",
                self.quant_method
            ));
        }
        // transformers' `BitLinear` knows packed weights only and does not look at the mode.
        if self.linear_class == LinearClass::BitLinear
            && self.quantization_mode == QuantizationMode::Online
        {
            out.push(
                "`quantization_config.quantization_mode` \"online\" goes with `linear_class` \
                 \"autobitlinear\" only; say which of the two is meant"
                    .into(),
            );
        }
        if !super::check::fits_f32(self.rms_norm_eps) {
            out.push(format!(
                "`quantization_config.rms_norm_eps` {} must be positive and fit in f32",
                self.rms_norm_eps
            ));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusion_is_by_whole_names() {
        let mut q = QuantizationConfig::bitnet(QuantizationMode::Offline);
        let module = "model.layers.1.self_attn.q_proj";
        assert!(!q.excludes(module));
        for (name, excluded) in [
            ("q_proj", true),
            ("model.layers.1", true),
            ("model.layers", true),
            ("proj", false),
            ("model.layers.11", false),
        ] {
            q.modules_to_not_convert = Some(vec!["lm_head".into(), name.into()]);
            assert_eq!(q.excludes(module), excluded, "{name}");
        }
    }
}
