//! The tensors of a model folder: `model.safetensors`, or the shards that
//! `model.safetensors.index.json` lists.

mod header;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::error::{QuantError, Result};
use crate::fs::write_atomic_with;
use crate::mmap::Mapped;
use header::{Entry, Header};

/// Name of the file of an unsharded model.
pub const MODEL_FILE: &str = "model.safetensors";
/// Name of the file that lists the shards of a sharded model.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// Largest index that is read.
const MAX_INDEX_BYTES: u64 = 1 << 28;

/// One mapped safetensors file whose header has been checked against its length.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    map: Mapped,
    header: Header,
}

impl Shard {
    fn open(path: PathBuf) -> Result<Self> {
        let map = Mapped::open(&path)?;
        let header = Header::read(&map).map_err(|why| {
            QuantError::tensor(
                &path,
                format!("not a whole safetensors file: {why}; write or download it again"),
            )
        })?;
        Ok(Self { path, map, header })
    }
}

/// Tensors of one file or one folder, mapped and not yet read.
#[derive(Debug)]
pub struct TensorFile {
    shards: Vec<Shard>,
    by_name: HashMap<String, usize>,
    /// What lists the shards, where there are several.
    index: Option<PathBuf>,
}

/// What is wrong with a folder that has a tensor [`TensorFile::left_over`], and what to do.
pub const LEFT_OVER: &str = "config.json describes a model without this tensor; check `model_type` and \
                             `tritburn.sub_norm` there";

impl TensorFile {
    /// Opens the weights of a model folder, sharded or not.
    ///
    /// # Errors
    /// [`QuantError::Io`] where a file cannot be read; [`QuantError::Tensor`] where one is
    /// malformed, two shards hold the same tensor, or a shard lacks what the index promises.
    pub fn open_folder(folder: &Path) -> Result<Self> {
        let index = folder.join(INDEX_FILE);
        if !index.exists() {
            return Self::open(&folder.join(MODEL_FILE));
        }
        let map = read_index(&index)?;
        let mut files: Vec<&String> = map.values().collect();
        files.sort_unstable();
        files.dedup();
        let shards = files
            .into_iter()
            .map(|file| Shard::open(folder.join(file)))
            .collect::<Result<Vec<_>>>()?;
        let mut found = Self::from_shards(shards)?;
        for (name, file) in &map {
            let holds = |&i: &usize| found.shards[i].path == folder.join(file);
            if !found.by_name.get(name).is_some_and(holds) {
                return Err(QuantError::tensor(
                    &index,
                    format!("`{name}` should be in {file}, but is not; download the model again"),
                ));
            }
        }
        found.index = Some(index);
        Ok(found)
    }

    /// Opens one safetensors file.
    ///
    /// # Errors
    /// [`QuantError::Io`] where it cannot be read, [`QuantError::Tensor`] where it is malformed.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_shards(vec![Shard::open(path.to_path_buf())?])
    }

    fn from_shards(shards: Vec<Shard>) -> Result<Self> {
        let mut by_name = HashMap::new();
        for (i, shard) in shards.iter().enumerate() {
            for name in shard.header.tensors.keys() {
                if let Some(other) = by_name.insert(name.clone(), i) {
                    return Err(QuantError::tensor(
                        &shard.path,
                        format!("`{name}` is also in {}", shards[other].path.display()),
                    ));
                }
            }
        }
        Ok(Self {
            shards,
            by_name,
            index: None,
        })
    }

    /// Whether the files are what they were when they were opened: to be asked after the last read of
    /// [`Self::bytes`] or [`Self::floats`].
    ///
    /// # Errors
    /// [`QuantError::Tensor`] where one was shortened or written to.
    pub fn check_unchanged(&self) -> Result<()> {
        self.shards.iter().try_for_each(|shard| shard.map.check())
    }

    /// Names of all tensors, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// A tensor that a model which took `used` has no place for, if there is one: without it the model
    /// would run and answer nonsense. The head of a model with `tied` embeddings and stored rotary
    /// frequencies may be left out.
    #[must_use]
    pub fn left_over(&self, used: &HashSet<String>, tied: bool) -> Option<&str> {
        let ignorable = |name: &str| {
            name.ends_with(".rotary_emb.inv_freq") || (tied && name == "lm_head.weight")
        };
        let mut names = self.names().into_iter();
        names.find(|&name| !used.contains(name) && !ignorable(name))
    }

    /// Whether there is a tensor of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Type and shape of a tensor.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<(Dtype, &[usize])> {
        let (_, entry) = self.find(name)?;
        Some((entry.dtype, &entry.shape))
    }

    /// The `__metadata__` of the first file.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let first = self.shards.first();
        first.map_or_else(BTreeMap::new, |s| s.header.metadata.clone())
    }

    /// The file that holds `name`, or the one that should say which does: for messages.
    #[must_use]
    pub fn path_of(&self, name: &str) -> &Path {
        match (self.by_name.get(name), &self.index) {
            (Some(&i), _) => &self.shards[i].path,
            (None, Some(index)) => index,
            (None, None) => self.shards.first().map_or(Path::new(""), |s| &s.path),
        }
    }

    /// The raw little-endian bytes of a tensor of exactly this type and shape.
    ///
    /// # Errors
    /// [`QuantError::Tensor`] where it is missing or is of another type or shape.
    pub fn bytes(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&[u8]> {
        let (found, bytes) = self.data(name, shape)?;
        if found == dtype {
            Ok(bytes)
        } else {
            Err(self.wrong_dtype(name, found, &format!("{dtype:?}")))
        }
    }

    /// Says that a part of a tensor's bytes is not needed any more (see [`Mapped::release`]).
    pub fn release(&self, name: &str, part: Range<usize>) {
        if let Some((shard, entry)) = self.find(name) {
            let end = entry.end.min(entry.start.saturating_add(part.end));
            shard
                .map
                .release(entry.start.saturating_add(part.start)..end);
        }
    }

    /// A tensor of F32, F16 or BF16 values of exactly this shape, as f32.
    ///
    /// # Errors
    /// [`QuantError::Tensor`] where it is missing or is of another type or shape, or the file was
    /// changed meanwhile.
    pub fn tensor_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (dtype, bytes) = self.floats(name, shape)?;
        let values = match dtype {
            Dtype::F16 => words(bytes)
                .map(|b| half::f16::from_le_bytes(b).to_f32())
                .collect(),
            Dtype::BF16 => words(bytes)
                .map(|b| half::bf16::from_le_bytes(b).to_f32())
                .collect(),
            _ => words(bytes).map(f32::from_le_bytes).collect(),
        };
        if let Some((shard, _)) = self.find(name) {
            shard.map.check()?;
        }
        Ok(values)
    }

    /// Type, which is F32, F16 or BF16, and little-endian bytes of a tensor of exactly this shape.
    ///
    /// # Errors
    /// [`QuantError::Tensor`] where it is missing or is of another type or shape.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<(Dtype, &[u8])> {
        let (dtype, bytes) = self.data(name, shape)?;
        if matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            Ok((dtype, bytes))
        } else {
            Err(self.wrong_dtype(name, dtype, "F32, F16 or BF16"))
        }
    }

    fn find(&self, name: &str) -> Option<(&Shard, &Entry)> {
        let shard = &self.shards[*self.by_name.get(name)?];
        Some((shard, shard.header.tensors.get(name)?))
    }

    fn data(&self, name: &str, shape: &[usize]) -> Result<(Dtype, &[u8])> {
        let (shard, entry) = self.find(name).ok_or_else(|| {
            QuantError::tensor(
                self.path_of(name),
                format!("`{name}` {shape:?} is missing; does config.json belong to these weights?"),
            )
        })?;
        if entry.shape != shape {
            return Err(QuantError::tensor(
                &shard.path,
                format!(
                    "`{name}` has shape {:?}, but config.json asks for {shape:?}; the two files \
                     are not of the same model",
                    entry.shape
                ),
            ));
        }
        // The places lie within the file and fit type and shape: `Header::read` checked both.
        Ok((entry.dtype, &shard.map[entry.start..entry.end]))
    }

    fn wrong_dtype(&self, name: &str, found: Dtype, wanted: &str) -> QuantError {
        QuantError::tensor(
            self.path_of(name),
            format!(
                "`{name}` is of type {found:?}, but {wanted} is needed; check \
                 `quantization_config` in config.json"
            ),
        )
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

/// The `weight_map` of an index: tensor name to file name.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let io = |source| QuantError::Io {
        path: path.to_path_buf(),
        source,
    };
    if std::fs::metadata(path).map_err(io)?.len() > MAX_INDEX_BYTES {
        return Err(QuantError::tensor(path, "larger than any index of shards"));
    }
    let text = std::fs::read_to_string(path).map_err(io)?;
    let bad = |why: String| QuantError::tensor(path, why);
    let index: Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| bad("`weight_map` is missing or no object".into()))?;
    if map.is_empty() {
        return Err(bad("`weight_map` is empty".into()));
    }
    let entry = |(name, file): (&String, &Value)| match file.as_str() {
        // A name with folders in it could reach any file of the machine.
        Some(file) if Path::new(file).file_name() == Some(file.as_ref()) => {
            Ok((name.clone(), file.to_owned()))
        }
        _ => Err(bad(format!(
            "`weight_map.{name}` is {file}, it must be a file name"
        ))),
    };
    map.iter().map(entry).collect()
}

/// A tensor to be written: name, type, shape, little-endian bytes.
pub type NamedTensor<'a> = (&'a str, Dtype, &'a [usize], &'a [u8]);

/// Writes a safetensors file aside and renames it into place ([`write_atomic_with`]).
///
/// The same input gives the same bytes: tensors are sorted by name within the order of alignment
/// that the format asks for.
///
/// # Errors
/// [`QuantError::Tensor`] where a tensor's bytes do not fit its type and shape or a name occurs
/// twice; [`QuantError::Io`] where the system refuses.
pub fn write_safetensors(
    path: &Path,
    tensors: &[NamedTensor<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let mut sorted: Vec<&NamedTensor<'_>> = tensors.iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut start = 0;
    for &&(name, dtype, shape, bytes) in &sorted {
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let bits = count.and_then(|n| n.checked_mul(dtype.bitsize()));
        if bits != Some(bytes.len() * 8) {
            return Err(QuantError::tensor(
                path,
                format!("`{name}`: {} bytes for {dtype:?} {shape:?}", bytes.len()),
            ));
        }
        let end = start + bytes.len();
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        if header.insert(name.into(), entry).is_some() {
            return Err(QuantError::tensor(path, format!("`{name}` occurs twice")));
        }
        start = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // Tensors start at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    write_atomic_with(path, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (.., bytes) in &sorted {
            out.write_all(bytes)?;
        }
        out.flush()
    })
}

#[cfg(test)]
mod tests;
