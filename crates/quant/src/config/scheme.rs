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
        self.quantization_config = scheme.map(|_| QuantizationConfig::bitnet(mode));
        self.set_section(|t| t.quant = scheme.filter(|s| *s != QuantScheme::default()));
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
