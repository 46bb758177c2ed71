//! The model in a GGUF file as a Hugging Face folder would have it.

use std::path::Path;

use super::config::{self, Arch, ROPE_FACTORS};
use super::cursor::Parsed;
use super::dequant::dequantize;
use super::file::{GgufFile, TensorInfo};
use super::kind::TensorKind;
use super::names::gguf_name;
use super::ternary::{self, TernaryScales, TernaryTensor};
use crate::config::ModelConfig;
use crate::error::Result;

/// A model with the names, the row order and the norm weights of Hugging Face.
///
/// llama.cpp turns neighbouring values of a head where Hugging Face turns value `i` with
/// `i + d / 2`; for its architecture `llama` it therefore stores the rows of `q_proj` and `k_proj`
/// in another order. For Gemma it stores `1 + w` as the weight of a norm of the backbone. Both are
/// undone here.
#[derive(Debug)]
pub struct GgufModel {
    file: GgufFile,
    arch: Arch,
    config: ModelConfig,
    full_inputs: bool,
}

/// Key of our own files: bits of the inputs of ternary projections.
pub(super) const INPUT_BITS: &str = "tritburn.input_bits";

impl GgufModel {
    /// Opens a file and reads the configuration from its metadata.
    ///
    /// # Errors
    /// As [`GgufFile::open`], and [`crate::QuantError::Tensor`] where the metadata describe no
    /// supported model; the message names the keys.
    pub fn open(path: &Path) -> Result<Self> {
        let file = GgufFile::open(path)?;
        let (arch, config) = config::read(&file)?;
        let trained = match file.int(INPUT_BITS)? {
            Some(8) => true,
            Some(bits) => {
                let message = format!("`{INPUT_BITS}` is {bits}; 8 is supported");
                return Err(file.error(message));
            }
            None => matches!(arch, Arch::Bitnet | Arch::BitnetB158),
        };
        let names = file.names().into_iter().filter(|n| n.starts_with("blk."));
        let mut kinds = names.map(|n| file.tensor(n).map_or(TensorKind::F32, |info| info.kind));
        let groups = kinds.all(|kind| kind.has_two() || !kind.is_ternary());
        let full_inputs = groups && config.is_ternary() && !trained;
        Ok(Self {
            file,
            arch,
            config,
            full_inputs,
        })
    }

    /// Whether inputs of ternary projections were in full precision while the model was trained: so are those of
    /// models whose ternary matrices are all of [`TensorKind::Q2_0`] or [`TensorKind::Pq2_0`], but for the
    /// architectures of BitNet and files that we wrote.
    #[must_use]
    pub fn has_full_inputs(&self) -> bool {
        self.full_inputs
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &GgufFile {
        &self.file
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Name in the file of the tensor that Hugging Face calls `name`.
    #[must_use]
    pub fn name_of(&self, name: &str) -> Option<String> {
        gguf_name(&self.config, name)
    }

    /// A tensor of the file that was not `used`, by its name there, and that has a meaning: without
    /// it the model would answer nonsense.
    #[must_use]
    pub fn unused(&self, used: impl Fn(&str) -> bool) -> Option<&str> {
        let scale = |name: &str| {
            let module = name
                .strip_suffix(".scale")
                .filter(|n| n.starts_with("blk."))?;
            Some(format!("{module}.weight"))
        };
        let taken = |name: &str| {
            name == ROPE_FACTORS || used(name) || scale(name).is_some_and(|weight| used(&weight))
        };
        self.file.names().into_iter().find(|name| !taken(name))
    }

    /// Values of a tensor of this shape, as f32. A separate `….scale` tensor is multiplied in.
    ///
    /// # Errors
    /// [`crate::QuantError::Tensor`] where it is missing or of another shape or type.
    pub fn tensor_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let matrix = match *shape {
            [len] => [len, 1],
            [rows, cols] => [rows, cols],
            _ => [0, 0],
        };
        let info = self.info(name, shape)?.1;
        if shape.len() == 1 && info.kind.block_len() != 1 {
            return Err(self.tensor_error(name, "is quantised: vectors must be F32, F16 or BF16"));
        }
        let rows = self.rows(name, matrix, shape)?;
        let mut values = vec![0.0; matrix[0] * matrix[1]];
        for (r, out) in values.chunks_exact_mut(matrix[1].max(1)).enumerate() {
            rows.read(r, out);
        }
        let offset = self.arch.offset(name);
        if offset != 0.0 {
            values.iter_mut().for_each(|w| *w -= offset);
        }
        if let Some(scale) = self.scale(name)? {
            values.iter_mut().for_each(|w| *w *= scale);
        }
        Ok(values)
    }

    /// The rows of a matrix, to be read one by one.
    ///
    /// # Errors
    /// As [`Self::tensor_f32`].
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Rows<'_>> {
        self.rows(name, [rows, cols], &[rows, cols])
    }

    fn rows(&self, name: &str, [rows, cols]: [usize; 2], shape: &[usize]) -> Result<Rows<'_>> {
        let (_, info) = self.info(name, shape)?;
        if info.kind == TensorKind::I2S {
            return Err(self.tensor_error(name, "is I2_S, which is for projections only"));
        }
        Ok(Rows {
            kind: info.kind,
            bytes: self.file.bytes(info),
            row_bytes: info.bytes / rows.max(1),
            cols,
            head: self.turned_heads(name),
        })
    }

    /// Codes and scales of a projection, `None` where it is of no ternary type, or of one that can hold
    /// other values too and does. A separate `….scale` tensor is part of the scales.
    ///
    /// # Errors
    /// As [`Self::tensor_f32`], and where a code is none.
    pub fn ternary(&self, name: &str, rows: usize, cols: usize) -> Result<Option<TernaryTensor>> {
        let (_, info) = self.info(name, &[rows, cols])?;
        if !info.kind.is_ternary() {
            return Ok(None);
        }
        let bytes = self.file.bytes(info);
        let tensor = ternary::decode(info.kind, bytes, cols);
        let Some(mut tensor) = tensor.map_err(|e| self.tensor_error(name, &e))? else {
            return Ok(None);
        };
        if let Some(head) = self.turned_heads(name) {
            reorder(&mut tensor.codes, cols, head);
            match &mut tensor.scales {
                TernaryScales::Tensor(_) => {}
                TernaryScales::Row(scales) => reorder(scales, 1, head),
                TernaryScales::Group(scales) => reorder(scales, cols / ternary::GROUP, head),
            }
        }
        if let Some(scale) = self.scale(name)? {
            tensor.scales = tensor.scales.times(scale);
        }
        Ok(Some(tensor))
    }

    /// The factor of a projection, where the file has it beside the weights.
    fn scale(&self, name: &str) -> Result<Option<f32>> {
        let module = name.strip_suffix("_proj.weight");
        let stored = module.and_then(|_| self.name_of(name)).unwrap_or_default();
        let stored = stored.replace(".weight", ".scale");
        let Some(info) = self.file.tensor(&stored) else {
            return Ok(None);
        };
        let values = vector(&self.file, info, 1);
        let values = values.map_err(|e| self.file.error(format!("`{stored}` {e}")))?;
        Ok(values.first().copied())
    }

    /// Width of the heads whose rows are in llama.cpp's order.
    fn turned_heads(&self, name: &str) -> Option<usize> {
        self.arch.turns(name).then(|| self.config.head_dim())
    }

    fn info(&self, name: &str, shape: &[usize]) -> Result<(String, &TensorInfo)> {
        let stored = self.name_of(name).unwrap_or_default();
        let Some(info) = self.file.tensor(&stored) else {
            return Err(self.file.error(format!(
                "`{stored}` ({name}) {shape:?} is missing; convert the model again"
            )));
        };
        if info.shape == shape {
            return Ok((stored, info));
        }
        Err(self.file.error(format!(
            "`{stored}` ({name}) has shape {:?}, but the metadata ask for {shape:?}",
            info.shape
        )))
    }

    fn tensor_error(&self, name: &str, message: &str) -> crate::QuantError {
        let stored = self.name_of(name).unwrap_or_default();
        self.file.error(format!("`{stored}` ({name}) {message}"))
    }
}

/// Values of a vector of `len` values.
pub(super) fn vector(file: &GgufFile, info: &TensorInfo, len: usize) -> Parsed<Vec<f32>> {
    if info.shape != [len] || info.kind.block_len() != 1 {
        return Err(format!(
            "is {} {:?}, but F32 [{len}] is needed",
            info.kind.name(),
            info.shape
        ));
    }
    let mut values = vec![0.0; len];
    dequantize(info.kind, file.bytes(info), &mut values);
    Ok(values)
}

/// Rows of a stored matrix.
#[derive(Debug)]
pub struct Rows<'a> {
    kind: TensorKind,
    bytes: &'a [u8],
    row_bytes: usize,
    cols: usize,
    head: Option<usize>,
}

impl Rows<'_> {
    /// Writes row `row` to `out`.
    ///
    /// # Panics
    /// Where there is no such row or `out` has another width.
    pub fn read(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols, "a row");
        let row = self.head.map_or(row, |head| stored_row(row, head));
        let bytes = &self.bytes[row * self.row_bytes..][..self.row_bytes];
        dequantize(self.kind, bytes, out);
    }
}

/// Where llama.cpp puts row `row` of Hugging Face: rows `i` and `i + head / 2` of a head become
/// neighbours.
fn stored_row(row: usize, head: usize) -> usize {
    let (start, at) = (row - row % head, row % head);
    start + 2 * (at % (head / 2)) + at / (head / 2)
}

/// The row of Hugging Face that llama.cpp has as row `stored`: undoes [`stored_row`].
pub(super) fn turned_row(stored: usize, head: usize) -> usize {
    let (start, at) = (stored - stored % head, stored % head);
    start + at / 2 + at % 2 * (head / 2)
}

/// Brings rows of `width` values from llama.cpp's order to that of Hugging Face.
fn reorder<T: Copy>(values: &mut [T], width: usize, head: usize) {
    let stored = values.to_vec();
    for (r, row) in values.chunks_exact_mut(width).enumerate() {
        row.copy_from_slice(&stored[stored_row(r, head) * width..][..width]);
    }
}
