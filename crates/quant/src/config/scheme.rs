//! The quantisers of a model.

use super::{ModelConfig, QuantizationConfig, QuantizationMode, TritburnSection};
use crate::scheme::QuantScheme;

impl ModelConfig {
    /// Quantisers of the projections; none where they are in full precision.
    #[must_use]
    pub fn quant_scheme(&self) -> Option<QuantScheme> {
        let named = self.tritburn.as_ref().and_then(|t| t.quant);
        self.is_ternary().then(|| named.unwrap_or_default())
    }

    /// Makes the model quantised by `scheme`, with weights stored as `mode` says, or full precision.
    pub fn set_quant(&mut self, scheme: Option<QuantScheme>, mode: QuantizationMode) {
        let kept = self.quantization_config.take();
        let kept = kept.and_then(|q| q.modules_to_not_convert);
        self.quantization_config = scheme.map(|_| {
            let bitnet = QuantizationConfig::bitnet(mode);
            QuantizationConfig {
                modules_to_not_convert: kept.or_else(|| bitnet.modules_to_not_convert.clone()),
                ..bitnet
            }
        });
        self.set_section(|t| t.quant = scheme.filter(|s| *s != QuantScheme::default()));
    }

    /// Says in our own words what a published family says in its own: names of norms, and ternary
    /// weights without a `quantization_config`. The computation stays the same.
    pub fn normalise(&mut self) {
        let (sub_norm, scheme) = (self.sub_norm(), self.quant_scheme());
        let (eps, backbone_eps) = (self.projection_norm().1, self.rms_norm_eps);
        self.weight_bits = None;
        self.set_quant(scheme, QuantizationMode::Online);
        if self.sub_norm() != sub_norm {
            self.set_sub_norm(sub_norm);
        }
        self.set_section(|t| t.norm_eps = (eps != backbone_eps).then_some(eps));
    }

    pub(super) fn set_section(&mut self, change: impl FnOnce(&mut TritburnSection)) {
        let mut section = self.tritburn.take().unwrap_or_default();
        change(&mut section);
        self.tritburn = (section != TritburnSection::default()).then_some(section);
    }

    /// What of a scheme does not fit this architecture, each with its field.
    #[must_use]
    pub fn scheme_problems(&self, scheme: &QuantScheme) -> Vec<String> {
        let (d, q, ffn) = (self.hidden_size, self.q_dim(), self.intermediate_size);
        let mut out = Vec::new();
        for (name, width, act) in [
            ("qkv", d, scheme.qkv),
            ("o", q, scheme.o),
            ("gate_up", d, scheme.gate_up),
            ("down", ffn, scheme.down),
        ] {
            let weights = scheme.weights.problem(width);
            out.extend(act.problem(width).map(|p| format!("quant.{name}: {p}")));
            out.extend(weights.map(|p| format!("quant.weights: {p} ({name})")));
        }
        for (name, bits) in [("q_bits", scheme.q_bits), ("kv_bits", scheme.kv_bits)] {
            if bits.is_some_and(|b| !crate::kv::BITS.contains(&b)) {
                out.push(format!("quant.{name}: must be 8, 4 or 3"));
            }
        }
        out
    }

    /// What of the model's own quantisers is wrong.
    pub(super) fn quant_problems(&self, out: &mut Vec<String>) {
        if let Some(scheme) = self.quant_scheme() {
            let found = self.scheme_problems(&scheme);
            out.extend(found.into_iter().map(|p| format!("`tritburn`: {p}")));
        } else if self.tritburn.as_ref().is_some_and(|t| t.quant.is_some()) {
            out.push("`tritburn.quant` needs a `quantization_config`".into());
        }
    }
}
