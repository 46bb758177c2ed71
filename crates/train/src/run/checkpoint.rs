//! Checkpoints: a model folder with optimiser and loop state beside the weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tritburn_data::{LoaderState, Tokenizer};
use tritburn_nn::weights::HostTensor;
use tritburn_quant::Dtype;
use tritburn_quant::config::ModelConfig;
use tritburn_quant::fs::write_atomic;
use tritburn_quant::tensor_file::{TensorFile, write_safetensors};

use super::dir::make_dir;
use crate::error::{Result, TrainError};

/// What an evaluation inside the loop found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Name in `metrics.jsonl`: `eval/<task>/acc`.
    pub metric: String,
    /// Its value; higher is better.
    pub value: f64,
    /// Steps of all stages that were done.
    pub step: usize,
}

/// State of the loop, `state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointState {
    /// Stage that was running.
    pub stage: String,
    /// Steps of that stage that are done.
    pub stage_step: usize,
    /// Steps of all stages that are done.
    pub step: usize,
    /// Tokens seen in all stages.
    pub tokens: u64,
    /// Seconds of training in all stages.
    pub elapsed_s: f64,
    /// AdamW steps taken.
    pub optim_step: i32,
    /// Position in the data, of the first device.
    pub loader: LoaderState,
    /// Positions of the other devices, where each reads data of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_loaders: Vec<LoaderState>,
    /// Best evaluation of that stage, where it has evaluations inside the loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Score>,
}

/// A checkpoint on disk.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder.
    pub path: PathBuf,
    /// Loop state.
    pub state: CheckpointState,
}

const OPTIM: &str = "optim.safetensors";

impl Checkpoint {
    /// Reads the loop state of a checkpoint folder.
    ///
    /// # Errors
    /// [`TrainError::Resume`] where it is damaged.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.join("state.json");
        let bad = |message: String| TrainError::Resume {
            path: file.clone(),
            message,
        };
        let remedy = "delete the folder to continue from an older checkpoint";
        let text = std::fs::read_to_string(&file).map_err(|e| bad(format!("{e}; {remedy}")))?;
        let state = serde_json::from_str(&text).map_err(|e| bad(format!("{e}; {remedy}")))?;
        Ok(Self {
            path: path.to_path_buf(),
            state,
        })
    }

    /// Position in the data of device `index` of `count`.
    ///
    /// # Errors
    /// [`TrainError::Resume`] where devices read data of their own and were not as many.
    pub fn loader(&self, index: usize, count: usize) -> Result<&LoaderState> {
        let others = &self.state.other_loaders;
        if !others.is_empty() && others.len() + 1 != count {
            return Err(TrainError::Resume {
                path: self.path.clone(),
                message: format!(
                    "{} devices read shards of their own (data.stream.shards_per_device), {count} are to \
                     go on; give as many to --devices",
                    others.len() + 1
                ),
            });
        }
        let other = index.checked_sub(1).and_then(|other| others.get(other));
        Ok(other.unwrap_or(&self.state.loader))
    }

    /// Optimiser tensors.
    ///
    /// # Errors
    /// Where the file is damaged.
    pub fn optim(&self) -> Result<BTreeMap<String, HostTensor>> {
        read_host_tensors(&self.path.join(OPTIM))
    }

    /// Writes a checkpoint aside, `model` its part, and renames it into place. A failure leaves
    /// nothing behind and every older checkpoint as it was.
    ///
    /// # Errors
    /// [`TrainError::Io`] where the system refuses, for example on a full disk.
    pub fn write(
        path: &Path,
        optim: &BTreeMap<String, HostTensor>,
        state: &CheckpointState,
        model: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        replace_dir(path, |aside| {
            model(aside)?;
            write_tensors(&aside.join(OPTIM), optim)?;
            let json = serde_json::to_vec_pretty(state).map_err(|e| TrainError::Resume {
                path: aside.to_path_buf(),
                message: e.to_string(),
            })?;
            Ok(write_atomic(&aside.join("state.json"), &json)?)
        })
    }
}

/// Writes a folder of master weights that Hugging Face, the engine and later stages can load.
///
/// # Errors
/// [`TrainError::Io`] where the system refuses.
pub fn save_model(
    path: &Path,
    config: &ModelConfig,
    weights: &BTreeMap<String, HostTensor>,
    tokenizer: &Tokenizer,
) -> Result<()> {
    replace_dir(path, |aside| write_model(aside, config, weights, tokenizer))
}

/// Every tensor of a safetensors file, in f32.
///
/// # Errors
/// Where the file is damaged.
pub fn read_host_tensors(path: &Path) -> Result<BTreeMap<String, HostTensor>> {
    let file = TensorFile::open(path)?;
    let names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
    let mut out = BTreeMap::new();
    for name in names {
        let shape = file
            .info(&name)
            .map(|(_, shape)| shape.to_vec())
            .unwrap_or_default();
        let data = file.tensor_f32(&name, &shape)?;
        out.insert(name, HostTensor { shape, data });
    }
    Ok(out)
}

/// Fills a folder with what [`save_model`] writes.
pub(crate) fn write_model(
    folder: &Path,
    config: &ModelConfig,
    weights: &BTreeMap<String, HostTensor>,
    tokenizer: &Tokenizer,
) -> Result<()> {
    write_tensors(&folder.join("model.safetensors"), weights)?;
    crate::export::write_configs(folder, config)?;
    tokenizer.save(folder, config.max_position_embeddings)?;
    Ok(())
}

/// Writes tensors in f32.
pub(crate) fn write_tensors(path: &Path, tensors: &BTreeMap<String, HostTensor>) -> Result<()> {
    let bytes: Vec<(&str, &[usize], Vec<u8>)> = tensors
        .iter()
        .map(|(name, t)| {
            let bytes = t.data.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name.as_str(), t.shape.as_slice(), bytes)
        })
        .collect();
    let named: Vec<_> = bytes
        .iter()
        .map(|(name, shape, b)| (*name, Dtype::F32, *shape, b.as_slice()))
        .collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(write_safetensors(path, &named, &metadata)?)
}

/// Fills a folder beside `path` and lets it take its place.
pub(crate) fn replace_dir(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let io = |source| TrainError::Io {
        path: path.to_path_buf(),
        source,
    };
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    let aside = PathBuf::from(aside);
    if aside.exists() {
        std::fs::remove_dir_all(&aside).map_err(io)?;
    }
    make_dir(&aside)?;
    if let Err(e) = fill(&aside) {
        let _ = std::fs::remove_dir_all(&aside);
        return Err(e);
    }
    if path.exists() {
        std::fs::remove_dir_all(path).map_err(io)?;
    }
    std::fs::rename(&aside, path).map_err(io)?;
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::File::open(parent)
        .and_then(|f| f.sync_all())
        .map_err(io)
}
