//! A recipe of whichever kind a file holds.

use std::path::Path;

use toml::Table;

use super::{DitRecipe, Recipe};
use crate::error::{Result, TrainError};

/// A recipe of a language model or of a diffusion transformer.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyRecipe {
    /// Stages of a language model.
    Language(Box<Recipe>),
    /// A diffusion transformer: the file has a section `[dit]`.
    Diffusion(Box<DitRecipe>),
}

/// Whether `text` has a section `[dit]`.
pub(super) fn is_diffusion(text: &str) -> bool {
    let table = text.parse::<Table>();
    table.is_ok_and(|table| table.contains_key("dit"))
}

impl AnyRecipe {
    /// Reads a recipe and applies `--set key=value` overrides.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] with every problem found, each with the path of its field.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| TrainError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        let origin = path.display().to_string();
        if is_diffusion(&text) {
            let recipe = DitRecipe::parse(&text, &origin, overrides)?;
            return Ok(Self::Diffusion(Box::new(recipe)));
        }
        let recipe = Recipe::parse(&text, &origin, overrides)?;
        Ok(Self::Language(Box::new(recipe)))
    }

    /// Steps of all stages together.
    #[must_use]
    pub fn total_steps(&self) -> usize {
        match self {
            Self::Language(recipe) => recipe.total_steps(),
            Self::Diffusion(recipe) => recipe.file.optim.steps,
        }
    }
}

/// What a run directory keeps of the recipe it was made for.
pub trait Written {
    /// Name of the recipe.
    fn name(&self) -> &str;

    /// The resolved recipe as TOML.
    ///
    /// # Errors
    /// Never for a recipe that was read; the signature is the serialiser's.
    fn toml(&self) -> Result<String>;
}

impl Written for Recipe {
    fn name(&self) -> &str {
        &self.file.name
    }

    fn toml(&self) -> Result<String> {
        self.to_toml()
    }
}

impl Written for DitRecipe {
    fn name(&self) -> &str {
        &self.file.name
    }

    fn toml(&self) -> Result<String> {
        self.to_toml()
    }
}

impl Written for AnyRecipe {
    fn name(&self) -> &str {
        match self {
            Self::Language(recipe) => recipe.name(),
            Self::Diffusion(recipe) => recipe.name(),
        }
    }

    fn toml(&self) -> Result<String> {
        match self {
            Self::Language(recipe) => recipe.to_toml(),
            Self::Diffusion(recipe) => recipe.to_toml(),
        }
    }
}
