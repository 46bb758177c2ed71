//! Recipes of diffusion transformers: the file as written, and its check.

use serde::{Deserialize, Serialize};
use tritburn_quant::config::{DIT, DitConfig, HiddenAct, NoiseKind, SubNorm, Ternary};

use super::common::{Pace, check_train};
use super::{QuantSection, TrainSection, check, parse, unreadable};
use crate::error::{Result, TrainError};
use crate::schedule::Schedule;

/// Name of the one stage of such a run.
pub const DIT_STAGE: &str = "dit";

/// A whole recipe; the section `[dit]` tells it from those of language models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DitFile {
    /// Names the run directory.
    pub name: String,
    /// Seed of initialisation, data order, what is held out, and noise.
    pub seed: u64,
    /// Architecture and quantisers.
    pub dit: DitSection,
    /// How images become noise.
    pub noise: NoiseSection,
    /// Where images lie.
    pub data: ImageSection,
    /// Logging, evaluation and checkpoints.
    pub train: TrainSection,
    /// Steps and rates.
    pub optim: OptimSection,
}

impl Default for DitFile {
    fn default() -> Self {
        Self {
            name: String::new(),
            seed: 42,
            dit: DitSection::default(),
            noise: NoiseSection::default(),
            data: ImageSection::default(),
            train: TrainSection {
                eval_rows: 1000,
                ..TrainSection::default()
            },
            optim: OptimSection::default(),
        }
    }
}

/// `[dit]`: see [`DitConfig`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DitSection {
    /// Height and width of an image in pixels.
    pub image_size: usize,
    /// Height and width of a patch in pixels.
    pub patch_size: usize,
    /// Classes.
    pub num_classes: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated feed-forward block.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Heads of attention.
    pub num_attention_heads: usize,
    /// Gate activation.
    pub hidden_act: HiddenAct,
    /// Sines and cosines of a timestep.
    pub frequencies: usize,
    /// Epsilon of every norm.
    pub norm_eps: f64,
    /// Standard deviation of the initial weights of blocks and patch embedding.
    pub init_std: f32,
    /// Which matrices are quantised: `none`, `blocks` or `all`.
    pub ternary: Ternary,
    /// Norms in front of quantised projections.
    pub sub_norm: SubNorm,
    /// How they are quantised, where not as in BitNet b1.58.
    pub quant: QuantSection,
}

impl Default for DitSection {
    fn default() -> Self {
        Self {
            image_size: 28,
            patch_size: 4,
            num_classes: 10,
            hidden_size: 192,
            intermediate_size: 384,
            num_hidden_layers: 6,
            num_attention_heads: 6,
            hidden_act: HiddenAct::GeluTanh,
            frequencies: 256,
            norm_eps: 1e-6,
            init_std: 0.06,
            ternary: Ternary::Blocks,
            sub_norm: SubNorm::SubLn,
            quant: QuantSection::default(),
        }
    }
}

/// `[noise]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NoiseSection {
    /// Steps from an image to noise.
    pub steps: usize,
    /// `linear` or `cosine`.
    pub schedule: NoiseKind,
}

impl Default for NoiseSection {
    fn default() -> Self {
        Self {
            steps: 1000,
            schedule: NoiseKind::Linear,
        }
    }
}

/// `[data]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageSection {
    /// Folder of the IDX files.
    pub dir: String,
    /// Which files: `{split}-images-idx3-ubyte` and `{split}-labels-idx1-ubyte`, plain or `.gz`.
    pub split: String,
    /// Images that are measured with and never trained on.
    pub held_out: usize,
}

/// `[optim]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimSection {
    /// Optimiser steps.
    pub steps: usize,
    /// Images of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of a step.
    pub grad_accum: usize,
    /// Share of the images that are trained on without their class, for guidance (Ho & Salimans
    /// 2022).
    pub label_dropout: f64,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// Shape of the learning rate after warm-up.
    pub schedule: Schedule,
    /// Decoupled weight decay on matrices.
    pub weight_decay: f64,
    /// AdamW's betas.
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    pub eps: f64,
    /// Decay of a running average of the weights, which is measured and written in their place; 0 for
    /// none.
    pub ema: f64,
    /// Global gradient norm is clipped to this; 0 for no clipping.
    pub clip: f64,
}

impl Default for OptimSection {
    fn default() -> Self {
        Self {
            steps: 0,
            batch_size: 128,
            grad_accum: 1,
            label_dropout: 0.1,
            lr: 1e-3,
            warmup: 0,
            schedule: Schedule::Cosine,
            weight_decay: 0.0,
            betas: [0.9, 0.99],
            eps: 1e-8,
            ema: 0.0,
            clip: 1.0,
        }
    }
}

/// A diffusion recipe without errors.
#[derive(Debug, Clone, PartialEq)]
pub struct DitRecipe {
    /// The values, defaults filled in.
    pub file: DitFile,
}

impl DitRecipe {
    /// Parses a recipe and applies `--set key=value` overrides; `origin` names it in errors.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] with every problem found, each with the path of its field.
    pub fn parse(text: &str, origin: &str, overrides: &[String]) -> Result<Self> {
        let (file, mut problems) = parse::parse::<DitFile>(text, overrides);
        if let Some(file) = &file {
            problems.extend(file.problems());
        }
        match file {
            Some(file) if problems.is_empty() => Ok(Self { file }),
            _ => Err(unreadable(origin, problems)),
        }
    }

    /// The resolved recipe as TOML: what a run directory keeps.
    ///
    /// # Errors
    /// Never for a recipe that was read; the signature is the serialiser's.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(&self.file).map_err(|e| TrainError::Recipe {
            origin: self.file.name.clone(),
            problems: vec![e.to_string()],
        })
    }

    /// Architecture of the recipe's model.
    #[must_use]
    pub fn config(&self) -> DitConfig {
        self.file.config()
    }
}

impl DitFile {
    fn config(&self) -> DitConfig {
        let dit = &self.dit;
        DitConfig {
            model_type: DIT.into(),
            image_size: dit.image_size,
            patch_size: dit.patch_size,
            num_classes: dit.num_classes,
            hidden_size: dit.hidden_size,
            intermediate_size: dit.intermediate_size,
            num_hidden_layers: dit.num_hidden_layers,
            num_attention_heads: dit.num_attention_heads,
            hidden_act: dit.hidden_act,
            frequencies: dit.frequencies,
            norm_eps: dit.norm_eps,
            ternary: dit.ternary,
            sub_norm: dit.sub_norm,
            quant: dit.quant.scheme(),
            noise_steps: self.noise.steps,
            noise: self.noise.schedule,
        }
    }

    /// Every problem, each starting with the path of its field.
    fn problems(&self) -> Vec<String> {
        let from_model = self.config().problems().into_iter();
        let mut out: Vec<String> = from_model
            .map(|p| match p.strip_prefix("noise_steps") {
                Some(rest) => format!("noise.steps{rest}"),
                None => format!("dit.{p}"),
            })
            .collect();
        let mut say = |ok: bool, path: &str, message: &str| {
            if !ok {
                out.push(format!("{path}: {message}"));
            }
        };
        let optim = &self.optim;
        say(check::is_name(&self.name), "name", check::NAME);
        say(
            self.dit.init_std.is_finite() && self.dit.init_std > 0.0,
            "dit.init_std",
            "must be positive",
        );
        say(
            self.dit.ternary != Ternary::None || self.dit.quant == QuantSection::default(),
            "dit.quant",
            "needs `dit.ternary` to be \"blocks\" or \"all\"",
        );
        say(
            self.dit.quant.warmup < optim.steps.max(1),
            "dit.quant.warmup",
            "must be shorter than optim.steps: a run ends fully quantised",
        );
        say(
            !self.data.dir.is_empty(),
            "data.dir",
            "names no folder of IDX files",
        );
        say(
            !self.data.split.is_empty() && !self.data.split.contains(['/', '\\']),
            "data.split",
            "must be the start of the file names, such as \"train\" or \"t10k\"",
        );
        say(
            self.data.held_out > 0,
            "data.held_out",
            "must be at least 1: the run measures with them",
        );
        check_train(&self.train, &mut say);
        say(
            !self.train.checkpoint_activations,
            "train.checkpoint_activations",
            "is for language models",
        );
        say(
            self.train.eval_rows > 0,
            "train.eval_rows",
            "must be at least 1",
        );
        say(
            (0.0..1.0).contains(&optim.label_dropout),
            "optim.label_dropout",
            "must lie in [0, 1)",
        );
        let pace = Pace {
            steps: optim.steps,
            batch_size: optim.batch_size,
            grad_accum: optim.grad_accum,
            lr: optim.lr,
            warmup: optim.warmup,
            weight_decay: optim.weight_decay,
            betas: optim.betas,
            eps: optim.eps,
            ema: optim.ema,
            clip: optim.clip,
        };
        pace.check(&mut |ok, key, message| say(ok, &format!("optim.{key}"), message));
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_error_is_reported_at_once_with_its_path() {
        let text = "name = 'a b'\nsede = 1\n[dit]\nternary = 'some'\npatch_size = 5\n\
                    hidden_size = 'wide'\n[noise]\nsteps = 0\n[optim]\nlr = -1.0\nwarmup = 9\n\
                    [data]\nsplit = '../x'\n";
        let error = DitRecipe::parse(
            text,
            "bad.toml",
            &["train.keep=0".into(), "train.load_best=true".into()],
        )
        .unwrap_err()
        .to_string();
        for path in [
            "bad.toml",
            "name: ",
            "sede",
            "dit.ternary",
            "dit.patch_size: must divide",
            "dit.hidden_size",
            "noise.steps: is 0",
            "optim.lr",
            "optim.steps",
            "optim.warmup",
            "data.dir",
            "data.split",
            "data.held_out",
            "train.keep",
            "train.load_best",
        ] {
            assert!(error.contains(path), "{path} is missing in {error}");
        }
    }
}
