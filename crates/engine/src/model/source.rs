//! Where weights come from: a model folder, or a seed.

use std::collections::HashSet;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tritburn_kernels::activations::GROUP;
use tritburn_kernels::{DenseMatrix, Format, Int8Matrix, Scales, TernaryMatrix};
use tritburn_quant::Dtype;
use tritburn_quant::config::{LinearClass, QuantizationConfig, QuantizationMode};
use tritburn_quant::hf_pack::{packed_rows, unpack};
use tritburn_quant::scheme::{Granularity, WeightQuant};
use tritburn_quant::tensor_file::{LEFT_OVER, TensorFile};

use super::linear::Weight;
use super::table::{HeadFormat, Table};
use crate::error::{EngineError, Result};

/// What is said of a tensor with values that are no numbers.
pub(crate) const NOT_FINITE: &str = "holds NaN or infinity; the weights are damaged";

/// Gives the tensors of a model by name.
pub(crate) trait Source: Send {
    /// A vector of norm weights.
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>>;

    /// A matrix in full precision.
    fn dense(&mut self, name: &str, rows: usize, cols: usize) -> Result<DenseMatrix>;

    /// Output head or embedding.
    fn table(&mut self, name: &str, rows: usize, cols: usize, format: HeadFormat) -> Result<Table>;

    /// The weight of projection `module`, in the form that `quantization` asks for: how it is
    /// stored, and by which quantiser.
    fn projection(
        &mut self,
        module: &str,
        rows: usize,
        cols: usize,
        quantization: Option<(&QuantizationConfig, WeightQuant)>,
        format: Format,
    ) -> Result<Weight>;
}

/// The tensors of a folder; remembers which were asked for.
#[derive(Debug)]
pub(crate) struct FileSource<'a> {
    file: &'a TensorFile,
    used: HashSet<String>,
}

impl<'a> FileSource<'a> {
    pub(crate) fn new(file: &'a TensorFile) -> Self {
        Self {
            file,
            used: HashSet::new(),
        }
    }

    /// Refuses a folder with tensors that this architecture has no place for: without them the
    /// model would run and answer nonsense.
    pub(crate) fn check_all_used(&self, tied: bool) -> Result<()> {
        match self.file.left_over(&self.used, tied) {
            None => Ok(()),
            Some(name) => Err(self.error(name, LEFT_OVER)),
        }
    }

    fn use_name(&mut self, name: &str) {
        self.used.insert(name.to_owned());
    }

    fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.use_name(name);
        let values = self.file.tensor_f32(name, shape)?;
        if values.iter().all(|v| v.is_finite()) {
            Ok(values)
        } else {
            Err(self.error(name, NOT_FINITE))
        }
    }

    /// `weight_scale` as a factor of the output.
    fn scale(&mut self, module: &str, class: LinearClass) -> Result<f32> {
        let name = format!("{module}.weight_scale");
        let scalar = matches!(self.file.info(&name), Some((_, [])));
        let value = self.values(&name, if scalar { &[] } else { &[1] })?[0];
        let scale = match class {
            LinearClass::BitLinear => 1.0 / value,
            LinearClass::AutoBitLinear => value,
        };
        if value > 0.0 && scale.is_finite() {
            Ok(scale)
        } else {
            Err(self.error(&name, &format!("is {value}, but a scale must be positive")))
        }
    }

    /// `weight_scale` of a matrix with several, as factors of the output: `[rows]`, or
    /// `[rows, groups]`.
    fn scales(
        &mut self,
        module: &str,
        class: LinearClass,
        [rows, cols]: [usize; 2],
        quant: WeightQuant,
    ) -> Result<Vec<f32>> {
        let name = format!("{module}.weight_scale");
        let mut scales = match quant.granularity() {
            Granularity::Group(size) => self.values(&name, &[rows, cols / size])?,
            _ => self.values(&name, &[rows])?,
        };
        if class == LinearClass::BitLinear {
            scales.iter_mut().for_each(|s| *s = 1.0 / *s);
        }
        match scales.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            None => Ok(scales),
            Some(scale) => {
                Err(self.error(&name, &format!("has {scale}, but a scale must be positive")))
            }
        }
    }

    /// Reads rows one by one, so that no f32 copy of a large tensor is made.
    fn int8(&mut self, name: &str, rows: usize, cols: usize) -> Result<Int8Matrix> {
        let found = self.file.info(name).map(|(dtype, _)| dtype);
        let read: fn(&[u8], &mut [f32]) = match found {
            Some(Dtype::BF16) => |bytes, out| {
                for (out, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = half::bf16::from_le_bytes(*b).to_f32();
                }
            },
            Some(Dtype::F16) => |bytes, out| {
                for (out, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = half::f16::from_le_bytes(*b).to_f32();
                }
            },
            _ => |bytes, out| {
                for (out, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = f32::from_le_bytes(*b);
                }
            },
        };
        // For another type, the error says which are right.
        let dtype = found.filter(|d| matches!(d, Dtype::BF16 | Dtype::F16 | Dtype::F32));
        let Some(dtype) = dtype else {
            let values = self.values(name, &[rows, cols])?;
            let row = |r: usize, out: &mut [f32]| out.copy_from_slice(&values[r * cols..][..cols]);
            return Ok(Int8Matrix::quantize(rows, cols, row)?);
        };
        let bytes = self.file.bytes(name, dtype, &[rows, cols])?;
        let width = cols * dtype.bitsize() / 8;
        let mut finite = true;
        let matrix = Int8Matrix::quantize(rows, cols, |r, out| {
            read(&bytes[r * width..][..width], out);
            finite &= out.iter().all(|v| v.is_finite());
        })?;
        self.use_name(name);
        if finite {
            Ok(matrix)
        } else {
            Err(self.error(name, NOT_FINITE))
        }
    }

    fn error(&self, name: &str, message: &str) -> EngineError {
        EngineError::Tensor {
            path: self.file.path_of(name).to_path_buf(),
            name: name.to_owned(),
            message: message.to_owned(),
        }
    }
}

impl Source for FileSource<'_> {
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.values(name, &[len])
    }

    fn dense(&mut self, name: &str, rows: usize, cols: usize) -> Result<DenseMatrix> {
        Ok(DenseMatrix::new(
            self.values(name, &[rows, cols])?,
            rows,
            cols,
        )?)
    }

    fn table(&mut self, name: &str, rows: usize, cols: usize, format: HeadFormat) -> Result<Table> {
        Ok(match format {
            HeadFormat::F32 => Table::F32(self.dense(name, rows, cols)?),
            HeadFormat::Int8 => Table::Int8(self.int8(name, rows, cols)?),
        })
    }

    fn projection(
        &mut self,
        module: &str,
        rows: usize,
        cols: usize,
        quantization: Option<(&QuantizationConfig, WeightQuant)>,
        format: Format,
    ) -> Result<Weight> {
        let name = format!("{module}.weight");
        let Some((quantization, quant)) = quantization else {
            return Ok(Weight::Dense(self.dense(&name, rows, cols)?));
        };
        let matrix = match quantization.quantization_mode {
            QuantizationMode::Online => {
                let master = self.values(&name, &[rows, cols])?;
                let Some(w) = tritburn_quant::weight::quantise(&master, cols, quant) else {
                    return Err(EngineError::Unsupported(
                        "quantised activations need quantised weights, but `tritburn.quant.weights` \
                         is none"
                            .into(),
                    ));
                };
                let scales = scales(w.scales, quant);
                TernaryMatrix::with_scales(&w.codes, rows, cols, scales, format)?
            }
            QuantizationMode::Offline => {
                self.use_name(&name);
                let packed = self
                    .file
                    .bytes(&name, Dtype::U8, &[packed_rows(rows), cols])?;
                let class = quantization.linear_class;
                let matrix = if quant.granularity() == Granularity::Tensor {
                    let scale = self.scale(module, class)?;
                    TernaryMatrix::from_hf_packed(packed, rows, cols, scale, format)
                } else {
                    let scales = scales(self.scales(module, class, [rows, cols], quant)?, quant);
                    let codes = unpack(packed, rows, cols)?;
                    TernaryMatrix::with_scales(&codes, rows, cols, scales, format)
                };
                matrix.map_err(|e| self.error(&name, &e.to_string()))?
            }
        };
        Ok(Weight::Ternary(matrix))
    }
}

/// Scales as the kernels take them: groups are of 128 columns there.
fn scales(scales: Vec<f32>, quant: WeightQuant) -> Scales {
    match quant.granularity() {
        Granularity::Tensor => Scales::Tensor(scales[0]),
        Granularity::Row => Scales::Row(scales),
        Granularity::Group(size) => {
            let repeated = |s| std::iter::repeat_n(s, size / GROUP);
            Scales::Group(scales.into_iter().flat_map(repeated).collect())
        }
    }
}

/// Weights without meaning, to measure speed with.
#[derive(Debug)]
pub(crate) struct RandomSource {
    rng: ChaCha8Rng,
}

impl RandomSource {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Uniform with the variance that keeps activations as large as they came.
    fn fill(&mut self, values: &mut [f32], cols: usize) {
        let bound = (3.0 / cols as f32).sqrt();
        for value in values {
            *value = (self.rng.next_u32() as f32 / (1u32 << 31) as f32 - 1.0) * bound;
        }
    }
}

impl Source for RandomSource {
    fn vector(&mut self, _: &str, len: usize) -> Result<Vec<f32>> {
        Ok(vec![1.0; len])
    }

    fn dense(&mut self, _: &str, rows: usize, cols: usize) -> Result<DenseMatrix> {
        let mut values = vec![0.0; rows * cols];
        self.fill(&mut values, cols);
        Ok(DenseMatrix::new(values, rows, cols)?)
    }

    fn table(&mut self, name: &str, rows: usize, cols: usize, format: HeadFormat) -> Result<Table> {
        Ok(match format {
            HeadFormat::F32 => Table::F32(self.dense(name, rows, cols)?),
            HeadFormat::Int8 => {
                let row = |_, out: &mut [f32]| self.fill(out, cols);
                Table::Int8(Int8Matrix::quantize(rows, cols, row)?)
            }
        })
    }

    fn projection(
        &mut self,
        module: &str,
        rows: usize,
        cols: usize,
        quantization: Option<(&QuantizationConfig, WeightQuant)>,
        format: Format,
    ) -> Result<Weight> {
        if quantization.is_none() {
            return Ok(Weight::Dense(self.dense(module, rows, cols)?));
        }
        // Every byte of four codes, none of them 3.
        let bytes: Vec<u8> = (0..=u8::MAX).filter(|b| b & (b >> 1) & 0x55 == 0).collect();
        let mut packed = vec![0u8; packed_rows(rows) * cols];
        self.rng.fill_bytes(&mut packed);
        for byte in &mut packed {
            // The largest would come to the first codes once more.
            while *byte >= 243 {
                *byte = self.rng.next_u32() as u8;
            }
            *byte = bytes[usize::from(*byte) % bytes.len()];
        }
        let scale = (1.5 / cols as f32).sqrt();
        let matrix = TernaryMatrix::from_hf_packed(&packed, rows, cols, scale, format)?;
        Ok(Weight::Ternary(matrix))
    }
}
