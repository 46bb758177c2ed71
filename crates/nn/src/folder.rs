//! Model folders as a source of weights, with SubLN surgery.

use std::path::Path;

use tritburn_quant::Dtype;
use tritburn_quant::config::{LinearClass, ModelConfig, QuantizationMode, SubNorm};
use tritburn_quant::hf_pack::{packed_rows, unpack};
use tritburn_quant::scheme::Granularity;
use tritburn_quant::tensor_file::TensorFile;

use crate::weights::WeightSource;
use crate::{NnError, Result};

/// Weights of a Hugging Face folder: master weights, stored or made from packed codes. Sub-norms
/// that the folder lacks start at one: inserting them is BitDistill's stage 1 (Eq. 4–5).
#[derive(Debug)]
pub struct FolderSource {
    file: TensorFile,
    config: ModelConfig,
}

impl FolderSource {
    /// Opens `config.json` and `model.safetensors`, or the shards, of a folder.
    ///
    /// # Errors
    /// Where the folder is missing or malformed.
    pub fn open(folder: &Path) -> Result<Self> {
        Ok(Self {
            config: ModelConfig::read(&folder.join("config.json"))?,
            file: TensorFile::open_folder(folder)?,
        })
    }

    /// Master weights that quantise to the codes of `module.weight` and the scales of
    /// `module.weight_scale`: `codes · scale`, larger by what the zeros take from its mean.
    #[allow(clippy::cast_precision_loss)]
    fn packed(&self, module: &str, [rows, cols]: [usize; 2]) -> Result<Vec<f32>> {
        let class = self
            .config
            .quantization_config
            .as_ref()
            .map(|q| q.linear_class);
        let scheme = self.config.quant_scheme().unwrap_or_default();
        let name = format!("{module}.weight");
        let bytes = self
            .file
            .bytes(&name, Dtype::U8, &[packed_rows(rows), cols])?;
        let codes = unpack(bytes, rows, cols)?;
        let name = format!("{module}.weight_scale");
        let shape: &[usize] = match scheme.weights.granularity() {
            Granularity::Tensor if matches!(self.file.info(&name), Some((_, []))) => &[],
            Granularity::Tensor => &[1],
            Granularity::Row => &[rows],
            Granularity::Group(size) => &[rows, cols / size],
        };
        let mut scales = self.file.tensor_f32(&name, shape)?;
        if class == Some(LinearClass::BitLinear) {
            scales.iter_mut().for_each(|s| *s = 1.0 / *s);
        }
        if let Some(bad) = scales.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return Err(NnError::Weights {
                path: self.file.path_of(&name).to_path_buf(),
                message: format!("`{name}` stands for {bad}, but a scale must be positive"),
            });
        }
        let run = (rows * cols / scales.len().max(1)).max(1);
        let mut master = Vec::with_capacity(codes.len());
        for (codes, scale) in codes.chunks(run).zip(scales) {
            let alive = codes.iter().filter(|c| **c != 0).count().max(1);
            let value = scale * (codes.len() as f32 / alive as f32);
            master.extend(codes.iter().map(|&c| f32::from(c) * value));
        }
        Ok(master)
    }

    /// The name by which the folder has a norm.
    fn norm_name(&self, name: &str) -> String {
        let names = self.config.sub_norm_names();
        let ours = ["self_attn.attn_sub_norm", "mlp.ffn_sub_norm"];
        for (ours, theirs) in ours.iter().zip(names) {
            if name.contains(ours) {
                return name.replace(ours, theirs);
            }
        }
        let own = format!("_proj.{}.weight", self.config.projection_norm().0);
        name.replace("_proj.norm.weight", &own)
    }
}

/// The layout that has this norm beside those of the backbone.
fn layout_of(name: &str) -> Option<SubNorm> {
    if name.ends_with("_sub_norm.weight") {
        Some(SubNorm::SubLn)
    } else {
        let own = name.ends_with("_proj.norm.weight");
        own.then_some(SubNorm::All)
    }
}

impl WeightSource for FolderSource {
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
        let offline = self.config.quantization_config.as_ref();
        let offline = offline.is_some_and(|q| q.quantization_mode == QuantizationMode::Offline);
        let bytes = matches!(self.file.info(name), Some((Dtype::U8, _)));
        match name.strip_suffix(".weight").filter(|_| offline && bytes) {
            Some(module) => self.packed(module, shape),
            None => self.file.tensor_f32(name, &shape).map_err(NnError::from),
        }
    }

    fn norm(&mut self, name: &str, features: usize) -> Result<Vec<f32>> {
        let found = self.norm_name(name);
        if layout_of(name).is_some_and(|layout| layout != self.config.sub_norm()) {
            return Ok(vec![1.0; features]);
        }
        Ok(self.file.tensor_f32(&found, &[features])?)
    }

    fn bias(&mut self, name: &str, features: usize) -> Result<Vec<f32>> {
        Ok(self.file.tensor_f32(name, &[features])?)
    }

    fn finish(&self) -> Result<()> {
        Ok(self.file.check_unchanged()?)
    }
}
