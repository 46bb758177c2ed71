//! GGUF files as a source of weights.

use std::path::Path;

use tritburn_quant::config::ModelConfig;
use tritburn_quant::gguf::GgufModel;

use crate::Result;
use crate::weights::WeightSource;

/// Weights of a GGUF file in f32, by the names and in the row order of a Hugging Face folder.
#[derive(Debug)]
pub struct GgufSource(GgufModel);

impl GgufSource {
    /// Opens a file.
    ///
    /// # Errors
    /// Where it is malformed or holds no supported model.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(GgufModel::open(path)?))
    }

    /// Architecture of the model.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        self.0.config()
    }

    /// The chat template that the file brings along.
    ///
    /// # Errors
    /// Where it is no text.
    pub fn chat_template(&self) -> Result<Option<&str>> {
        Ok(self.0.file().text("tokenizer.chat_template")?)
    }
}

impl WeightSource for GgufSource {
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
        Ok(self.0.tensor_f32(name, &shape)?)
    }

    fn norm(&mut self, name: &str, features: usize) -> Result<Vec<f32>> {
        Ok(self.0.tensor_f32(name, &[features])?)
    }

    fn bias(&mut self, name: &str, features: usize) -> Result<Vec<f32>> {
        Ok(self.0.tensor_f32(name, &[features])?)
    }

    fn finish(&self) -> Result<()> {
        Ok(self.0.file().check_unchanged()?)
    }
}
