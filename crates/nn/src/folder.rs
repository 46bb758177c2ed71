//! Model folders as a source of weights, with SubLN surgery.

use std::path::Path;

use crate::weights::WeightSource;
use crate::{NnError, Result};
use tritburn_quant::tensor_file::TensorFile;

/// Weights of a Hugging Face folder. Sub-norms that the folder lacks start at one: inserting them
/// is BitDistill's stage 1 (Eq. 4–5).
#[derive(Debug)]
pub struct FolderSource {
    file: TensorFile,
}

impl FolderSource {
    /// Opens `model.safetensors` or the shards of a folder.
    ///
    /// # Errors
    /// Where the folder is missing or malformed.
    pub fn open(folder: &Path) -> Result<Self> {
        Ok(Self {
            file: TensorFile::open_folder(folder)?,
        })
    }
}

/// Whether surgery may add this norm.
fn is_sub_norm(name: &str) -> bool {
    name.ends_with("_sub_norm.weight") || name.ends_with("_proj.norm.weight")
}

impl WeightSource for FolderSource {
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
        self.file.tensor_f32(name, &shape).map_err(NnError::from)
    }

    fn norm(&mut self, name: &str, features: usize) -> Result<Vec<f32>> {
        if is_sub_norm(name) && !self.file.contains(name) {
            return Ok(vec![1.0; features]);
        }
        self.file
            .tensor_f32(name, &[features])
            .map_err(NnError::from)
    }
}
