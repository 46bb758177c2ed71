//! `config.json` of a diffusion transformer (Peebles & Xie 2023).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{HiddenAct, ModelConfig, QuantizationMode, SubNorm};
use crate::error::{QuantError, Result};
use crate::scheme::QuantScheme;

/// `model_type` of the folders that hold such a model.
pub const DIT: &str = "tritburn_dit";
/// Sides longer than this are refused: attention grows with the square of the patches.
const MAX_SIDE: usize = 1024;
/// No width, and no count of classes or steps, is larger.
const MAX_WIDTH: usize = 1 << 16;
/// Largest `config.json` that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Which matrices are quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ternary {
    /// None: full precision.
    None,
    /// Attention and feed-forward projections; embeddings, modulation and the last layer stay in
    /// full precision.
    #[default]
    Blocks,
    /// Every matrix of the model.
    All,
}

/// How the variance of the noise grows with the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseKind {
    /// β in a straight line (Ho et al. 2020, §4).
    #[default]
    Linear,
    /// ᾱ as a squared cosine (Nichol & Dhariwal 2021, Eq. 17).
    Cosine,
}

/// A class-conditional diffusion transformer over square images with one channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DitConfig {
    /// Always [`DIT`].
    pub model_type: String,
    /// Height and width of an image in pixels.
    pub image_size: usize,
    /// Height and width of a patch in pixels.
    pub patch_size: usize,
    /// Classes; one more label stands for "no class".
    pub num_classes: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated feed-forward block.
    pub intermediate_size: usize,
    /// Transformer blocks.
    pub num_hidden_layers: usize,
    /// Heads of attention.
    pub num_attention_heads: usize,
    /// Gate activation.
    pub hidden_act: HiddenAct,
    /// Sines and cosines that a timestep is turned into.
    pub frequencies: usize,
    /// Epsilon of every norm.
    pub norm_eps: f64,
    /// Which matrices are quantised.
    pub ternary: Ternary,
    /// Norms in front of quantised projections.
    pub sub_norm: SubNorm,
    /// Quantisers.
    pub quant: QuantScheme,
    /// Steps from an image to noise.
    pub noise_steps: usize,
    /// How noise grows.
    pub noise: NoiseKind,
}

impl DitConfig {
    /// Tokens of an image.
    #[must_use]
    pub fn patches(&self) -> usize {
        let side = self.image_size / self.patch_size.max(1);
        side * side
    }

    /// Pixels of a patch.
    #[must_use]
    pub fn patch_pixels(&self) -> usize {
        self.patch_size * self.patch_size
    }

    /// The blocks in the words of a language model: what attention and feed-forward modules take.
    #[must_use]
    pub fn backbone(&self) -> ModelConfig {
        let mut config = ModelConfig {
            model_type: "llama".into(),
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_attention_heads,
            vocab_size: self.num_classes + 1,
            max_position_embeddings: self.patches(),
            rms_norm_eps: self.norm_eps,
            hidden_act: self.hidden_act,
            ..ModelConfig::default()
        };
        config.set_sub_norm(self.sub_norm);
        let scheme = (self.ternary != Ternary::None).then_some(self.quant);
        config.set_quant(scheme, QuantizationMode::Online);
        config
    }

    /// Everything that is wrong with these values, each starting with its field; empty where all
    /// is well.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut say = |ok: bool, field: &str, message: &str| {
            if !ok {
                out.push(format!("{field}: {message}"));
            }
        };
        for (field, value, most) in [
            ("image_size", self.image_size, MAX_SIDE),
            ("patch_size", self.patch_size, MAX_SIDE),
            ("num_classes", self.num_classes, MAX_WIDTH),
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            (
                "num_hidden_layers",
                self.num_hidden_layers,
                super::check::MAX_LAYERS,
            ),
            ("num_attention_heads", self.num_attention_heads, MAX_WIDTH),
            ("frequencies", self.frequencies, MAX_WIDTH),
            ("noise_steps", self.noise_steps, MAX_WIDTH),
        ] {
            say(
                (1..=most).contains(&value),
                field,
                &format!("is {value}, must be 1 to {most}"),
            );
        }
        say(
            self.image_size.is_multiple_of(self.patch_size.max(1)),
            "patch_size",
            "must divide image_size",
        );
        say(
            self.hidden_size
                .is_multiple_of(self.num_attention_heads.max(1)),
            "num_attention_heads",
            "must divide hidden_size",
        );
        say(
            self.hidden_size.is_multiple_of(4),
            "hidden_size",
            "must be a multiple of 4: sines and cosines of rows and columns",
        );
        say(
            self.frequencies.is_multiple_of(2),
            "frequencies",
            "must be even: as many sines as cosines",
        );
        say(
            super::check::fits_f32(self.norm_eps),
            "norm_eps",
            "must be positive and fit in f32",
        );
        if out.is_empty() && self.ternary != Ternary::None {
            out.extend(self.backbone().scheme_problems(&self.quant));
            if self.ternary == Ternary::All {
                // These matrices have widths of their own, and share the quantiser of q, k and v.
                for (field, width) in [
                    ("patch_size", self.patch_pixels()),
                    ("frequencies", self.frequencies),
                    ("num_classes", self.num_classes + 1),
                ] {
                    let weights = self.quant.weights.problem(width);
                    let found = weights.or_else(|| self.quant.qkv.problem(width));
                    out.extend(found.map(|p| format!("{field}: {p}")));
                }
            }
        }
        out
    }

    /// Reads and validates the `config.json` of a diffusion transformer.
    ///
    /// # Errors
    /// [`QuantError::Io`] where the file cannot be read, [`QuantError::Config`] where it describes
    /// something else; the message names the fields.
    pub fn read(path: &Path) -> Result<Self> {
        let io = |source| QuantError::Io {
            path: path.to_path_buf(),
            source,
        };
        if std::fs::metadata(path).map_err(io)?.len() > MAX_BYTES {
            return Err(QuantError::config(path, "larger than any config.json"));
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        let bad = |message: String| QuantError::config(path, message);
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        match value.get("model_type").and_then(|v| v.as_str()) {
            Some(DIT) => {}
            found => {
                let found = found.unwrap_or("absent");
                return Err(bad(format!(
                    "`model_type` is {found}, not {DIT}: this is no diffusion transformer"
                )));
            }
        }
        let config: Self = serde_path_to_error::deserialize(value)
            .map_err(|e| bad(format!("`{}`: {}", e.path(), e.inner())))?;
        let problems = config.problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(bad(problems.join("; ")))
        }
    }

    /// The text of `config.json`.
    ///
    /// # Errors
    /// Never for values that [`Self::problems`] accepts; the signature is the serialiser's.
    pub fn to_json(&self) -> std::result::Result<String, String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        Ok(text + "\n")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn small() -> DitConfig {
        DitConfig {
            model_type: DIT.into(),
            image_size: 28,
            patch_size: 4,
            num_classes: 10,
            hidden_size: 64,
            intermediate_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            hidden_act: HiddenAct::GeluTanh,
            frequencies: 32,
            norm_eps: 1e-6,
            ternary: Ternary::Blocks,
            sub_norm: SubNorm::SubLn,
            quant: QuantScheme::default(),
            noise_steps: 1000,
            noise: NoiseKind::Linear,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, small().to_json().unwrap()).unwrap();
        assert_eq!(DitConfig::read(&path).unwrap(), small());
        assert_eq!((small().patches(), small().patch_pixels()), (49, 16));
        assert!(small().backbone().is_ternary());
        // A language model's reader says whose it is not.
        let error = ModelConfig::read(&path).unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
    }

    #[test]
    fn lies_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let text = small().to_json().unwrap();
        for (from, to, word) in [
            ("\"patch_size\": 4", "\"patch_size\": 5", "patch_size"),
            ("\"hidden_size\": 64", "\"hidden_size\": 0", "hidden_size"),
            (
                "\"image_size\": 28",
                "\"image_size\": 99999999",
                "image_size",
            ),
            ("\"frequencies\": 32", "\"frequencies\": 31", "frequencies"),
            ("\"noise\": \"linear\"", "\"noise\": \"loud\"", "`noise`"),
            ("\"norm_eps\"", "\"norm_epz\"", "norm_epz"),
            (DIT, "llama", "no diffusion transformer"),
        ] {
            assert!(text.contains(from), "{from} in {text}");
            std::fs::write(&path, text.replace(from, to)).unwrap();
            let error = DitConfig::read(&path).unwrap_err().to_string();
            assert!(error.contains(word), "{word} is missing in {error}");
        }
    }

    #[test]
    fn all_ternary_checks_the_other_widths() {
        let config = DitConfig {
            ternary: Ternary::All,
            hidden_size: 128,
            quant: QuantScheme {
                weights: crate::scheme::WeightQuant::AbsmeanGroup128,
                ..QuantScheme::default()
            },
            ..small()
        };
        let problems = config.problems();
        assert!(
            problems.iter().any(|p| p.starts_with("num_classes")),
            "{problems:?}"
        );
    }
}
