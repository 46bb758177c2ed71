//! Frequencies of the rotary position embedding (arXiv 2104.09864).

use serde::{Deserialize, Serialize};

use super::ModelConfig;
use super::check::fits_f32;

/// How frequencies are stretched for contexts longer than those first trained on. Neither kind
/// scales the attention scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// All frequencies are divided by `factor` (arXiv 2306.15595).
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// Low frequencies are divided by `factor`, high ones kept, those between mixed, as Llama 3.1
    /// does it.
    Llama3 {
        /// At least 1.
        factor: f64,
        /// Waves longer than `original_max_position_embeddings / low_freq_factor` are stretched.
        low_freq_factor: f64,
        /// Waves shorter than `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context that the model was first trained on, in tokens.
        original_max_position_embeddings: usize,
    },
}

impl RopeScaling {
    /// Stretches `inv_freq`, in f32 and in the order of transformers' operations.
    fn apply(self, inv_freq: &mut [f32]) {
        match self {
            Self::Linear { factor } => inv_freq.iter_mut().for_each(|f| *f /= factor as f32),
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                let original = original as f64;
                let (longest, shortest) = ((original / low) as f32, (original / high) as f32);
                for f in inv_freq {
                    let wave = 2.0 * std::f32::consts::PI / *f;
                    let stretched = *f / factor as f32;
                    if wave > longest {
                        *f = stretched;
                    } else if wave >= shortest {
                        let smooth = (original as f32 / wave - low as f32) / (high - low) as f32;
                        *f = (1.0 - smooth) * stretched + smooth * *f;
                    }
                }
            }
        }
    }

    pub(super) fn problems(self) -> Vec<String> {
        let mut out = Vec::new();
        let mut check = |name: &str, value: f64, least: f64| {
            if !(fits_f32(value) && value >= least) {
                out.push(format!(
                    "`rope_scaling.{name}` {value} must be at least {least} and fit in f32"
                ));
            }
        };
        match self {
            Self::Linear { factor } => check("factor", factor, 1.0),
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                check("factor", factor, 1.0);
                check("low_freq_factor", low, f64::from(f32::MIN_POSITIVE));
                check("original_max_position_embeddings", original as f64, 1.0);
                if !fits_f32(high - low) {
                    out.push(format!(
                        "`rope_scaling.high_freq_factor` {high} must be above `low_freq_factor` {low}"
                    ));
                }
            }
        }
        out
    }
}

impl ModelConfig {
    /// Base of the rotary embedding of layer `i`.
    #[must_use]
    pub fn layer_rope_theta(&self, i: usize) -> f64 {
        match self.layer_window(i) {
            Some(_) => self.rope_local_base_freq.unwrap_or(self.rope_theta),
            None => self.rope_theta,
        }
    }

    /// Angle per position of the `head_dim / 2` pairs of layer `i`, `1 / θ^(2j / head_dim)` and
    /// then stretched, in f32 as transformers computes it. Scaling is for the layers that see all
    /// tokens: a window never outgrows what the model was trained on.
    #[must_use]
    pub fn layer_inv_freq(&self, i: usize) -> Vec<f32> {
        let (theta, width) = (self.layer_rope_theta(i) as f32, self.head_dim());
        let inv = |j: usize| 1.0 / theta.powf((2 * j) as f32 / width as f32);
        let mut all: Vec<f32> = (0..width / 2).map(inv).collect();
        if let (Some(scaling), None) = (self.rope_scaling, self.layer_window(i)) {
            scaling.apply(&mut all);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_the_short_waves_and_stretches_the_long() {
        let config = |scaling| ModelConfig {
            num_attention_heads: 1,
            head_dim: Some(64),
            rope_theta: 500_000.0,
            rope_scaling: scaling,
            ..ModelConfig::default()
        };
        let plain = config(None).layer_inv_freq(0);
        let scaled = config(Some(RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        }))
        .layer_inv_freq(0);
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[31], plain[31] / 8.0);
        let between = plain
            .iter()
            .zip(&scaled)
            .filter(|&(p, s)| s < p && *s > p / 8.0);
        assert!(between.count() > 0);
        let halved = config(Some(RopeScaling::Linear { factor: 2.0 })).layer_inv_freq(0);
        assert!(plain.iter().zip(halved).all(|(p, h)| h == p / 2.0));
    }
}
