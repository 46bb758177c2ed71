//! What the codes of a folder's projections stand for.

use super::kind::TensorKind;
use crate::config::LinearClass;
use crate::error::{QuantError, Result};
use crate::scheme::{Granularity, WeightQuant};
use crate::tensor_file::TensorFile;

/// Scales of a matrix: one for all, one a row, or one for each group of columns of a row.
#[derive(Debug)]
pub(super) struct Scales {
    /// In the order of rows, and of groups within them; never empty.
    pub(super) values: Vec<f32>,
    granularity: Granularity,
}

impl Scales {
    /// `values` as `quant` makes them of a matrix.
    pub(super) fn new(values: Vec<f32>, quant: WeightQuant) -> Self {
        let granularity = quant.granularity();
        Self {
            values,
            granularity,
        }
    }

    /// The scales beside the packed matrix `name`, as tritburn's exports store them:
    /// `NAME_scale` of one value, `[rows]` or `[rows, groups]`.
    ///
    /// # Errors
    /// Where they are missing, of another shape, or not positive.
    pub(super) fn read(
        file: &TensorFile,
        name: &str,
        [rows, cols]: [usize; 2],
        class: LinearClass,
        quant: WeightQuant,
    ) -> Result<Self> {
        let name = format!("{name}_scale");
        let error = |message: String| {
            QuantError::tensor(file.path_of(&name), format!("`{name}`: {message}"))
        };
        let stored = file.info(&name).map(|(_, shape)| shape);
        let (wanted, words) = match quant.granularity() {
            Granularity::Tensor if stored == Some(&[]) => (vec![], ""),
            Granularity::Tensor => (vec![1], "one scale a tensor"),
            Granularity::Row => (vec![rows], "one scale a row"),
            Granularity::Group(size) => (vec![rows, cols / size], "one scale for each group"),
        };
        if let Some(stored) = stored.filter(|stored| *stored != wanted) {
            return Err(error(format!(
                "has shape {stored:?}, but config.json (`tritburn.quant.weights`) asks for {words}, \
                 {wanted:?}; export the run again"
            )));
        }
        let mut values = file.tensor_f32(&name, &wanted)?;
        for value in &mut values {
            let stored = *value;
            if class == LinearClass::BitLinear {
                *value = 1.0 / stored;
            }
            if !(stored > 0.0 && value.is_finite()) {
                return Err(error(format!("is {stored}, but a scale must be positive")));
            }
        }
        Ok(Self::new(values, quant))
    }

    /// The scale of each block of `len` columns of row `row`, of `cols` in all: as many as fit, since
    /// no block has two ([`problem`]).
    pub(super) fn blocks(&self, row: usize, cols: usize, len: usize) -> impl Iterator<Item = f32> {
        let (start, size) = match self.granularity {
            Granularity::Tensor => (0, cols),
            Granularity::Row => (row, cols),
            Granularity::Group(size) => (row * (cols / size), size),
        };
        (0..cols / len).map(move |block| self.values[start + block * len / size])
    }
}

/// Why tensors of a ternary type cannot have the scales of `quant`, and what to do.
pub(super) fn problem(kind: TensorKind, quant: WeightQuant) -> Option<String> {
    let (of, fits) = match quant.granularity() {
        Granularity::Tensor => return None,
        Granularity::Row => ("row".to_owned(), kind != TensorKind::I2S),
        Granularity::Group(size) => {
            let whole = size.is_multiple_of(kind.block_len());
            (format!("{size} columns"), whole && kind != TensorKind::I2S)
        }
    };
    let has = match kind {
        TensorKind::I2S => "the tensor".to_owned(),
        _ => format!("{} columns", kind.block_len()),
    };
    (!fits).then(|| {
        format!(
            "has a scale for each {of}, but {} has one for {has}; use q2_0, or keep the Hugging Face \
             folder",
            kind.name()
        )
    })
}
