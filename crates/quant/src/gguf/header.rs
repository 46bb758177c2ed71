//! What stands before the tensors' data.

use std::collections::{BTreeMap, HashMap};

use super::cursor::{Cursor, Parsed};
use super::file::TensorInfo;
use super::groups;
use super::kind::TensorKind;
use super::value::Value;

const MAGIC: [u8; 4] = *b"GGUF";
/// Tensors are aligned to this where the file does not say.
const DEFAULT_ALIGNMENT: usize = 32;
const MAX_ALIGNMENT: usize = 1 << 20;
/// Most dimensions that a tensor has.
const MAX_DIMS: u32 = 4;
/// Bytes that an entry takes at the least: name, type, value.
const MIN_PAIR: usize = 8 + 4 + 1;
/// Name, dimensions, type, offset.
const MIN_TENSOR: usize = 8 + 4 + 8 + 4 + 8;

/// Metadata and tensors by name, with places that were found to lie within the file.
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: HashMap<String, TensorInfo>,
}

pub(super) fn read(bytes: &[u8]) -> Parsed<Header> {
    let mut cursor = Cursor::new(bytes, 0);
    if cursor.array::<4>().ok() != Some(MAGIC) {
        return Err("does not begin with GGUF: it is no GGUF file, or damaged".into());
    }
    match cursor.u32()? {
        2 | 3 => {}
        v if matches!(v.swap_bytes(), 2 | 3) => {
            return Err("big-endian; convert the model for little-endian machines".into());
        }
        v => return Err(format!("GGUF version {v}; supported are 2 and 3")),
    }
    let tensors = cursor.count("tensors", MIN_TENSOR)?;
    let pairs = cursor.count("metadata entries", MIN_PAIR)?;
    let mut metadata = BTreeMap::new();
    for _ in 0..pairs {
        let key = cursor.text()?;
        let value = Value::read(&mut cursor).map_err(|e| format!("`{key}`: {e}"))?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(format!("`{key}` occurs twice in the metadata"));
        }
    }
    let alignment = alignment(&metadata)?;
    let mut infos = HashMap::with_capacity(tensors);
    for _ in 0..tensors {
        let name = cursor.text()?;
        let info = tensor(&mut cursor).map_err(|e| format!("`{name}` {e}"))?;
        if infos.insert(name.clone(), info).is_some() {
            return Err(format!("tensor `{name}` occurs twice"));
        }
    }
    let start = cursor.position().next_multiple_of(alignment);
    groups::resolve(&mut infos, bytes.len().saturating_sub(start), alignment)?;
    place(&mut infos, start, alignment, bytes.len())?;
    Ok(Header {
        metadata,
        tensors: infos,
    })
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Parsed<usize> {
    let key = "general.alignment";
    let value = match metadata.get(key) {
        None => return Ok(DEFAULT_ALIGNMENT),
        Some(Value::Int(v)) => usize::try_from(*v).unwrap_or(0),
        Some(_) => 0,
    };
    if value.is_power_of_two() && value <= MAX_ALIGNMENT {
        Ok(value)
    } else {
        Err(format!(
            "`{key}` must be a power of two up to {MAX_ALIGNMENT}"
        ))
    }
}

/// One entry; `start` is still the offset from where the data begins.
fn tensor(cursor: &mut Cursor<'_>) -> Parsed<TensorInfo> {
    let dims = cursor.u32()?;
    if dims == 0 || dims > MAX_DIMS {
        return Err(format!(
            "has {dims} dimensions, it must have 1 to {MAX_DIMS}"
        ));
    }
    let mut shape = Vec::with_capacity(dims as usize);
    for _ in 0..dims {
        let size = usize::try_from(cursor.u64()?).map_err(|e| e.to_string())?;
        if size == 0 {
            return Err("has a dimension of 0".into());
        }
        shape.push(size);
    }
    // The file has the fastest dimension first.
    shape.reverse();
    let kind = TensorKind::of(cursor.u32()?)?;
    let start = usize::try_from(cursor.u64()?).map_err(|e| e.to_string())?;
    let (cols, outer) = shape.split_last().unwrap_or((&1, &[]));
    let rows = outer.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let rows = rows.ok_or("has more values than a file can hold")?;
    let bytes = kind.tensor_bytes(rows, *cols)?;
    Ok(TensorInfo {
        kind,
        shape,
        start,
        bytes,
    })
}

/// Checks that all tensors are aligned, lie within the file and do not overlap, and turns offsets
/// into places in the file.
fn place(
    infos: &mut HashMap<String, TensorInfo>,
    data: usize,
    alignment: usize,
    file: usize,
) -> Parsed<()> {
    let mut order: Vec<(&String, &mut TensorInfo)> = infos.iter_mut().collect();
    order.sort_by_key(|(_, info)| info.start);
    let mut before: Option<(&String, usize)> = None;
    for (name, info) in order {
        if !info.start.is_multiple_of(alignment) {
            return Err(format!(
                "`{name}` begins at byte {} of the data, no multiple of {alignment}",
                info.start
            ));
        }
        let start = data.checked_add(info.start);
        let end = start.and_then(|s| s.checked_add(info.bytes));
        let (Some(start), Some(end)) = (start, end.filter(|&e| e <= file)) else {
            return Err(format!(
                "`{name}` {:?} of {} bytes at byte {} of the data reaches past the end of the file; \
                 download it again",
                info.shape, info.bytes, info.start
            ));
        };
        if let Some((other, _)) = before.filter(|&(_, other_end)| other_end > start) {
            return Err(format!("`{name}` and `{other}` share bytes of the file"));
        }
        info.start = start;
        before = Some((name, end));
    }
    Ok(())
}
