//! Writes the model of a Hugging Face folder as a GGUF file.

use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::Dtype;

use super::encode;
use super::kind::TensorKind;
use super::metadata::{self, Pairs, put_text};
use super::model::{INPUT_BITS, turned_row};
use super::plan::{self, Content, Planned};
use super::scales::Scales;
use super::vocab;
use crate::config::{ModelConfig, QuantizationConfig, QuantizationMode};
use crate::error::{QuantError, Result};
use crate::fs::try_write_atomic_with;
use crate::hf_pack;
use crate::scheme::WeightQuant;
use crate::tensor_file::TensorFile;

/// Tensors begin at multiples of this.
const ALIGNMENT: usize = 32;

/// Type of the ternary projections in a GGUF file.
///
/// llama.cpp's types have an f16 scale in every block: the absmean is rounded to 11 bits there, at
/// most 0.05% of it (more below 6.1e-5, where f16 has fewer bits), and codes are exact. Blocks of a row
/// or a group of columns with one absmean have the same scale. bitnet.cpp's type keeps the f32 scale of
/// a tensor and with it every bit of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GgufTernary {
    /// llama.cpp, 2.06 bits a weight; rows of multiples of 256, scales of a tensor, a row or 256
    /// columns.
    Tq2_0,
    /// llama.cpp, 1.69 bits a weight; rows and scales as [`Self::Tq2_0`].
    Tq1_0,
    /// llama.cpp since July 2026, 2.25 bits a weight; rows of multiples of 64, scales of a tensor, a row,
    /// 256 or 128 columns.
    Q2_0,
    /// bitnet.cpp in its x86 layout, 2 bits a weight; rows of multiples of 128, one scale a tensor.
    I2S,
}

impl GgufTernary {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tq2_0, Self::Tq1_0, Self::Q2_0, Self::I2S];

    /// `tq2_0`, `tq1_0`, `q2_0` or `i2_s`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tq2_0 => "tq2_0",
            Self::Tq1_0 => "tq1_0",
            Self::Q2_0 => "q2_0",
            Self::I2S => "i2_s",
        }
    }

    /// The type with that [`Self::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The type of the tensors, and the number that `general.file_type` has for such a file.
    fn kind(self) -> (TensorKind, u32) {
        match self {
            Self::Tq2_0 => (TensorKind::Tq2_0, 37),
            Self::Tq1_0 => (TensorKind::Tq1_0, 36),
            Self::Q2_0 => (TensorKind::Q2_0, 41),
            Self::I2S => (TensorKind::I2S, 40),
        }
    }
}

/// Type of embedding and output head in a GGUF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum GgufEmbedding {
    /// 16 bits a value.
    #[default]
    F16,
    /// 8.5 bits a value; rows of multiples of 32.
    Q8_0,
    /// 6.56 bits a value; rows of multiples of 256.
    Q6K,
}

impl GgufEmbedding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F16, Self::Q8_0, Self::Q6K];

    /// `f16`, `q8_0` or `q6_k`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q6K => "q6_k",
        }
    }

    fn kind(self) -> TensorKind {
        match self {
            Self::F16 => TensorKind::F16,
            Self::Q8_0 => TensorKind::Q8_0,
            Self::Q6K => TensorKind::Q6K,
        }
    }
}

/// Writes the model in `folder`, with its tokenizer and chat template where it has them, to the GGUF
/// file `out`.
///
/// Ternary projections become tensors of type `ternary`: packed ones keep their codes, master
/// weights are quantised as `tritburn.quant.weights` says. Embedding and output head become `embedding`, norms and
/// biases are f32, and projections in full precision keep their type. Tensors are converted one by
/// one; the file takes its name when it is whole.
///
/// # Errors
/// [`QuantError::Config`] that names the field for what GGUF has no words for (other quantisers of
/// activations than BitNet b1.58's, norms without a name there, a tokenizer that is no byte-level BPE);
/// [`QuantError::Tensor`] for a tensor whose width, scales or values do not fit its type, or that is missing
/// or unknown; [`QuantError::Io`] where the system refuses.
pub fn write_gguf(
    folder: &Path,
    out: &Path,
    ternary: GgufTernary,
    embedding: GgufEmbedding,
) -> Result<()> {
    let config_path = folder.join("config.json");
    let config = ModelConfig::read(&config_path)?;
    let refuse = |message: String| QuantError::config(&config_path, message);
    let arch = metadata::arch(&config).map_err(refuse)?;
    let file = TensorFile::open_folder(folder)?;
    let (kind, file_type) = ternary.kind();
    let tensors = plan::plan(&config, arch, &file, [kind, embedding.kind()])?;
    let mut pairs = Pairs::default();
    metadata::write(&mut pairs, arch, &config).map_err(refuse)?;
    // 1 is a file of f16 tensors.
    let file_type = if config.is_ternary() { file_type } else { 1 };
    pairs.int("general.file_type", file_type);
    pairs.int("general.quantization_version", 2);
    if config.is_ternary() {
        pairs.int(INPUT_BITS, 8);
    }
    pairs.int("general.alignment", ALIGNMENT as u32);
    vocab::write(&mut pairs, folder, &config)?;
    let header = header(&file, &tensors, &pairs)?;
    let source = Source {
        file: &file,
        quantization: config.quantization_config.as_ref(),
        weights: config.quant_scheme().unwrap_or_default().weights,
    };
    try_write_atomic_with(out, |target| {
        let io = |source| QuantError::Io {
            path: out.to_path_buf(),
            source,
        };
        let mut target = BufWriter::with_capacity(1 << 20, target);
        target.write_all(&header).map_err(io)?;
        for tensor in &tensors {
            let mut bytes = source.encode(tensor)?;
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            target.write_all(&bytes).map_err(io)?;
        }
        file.check_unchanged()?;
        target.flush().map_err(io)
    })
}

/// Everything in front of the data.
fn header(file: &TensorFile, tensors: &[Planned], pairs: &Pairs) -> Result<Vec<u8>> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(pairs.count.to_le_bytes());
    out.extend(&pairs.bytes);
    let mut offset = 0;
    for tensor in tensors {
        put_text(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        // The file has the fastest dimension first.
        for size in tensor.shape.iter().rev() {
            out.extend((*size as u64).to_le_bytes());
        }
        out.extend(tensor.kind.id().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        let bytes = tensor.bytes();
        let bytes = bytes.map_err(|e| error(file, &tensor.source, &e))?;
        offset += bytes.next_multiple_of(ALIGNMENT);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    Ok(out)
}

fn error(file: &TensorFile, name: &str, message: &str) -> QuantError {
    QuantError::tensor(file.path_of(name), format!("`{name}`: {message}"))
}

/// Tensors of the folder in the form of the file.
struct Source<'a> {
    file: &'a TensorFile,
    quantization: Option<&'a QuantizationConfig>,
    weights: WeightQuant,
}

impl Source<'_> {
    fn error(&self, name: &str, message: &str) -> QuantError {
        error(self.file, name, message)
    }

    fn encode(&self, tensor: &Planned) -> Result<Vec<u8>> {
        match (&tensor.content, self.quantization) {
            (Content::Ternary, Some(quantization)) => self.ternary(tensor, quantization),
            (Content::Given(values), _) => Ok(self.plain(tensor, values)?),
            _ => {
                let values = self.file.tensor_f32(&tensor.source, &tensor.shape)?;
                self.plain(tensor, &values)
            }
        }
    }

    fn plain(&self, tensor: &Planned, values: &[f32]) -> Result<Vec<u8>> {
        let [rows, cols] = tensor.matrix();
        let mut out = Vec::with_capacity(tensor.bytes().unwrap_or(0));
        let mut row = vec![0.0; cols];
        for r in 0..rows {
            let r = tensor.head.map_or(r, |head| turned_row(r, head));
            row.copy_from_slice(&values[r * cols..][..cols]);
            if tensor.offset != 0.0 {
                row.iter_mut().for_each(|v| *v += tensor.offset);
            }
            if !encode::values(tensor.kind, &row, &mut out) {
                let message = format!(
                    "has values in row {r} that are not finite as {}",
                    tensor.kind.name()
                );
                return Err(self.error(&tensor.source, &message));
            }
        }
        Ok(out)
    }

    fn ternary(&self, tensor: &Planned, quantization: &QuantizationConfig) -> Result<Vec<u8>> {
        let (name, kind) = (&tensor.source, tensor.kind);
        let [rows, cols] = tensor.matrix();
        let mut out = Vec::with_capacity(tensor.bytes().unwrap_or(0));
        let mut encode = |scales: &Scales, read: &dyn Fn(usize, &mut [i8])| {
            self.check_scales(tensor, scales)?;
            let (mut codes, mut blocks) = (vec![0i8; cols], Vec::new());
            for r in 0..rows {
                let r = tensor.head.map_or(r, |h| turned_row(r, h));
                read(r, &mut codes);
                blocks.clear();
                blocks.extend(scales.blocks(r, cols, kind.block_len()));
                encode::ternary_row(kind, &codes, &blocks, &mut out);
            }
            if kind == TensorKind::I2S {
                out.extend(encode::i2s_tail(scales.values[0]));
            }
            Ok(())
        };
        match quantization.quantization_mode {
            QuantizationMode::Offline => {
                let shape = [hf_pack::packed_rows(rows), cols];
                let packed = self.file.bytes(name, Dtype::U8, &shape)?;
                hf_pack::check(packed, rows, cols).map_err(|e| self.error(name, &e.to_string()))?;
                let class = quantization.linear_class;
                let scales = Scales::read(self.file, name, [rows, cols], class, self.weights)?;
                encode(&scales, &|r, codes| {
                    hf_pack::unpack_row(packed, rows, r, codes);
                })?;
            }
            QuantizationMode::Online => {
                let master = self.file.tensor_f32(name, &tensor.shape)?;
                if !master.iter().all(|v| v.is_finite()) {
                    return Err(self.error(name, "holds NaN or infinity; the weights are damaged"));
                }
                let quantised = crate::weight::quantise(&master, cols, self.weights);
                let Some(w) = quantised.filter(|w| !w.scales.is_empty()) else {
                    return Err(self.error(name, "has no values"));
                };
                drop(master);
                encode(&Scales::new(w.scales, self.weights), &|r, row| {
                    row.copy_from_slice(&w.codes[r * cols..][..cols]);
                })?;
            }
        }
        Ok(out)
    }

    fn check_scales(&self, tensor: &Planned, scales: &Scales) -> Result<()> {
        let lost = |scale: &&f32| {
            let rounded = half::f16::from_f32(**scale).to_f32();
            !(rounded > 0.0 && rounded.is_finite())
        };
        match scales.values.iter().find(lost) {
            Some(scale) if tensor.kind != TensorKind::I2S => {
                let whole = tensor.matrix()[1].is_multiple_of(TensorKind::I2S.block_len());
                let remedy = match scales.values.len() {
                    1 if whole => "use i2_s",
                    _ => "keep the Hugging Face folder",
                };
                let message = format!("has scale {scale}, which f16 cannot hold; {remedy}");
                Err(self.error(&tensor.source, &message))
            }
            _ => Ok(()),
        }
    }
}
