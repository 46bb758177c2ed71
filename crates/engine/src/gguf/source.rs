//! Weights from a GGUF file.

use std::collections::HashSet;
use std::iter::repeat_n;
use std::sync::atomic::{AtomicBool, Ordering};

use tritburn_kernels::activations::GROUP;
use tritburn_kernels::{DenseMatrix, PackedCodes, Pool, Scales};
use tritburn_quant::config::QuantizationConfig;
use tritburn_quant::gguf::{GgufModel, TernaryScales};
use tritburn_quant::scheme::WeightQuant;

use crate::error::{EngineError, Result};
use crate::model::{HeadFormat, Layout, NOT_FINITE, Source, Table, Weight};

/// The tensors of a file; remembers which were asked for.
#[derive(Debug)]
pub(crate) struct GgufSource<'a> {
    model: &'a GgufModel,
    pool: &'a Pool,
    used: HashSet<String>,
}

impl<'a> GgufSource<'a> {
    /// Packs on all threads of `pool`.
    pub(crate) fn new(model: &'a GgufModel, pool: &'a Pool) -> Self {
        Self {
            model,
            pool,
            used: HashSet::new(),
        }
    }

    /// Refuses a file with tensors that this architecture has no place for.
    pub(crate) fn check_all_used(&self) -> Result<()> {
        match self.model.unused(|name| self.used.contains(name)) {
            None => Ok(()),
            Some(name) => Err(EngineError::Tensor {
                path: self.model.file().path().to_path_buf(),
                name: name.to_owned(),
                message: "the metadata describe a model without this tensor; it is of an \
                          architecture that is not supported"
                    .into(),
            }),
        }
    }

    fn use_name(&mut self, name: &str) {
        self.used.extend(self.model.name_of(name));
    }

    fn error(&self, name: &str, message: &str) -> EngineError {
        let stored = self.model.name_of(name);
        EngineError::Tensor {
            path: self.model.file().path().to_path_buf(),
            name: stored.unwrap_or_else(|| name.to_owned()),
            message: message.to_owned(),
        }
    }

    fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.use_name(name);
        let values = self.model.tensor_f32(name, shape)?;
        if values.iter().all(|v| v.is_finite()) {
            Ok(values)
        } else {
            Err(self.error(name, NOT_FINITE))
        }
    }
}

impl Source for GgufSource<'_> {
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.values(name, &[len])
    }

    fn dense(&mut self, name: &str, rows: usize, cols: usize) -> Result<DenseMatrix> {
        let values = self.values(name, &[rows, cols])?;
        Ok(DenseMatrix::new(values, rows, cols)?)
    }

    fn table(&mut self, name: &str, rows: usize, cols: usize, format: HeadFormat) -> Result<Table> {
        self.use_name(name);
        let stored = self.model.matrix(name, rows, cols)?;
        let finite = AtomicBool::new(true);
        let table = Table::from_rows(self.pool, [rows, cols], format, |r, out| {
            stored.read(r, out);
            if !out.iter().all(|v| v.is_finite()) {
                finite.store(false, Ordering::Relaxed);
            }
        })?;
        if finite.into_inner() {
            Ok(table)
        } else {
            Err(self.error(name, NOT_FINITE))
        }
    }

    /// Ternary where the file stores it so, whatever the configuration says of the whole model.
    fn projection(
        &mut self,
        module: &str,
        rows: usize,
        cols: usize,
        _: Option<(&QuantizationConfig, WeightQuant)>,
        layout: Layout,
    ) -> Result<Weight> {
        let name = format!("{module}.weight");
        self.use_name(&name);
        let Some(tensor) = self.model.ternary(&name, rows, cols)? else {
            return Ok(Weight::Dense(self.dense(&name, rows, cols)?));
        };
        let groups = cols.div_ceil(GROUP);
        let repeated = |s: Vec<f32>, n| s.into_iter().flat_map(|s| repeat_n(s, n)).collect();
        let scales = match (tensor.scales, self.has_full_inputs()) {
            (TernaryScales::Tensor(scale), true) => Scales::Group(vec![scale; rows * groups]),
            (TernaryScales::Row(scales), true) => Scales::Group(repeated(scales, groups)),
            (TernaryScales::Tensor(scale), false) => Scales::Tensor(scale),
            (TernaryScales::Row(scales), false) => Scales::Row(scales),
            (TernaryScales::Group(scales), _) => Scales::Group(scales),
        };
        let codes = PackedCodes::from_codes(&tensor.codes, rows, cols, scales)
            .map_err(|e| self.error(&name, &e.to_string()))?;
        Weight::pack(self.pool, &codes, layout)
    }

    fn has_full_inputs(&self) -> bool {
        self.model.has_full_inputs()
    }
}
