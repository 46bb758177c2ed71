//! A mapped GGUF file.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use super::header;
use super::kind::TensorKind;
use super::value::{Array, Scalar, Value};
use crate::error::{QuantError, Result};
use crate::mmap::Mapped;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// How it is stored.
    pub kind: TensorKind,
    /// Row major: the reverse of what the file says.
    pub shape: Vec<usize>,
    pub(super) start: usize,
    pub(super) bytes: usize,
}

/// A whole file, whose header has been checked against its length.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    map: Mapped,
    metadata: BTreeMap<String, Value>,
    tensors: HashMap<String, TensorInfo>,
}

impl GgufFile {
    /// Maps a file and reads its header.
    ///
    /// # Errors
    /// [`QuantError::Io`] where it cannot be read; [`QuantError::Tensor`] where it is no GGUF file,
    /// is cut off, or has tensors that are misplaced or of an unsupported type.
    pub fn open(path: &Path) -> Result<Self> {
        let map = Mapped::open(path)?;
        let header = header::read(&map).map_err(|e| QuantError::tensor(path, e))?;
        Ok(Self {
            path: path.to_path_buf(),
            map,
            metadata: header.metadata,
            tensors: header.tensors,
        })
    }

    /// Whether the file is what it was when it was opened: to be asked after the last read.
    ///
    /// # Errors
    /// [`QuantError::Tensor`] where it was shortened or written to.
    pub fn check_unchanged(&self) -> Result<()> {
        self.map.check()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Type and shape of a tensor.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The bytes of a tensor.
    pub(super) fn bytes(&self, info: &TensorInfo) -> &[u8] {
        &self.map[info.start..info.start + info.bytes]
    }

    /// All metadata by key.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// A whole number that fits in 64 bits and is not negative.
    ///
    /// # Errors
    /// [`QuantError::Tensor`] where the value is something else.
    pub fn int(&self, key: &str) -> Result<Option<u64>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Int(v)) if u64::try_from(*v).is_ok() => Ok(u64::try_from(*v).ok()),
            Some(other) => Err(self.not_a(key, other, "a whole number")),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// [`QuantError::Tensor`] where the value is something else.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Float(v)) => Ok(Some(*v)),
            Some(Value::Int(v)) => Ok(Some(*v as f64)),
            Some(other) => Err(self.not_a(key, other, "a number")),
        }
    }

    /// True or false.
    ///
    /// # Errors
    /// [`QuantError::Tensor`] where the value is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Bool(v)) => Ok(Some(*v)),
            Some(other) => Err(self.not_a(key, other, "true or false")),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// [`QuantError::Tensor`] where the value is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Text(v)) => Ok(Some(v)),
            Some(other) => Err(self.not_a(key, other, "a text")),
        }
    }

    /// An array of texts.
    ///
    /// # Errors
    /// [`QuantError::Tensor`] where the value is something else.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        let Some(array) = self.array(key, &[Scalar::Text], "an array of texts")? else {
            return Ok(None);
        };
        let mut cursor = Cursor::new(&self.map, array.start);
        let all = (0..array.len).map(|_| cursor.text());
        let all: std::result::Result<Vec<String>, String> = all.collect();
        all.map(Some)
            .map_err(|e| self.error(format!("`{key}`: {e}")))
    }

    /// An array of whole numbers of 32 bits or less.
    ///
    /// # Errors
    /// [`QuantError::Tensor`] where the value is something else.
    pub fn ints(&self, key: &str) -> Result<Option<Vec<i64>>> {
        use Scalar::{I8, I16, I32, U8, U16, U32};
        let kinds = [U8, I8, U16, I16, U32, I32];
        self.numbers(key, &kinds, "an array of whole numbers", |v| match v {
            Value::Int(v) => i64::try_from(v).ok(),
            _ => None,
        })
    }

    /// An array of f32.
    ///
    /// # Errors
    /// [`QuantError::Tensor`] where the value is something else.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.numbers(key, &[Scalar::F32], "an array of f32", |v| match v {
            Value::Float(v) => Some(v),
            _ => None,
        })
    }

    fn numbers<T>(
        &self,
        key: &str,
        kinds: &[Scalar],
        what: &str,
        convert: impl Fn(Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(array) = self.array(key, kinds, what)? else {
            return Ok(None);
        };
        let mut cursor = Cursor::new(&self.map, array.start);
        let mut read = || convert(Value::read_scalar(array.kind, &mut cursor).ok()?);
        let all: Option<Vec<T>> = (0..array.len).map(|_| read()).collect();
        all.map(Some)
            .ok_or_else(|| self.error(format!("`{key}` must be {what}")))
    }

    fn array(&self, key: &str, kinds: &[Scalar], what: &str) -> Result<Option<&Array>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if kinds.contains(&array.kind) => Ok(Some(array)),
            Some(other) => Err(self.not_a(key, other, what)),
        }
    }

    fn not_a(&self, key: &str, found: &Value, wanted: &str) -> QuantError {
        let found = match found {
            Value::Array(array) => format!("an array of {:?}", array.kind),
            Value::Text(_) => "a text".into(),
            Value::Int(v) => v.to_string(),
            Value::Float(v) => v.to_string(),
            Value::Bool(v) => v.to_string(),
        };
        self.error(format!("`{key}` is {found}, it must be {wanted}"))
    }

    /// An error of this file.
    pub(super) fn error(&self, message: impl Into<String>) -> QuantError {
        QuantError::tensor(&self.path, message)
    }
}
