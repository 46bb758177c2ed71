//! Where weights come from: a model folder, or a seed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tritburn_kernels::activations::GROUP;
use tritburn_kernels::{Buffer, DenseMatrix, PackedCodes, Pool, Result as KernelResult, Scales};
use tritburn_quant::Dtype;
use tritburn_quant::config::{LinearClass, QuantizationConfig, QuantizationMode};
use tritburn_quant::hf_pack::packed_rows;
use tritburn_quant::scheme::{Granularity, WeightQuant};
use tritburn_quant::tensor_file::{LEFT_OVER, TensorFile};

use super::linear::{Layout, Weight};
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
    /// stored, and by which quantiser; packed as `layout` where it is ternary.
    fn projection(
        &mut self,
        module: &str,
        rows: usize,
        cols: usize,
        quantization: Option<(&QuantizationConfig, WeightQuant)>,
        layout: Layout,
    ) -> Result<Weight>;

    /// Whether the model was trained with inputs of ternary projections in full precision. Its weights then all have
    /// scales per group.
    fn has_full_inputs(&self) -> bool {
        false
    }
}

/// Rows of a large tensor after which what was read of the file is given back.
const RELEASED: usize = 256;

/// The tensors of a folder; remembers which were asked for.
#[derive(Debug)]
pub(crate) struct FileSource<'a> {
    file: &'a TensorFile,
    pool: &'a Pool,
    used: HashSet<String>,
}

impl<'a> FileSource<'a> {
    /// Reads on all threads of `pool`.
    pub(crate) fn new(file: &'a TensorFile, pool: &'a Pool) -> Self {
        Self {
            file,
            pool,
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

    /// A matrix that `make` makes of its rows: `read(r, out)` writes row `r`. Rows are read one by one
    /// from the file, so that no second copy of a large tensor is made.
    fn by_rows<T>(
        &mut self,
        name: &str,
        [rows, cols]: [usize; 2],
        make: impl FnOnce(&Pool, &(dyn Fn(usize, &mut [f32]) + Sync)) -> KernelResult<T>,
    ) -> Result<T> {
        self.use_name(name);
        let (dtype, bytes) = self.file.floats(name, &[rows, cols])?;
        let width = cols * dtype.bitsize() / 8;
        let finite = AtomicBool::new(true);
        let made = make(self.pool, &|r, out| {
            read_floats(dtype, &bytes[r * width..][..width], out);
            // Without a way out of the loop it is one of vectors.
            if out.iter().fold(false, |bad, v| bad | !v.is_finite()) {
                finite.store(false, Ordering::Relaxed);
            }
            if (r + 1).is_multiple_of(RELEASED) {
                self.file
                    .release(name, (r + 1 - RELEASED) * width..(r + 1) * width);
            }
        })?;
        self.file.release(name, 0..bytes.len());
        if finite.into_inner() {
            Ok(made)
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
        self.by_rows(name, [rows, cols], |pool, read| {
            DenseMatrix::from_rows(pool, rows, cols, read)
        })
    }

    fn table(&mut self, name: &str, rows: usize, cols: usize, format: HeadFormat) -> Result<Table> {
        self.by_rows(name, [rows, cols], |pool, read| {
            Table::from_rows(pool, [rows, cols], format, read)
        })
    }

    fn projection(
        &mut self,
        module: &str,
        rows: usize,
        cols: usize,
        quantization: Option<(&QuantizationConfig, WeightQuant)>,
        layout: Layout,
    ) -> Result<Weight> {
        let name = format!("{module}.weight");
        let Some((quantization, quant)) = quantization else {
            return Ok(Weight::Dense(self.dense(&name, rows, cols)?));
        };
        let codes = match quantization.quantization_mode {
            QuantizationMode::Online => {
                let master = self.values(&name, &[rows, cols])?;
                let Some(w) = tritburn_quant::weight::quantise(&master, cols, quant) else {
                    return Err(EngineError::Unsupported(
                        "quantised activations need quantised weights, but `tritburn.quant.weights` \
                         is none"
                            .into(),
                    ));
                };
                PackedCodes::from_codes(&w.codes, rows, cols, scales(w.scales, quant))?
            }
            QuantizationMode::Offline => {
                self.use_name(&name);
                let packed = self
                    .file
                    .bytes(&name, Dtype::U8, &[packed_rows(rows), cols])?;
                let class = quantization.linear_class;
                let scales = if quant.granularity() == Granularity::Tensor {
                    Scales::Tensor(self.scale(module, class)?)
                } else {
                    scales(self.scales(module, class, [rows, cols], quant)?, quant)
                };
                let codes = PackedCodes::new(self.pool, packed, rows, cols, scales);
                codes.map_err(|e| self.error(&name, &e.to_string()))?
            }
        };
        let weight = Weight::pack(self.pool, &codes, layout);
        self.file.release(&name, 0..usize::MAX);
        weight
    }
}

/// Little-endian values of a row as f32.
fn read_floats(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        // The upper half of an f32. The library's conversion looks at every value for NaN.
        Dtype::BF16 => {
            for (out, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
        }
        Dtype::F16 => {
            for (out, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = half::f16::from_le_bytes(*b).to_f32();
            }
        }
        _ => {
            for (out, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f32::from_le_bytes(*b);
            }
        }
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
pub(crate) struct RandomSource<'a> {
    rng: ChaCha8Rng,
    pool: &'a Pool,
    /// Codes of the last projection.
    packed: Buffer<u8>,
}

impl<'a> RandomSource<'a> {
    pub(crate) fn new(seed: u64, pool: &'a Pool) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            pool,
            packed: Buffer::new(),
        }
    }

    /// Writes rows of a matrix, the same in every order: uniform with the variance that keeps
    /// activations as large as they came.
    fn rows(&mut self, cols: usize) -> impl Fn(usize, &mut [f32]) + Sync + use<> {
        let seed = self.rng.next_u64();
        let bound = (3.0 / cols as f32).sqrt();
        move |row, values| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(row as u64);
            for value in values {
                *value = (rng.next_u32() as f32 / (1u32 << 31) as f32 - 1.0) * bound;
            }
        }
    }
}

impl Source for RandomSource<'_> {
    fn vector(&mut self, _: &str, len: usize) -> Result<Vec<f32>> {
        Ok(vec![1.0; len])
    }

    fn dense(&mut self, _: &str, rows: usize, cols: usize) -> Result<DenseMatrix> {
        let row = self.rows(cols);
        Ok(DenseMatrix::from_rows(self.pool, rows, cols, row)?)
    }

    fn table(&mut self, _: &str, rows: usize, cols: usize, format: HeadFormat) -> Result<Table> {
        let row = self.rows(cols);
        Ok(Table::from_rows(self.pool, [rows, cols], format, row)?)
    }

    fn projection(
        &mut self,
        module: &str,
        rows: usize,
        cols: usize,
        quantization: Option<(&QuantizationConfig, WeightQuant)>,
        layout: Layout,
    ) -> Result<Weight> {
        let Some((_, quant)) = quantization else {
            return Ok(Weight::Dense(self.dense(module, rows, cols)?));
        };
        // Every byte of four codes, none of them 3.
        let bytes: Vec<u8> = (0..=u8::MAX).filter(|b| b & (b >> 1) & 0x55 == 0).collect();
        self.packed.resize(packed_rows(rows) * cols);
        self.rng.fill_bytes(&mut self.packed);
        for byte in &mut *self.packed {
            // The largest would come to the first codes once more.
            while *byte >= 243 {
                *byte = self.rng.next_u32() as u8;
            }
            *byte = bytes[usize::from(*byte) % bytes.len()];
        }
        let scale = (1.5 / cols as f32).sqrt();
        let count = match quant.granularity() {
            Granularity::Tensor => 1,
            Granularity::Row => rows,
            Granularity::Group(size) => rows * (cols / size),
        };
        let scales = scales(vec![scale; count], quant);
        let codes = PackedCodes::new(self.pool, &self.packed, rows, cols, scales)?;
        Weight::pack(self.pool, &codes, layout)
    }
}
