//! Recipes: TOML → strict file types → checked recipe.

mod any;
mod check;
mod common;
mod dit;
mod file;
mod parse;

use std::path::Path;

pub use any::{AnyRecipe, Written};
pub use dit::{
    DIT_STAGE, DitFile, DitRecipe, DitSection, ImageSection, NoiseSection, OptimSection,
};
pub use file::{
    ComputeChoice, DataSection, DistillSection, ModelSection, NormInit, QuantSection, RecipeFile,
    RelationForm, StageKind, StageSection, TokenizerSection, TrainSection,
};
use tritburn_data::TaskSpec;
use tritburn_quant::config::{ModelConfig, QuantizationMode};

use crate::error::{Result, TrainError};

/// A recipe without errors.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The values, defaults filled in.
    pub file: RecipeFile,
    /// The resolved task.
    pub task: TaskSpec,
}

impl Recipe {
    /// Reads a recipe and applies `--set key=value` overrides.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] with every problem found, each with the path of its field.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| TrainError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        Self::parse(&text, &path.display().to_string(), overrides)
    }

    /// Like [`Recipe::read`], from a string; `origin` names it in errors.
    ///
    /// # Errors
    /// See [`Recipe::read`].
    pub fn parse(text: &str, origin: &str, overrides: &[String]) -> Result<Self> {
        if any::is_diffusion(text) {
            let message = "dit: this recipe is of a diffusion transformer, not of a language model; \
                           `tritburn train` runs it, `tritburn sample` shows what it learnt";
            return Err(unreadable(origin, vec![message.into()]));
        }
        let (file, mut problems) = parse::parse::<RecipeFile>(text, overrides);
        let task = match &file {
            Some(file) => {
                problems.extend(check::problems(file));
                match file.task.resolve() {
                    Ok(task) => Some(task),
                    Err(errors) => {
                        problems.extend(errors.iter().map(|e| format!("task: {e}")));
                        None
                    }
                }
            }
            None => None,
        };
        match (file, task) {
            (Some(file), Some(task)) if problems.is_empty() => Ok(Self { file, task }),
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

    /// Steps of all stages together.
    #[must_use]
    pub fn total_steps(&self) -> usize {
        self.file.stage.iter().map(|s| s.steps).sum()
    }
}

fn unreadable(origin: &str, problems: Vec<String>) -> TrainError {
    TrainError::Recipe {
        origin: origin.into(),
        problems,
    }
}

/// Architecture of the `[model]` section, before it has a vocabulary.
#[must_use]
pub fn scratch_config(model: &ModelSection) -> ModelConfig {
    ModelConfig {
        architectures: vec!["LlamaForCausalLM".into()],
        model_type: "llama".into(),
        hidden_size: model.hidden_size,
        intermediate_size: model.intermediate_size,
        num_hidden_layers: model.num_hidden_layers,
        num_attention_heads: model.num_attention_heads,
        num_key_value_heads: model.num_key_value_heads,
        head_dim: None,
        vocab_size: 0,
        max_position_embeddings: model.max_position_embeddings,
        rope_theta: model.rope_theta,
        rms_norm_eps: model.rms_norm_eps,
        hidden_act: model.hidden_act,
        tie_word_embeddings: model.tie_word_embeddings,
        attention_bias: false,
        bos_token_id: None,
        eos_token_id: None,
        pad_token_id: None,
        quantization_config: None,
        tritburn: None,
        ..ModelConfig::default()
    }
}

/// `base`, from which a stage starts, with the stage's own norm layout and quantisation.
#[must_use]
pub fn stage_config(base: &ModelConfig, stage: &StageSection) -> ModelConfig {
    let mut config = base.clone();
    if let Some(sub_norm) = stage.sub_norm.filter(|s| *s != base.sub_norm()) {
        config.set_sub_norm(sub_norm);
    }
    let scheme = stage.ternary.then(|| stage.quant.scheme());
    config.set_quant(scheme, QuantizationMode::Online);
    config
}
