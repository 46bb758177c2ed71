//! A diffusion transformer as a folder: `config.json` and `model.safetensors`.

use std::path::Path;

use burn::tensor::backend::Backend;
use tritburn_nn::dit::{Dit, TensorSource};
use tritburn_nn::weights::host_weights;
use tritburn_quant::config::DitConfig;
use tritburn_quant::fs::write_atomic;
use tritburn_quant::tensor_file::TensorFile;

use crate::error::{Result, TrainError};
use crate::run::write_tensors;

/// Writes the model into an existing folder.
pub(super) fn write<B: Backend>(folder: &Path, config: &DitConfig, model: &Dit<B>) -> Result<()> {
    write_tensors(&folder.join("model.safetensors"), &host_weights(model))?;
    let json = config.to_json().map_err(|message| TrainError::Resume {
        path: folder.to_path_buf(),
        message,
    })?;
    Ok(write_atomic(&folder.join("config.json"), json.as_bytes())?)
}

/// The weights of a folder, for [`Dit::new`].
pub(super) fn source(folder: &Path) -> Result<TensorSource> {
    Ok(TensorSource::new(TensorFile::open_folder(folder)?))
}

/// Reads a folder.
pub(super) fn read<B: Backend>(folder: &Path, device: &B::Device) -> Result<(DitConfig, Dit<B>)> {
    let config = DitConfig::read(&folder.join("config.json"))?;
    let model = Dit::new(&config, &mut source(folder)?, device)?;
    Ok((config, model))
}
