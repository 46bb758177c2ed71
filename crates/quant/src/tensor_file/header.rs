//! The header of a safetensors file, with what is wrong with it told by the name of the tensor.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use safetensors::Dtype;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

/// Bytes that tell how long the header is.
const PREFIX: usize = 8;
/// Longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;
/// Key of what is said of the whole file.
const METADATA: &str = "__metadata__";

/// What a file says of itself, checked against its length.
#[derive(Debug, PartialEq)]
pub(super) struct Header {
    /// By name.
    pub(super) tensors: HashMap<String, Entry>,
    /// What is said of the whole file.
    pub(super) metadata: BTreeMap<String, String>,
}

/// A tensor as its entry describes it.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// First byte in the file.
    pub(super) start: usize,
    /// One past the last byte.
    pub(super) end: usize,
}

/// The JSON as it stands there, with names that occur twice.
#[derive(Default)]
struct Entries {
    tensors: Vec<(String, Entry)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with an entry for each tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut all = Entries::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA {
                        all.metadata = map.next_value()?;
                        continue;
                    }
                    let entry = Entry::read(&name, &map.next_value()?).map_err(A::Error::custom)?;
                    all.tensors.push((name, entry));
                }
                Ok(all)
            }
        }
        deserializer.deserialize_map(All)
    }
}

impl Entry {
    /// With places that count from the start of the data.
    fn read(name: &str, value: &Value) -> Result<Self, String> {
        let odd = |key: &str, wanted: &str| {
            let found = &value[key];
            format!("`{name}`: `{key}` is {found}, it must be {wanted}")
        };
        let numbers = |key: &str, wanted: &str| -> Result<Vec<usize>, String> {
            let number = |v: &Value| v.as_u64().and_then(|v| usize::try_from(v).ok());
            let list = value[key].as_array();
            let found = list.and_then(|list| list.iter().map(number).collect());
            found.ok_or_else(|| odd(key, wanted))
        };
        let dtype = Dtype::deserialize(&value["dtype"])
            .map_err(|_| odd("dtype", "a type of safetensors"))?;
        let shape = numbers("shape", "a list of sizes")?;
        let places = "two places in the data";
        let &[start, end] = numbers("data_offsets", places)?.as_slice() else {
            return Err(odd("data_offsets", places));
        };
        let this = Self {
            dtype,
            shape,
            start,
            end,
        };
        let values = this.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let Some(bits) = values.and_then(|n| n.checked_mul(dtype.bitsize())) else {
            return Err(format!(
                "{} has more values than a file can hold",
                this.called(name)
            ));
        };
        let found = end.checked_sub(start);
        if found.and_then(|n| n.checked_mul(8)) == Some(bits) {
            return Ok(this);
        }
        Err(format!(
            "{} takes {} bytes, but `data_offsets` [{start}, {end}] are another number",
            this.called(name),
            bits.div_ceil(8),
        ))
    }

    /// For messages.
    fn called(&self, name: &str) -> String {
        format!("`{name}` {:?} {:?}", self.dtype, self.shape)
    }
}

impl Header {
    /// Reads the header of `file`, whose tensors must fill the rest of it without gaps.
    ///
    /// # Errors
    /// What is wrong, with the name, type and shape of the tensor.
    pub(super) fn read(file: &[u8]) -> Result<Self, String> {
        let Some((len, rest)) = file.split_first_chunk::<PREFIX>() else {
            return Err(format!(
                "it ends after {} bytes, before its header",
                file.len()
            ));
        };
        let len = u64::from_le_bytes(*len);
        let header = usize::try_from(len).ok().filter(|_| len <= MAX_HEADER);
        let Some((header, data)) = header.and_then(|len| rest.split_at_checked(len)) else {
            return Err(format!(
                "it should have a header of {len} bytes, but {} bytes are left of the file",
                rest.len()
            ));
        };
        // A copy, as names are checked to be UTF-8 and then taken over, and the file may change.
        let copy = header.to_vec();
        let entries: Entries =
            serde_json::from_slice(&copy).map_err(|e| format!("its header: {e}"))?;
        let mut all = entries.tensors;
        check_places(&mut all, data.len())?;
        let first = PREFIX + header.len();
        let mut tensors = HashMap::with_capacity(all.len());
        for (name, entry) in all {
            let (start, end) = (first + entry.start, first + entry.end);
            let about = entry.called(&name);
            if tensors
                .insert(
                    name,
                    Entry {
                        start,
                        end,
                        ..entry
                    },
                )
                .is_some()
            {
                return Err(format!("{about} is there a second time"));
            }
        }
        Ok(Self {
            tensors,
            metadata: entries.metadata,
        })
    }
}

/// That tensors lie one after another and fill the data; sorts them by place.
fn check_places(all: &mut [(String, Entry)], len: usize) -> Result<(), String> {
    all.sort_by_key(|(_, e)| (e.start, e.end));
    let (mut end, mut before) = (0, None);
    for (name, entry) in all.iter() {
        let about = || entry.called(name);
        if entry.start < end {
            let other = before.map(|(name, e): (&String, &Entry)| e.called(name));
            let other = other.unwrap_or_default();
            return Err(format!("{other} and {} share bytes", about()));
        }
        if entry.start > end {
            return Err(format!(
                "bytes {end} to {} of the data, before {}, are of no tensor",
                entry.start,
                about()
            ));
        }
        if entry.end > len {
            return Err(format!(
                "{} ends at byte {} of the data, but the file has {len}",
                about(),
                entry.end
            ));
        }
        end = entry.end;
        before = Some((name, entry));
    }
    if end == len {
        return Ok(());
    }
    Err(format!(
        "the tensors end at byte {end} of the data, but the file has {len}"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.resize(file.len() + data, 0);
        file
    }

    fn entry(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
        format!(r#""{name}": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}"#)
    }

    #[test]
    fn every_lie_is_told_with_name_and_shape() {
        let a = entry("a", "F32", "[2, 1]", "[0, 8]");
        let two = |b: &str| format!("{{{a}, {b}}}");
        let one = |dtype: &str, shape: &str, offsets: &str| {
            format!("{{{}}}", entry("w", dtype, shape, offsets))
        };
        let good = file(&two(&entry("b", "U8", "[3]", "[8, 11]")), 11);
        let b = &Header::read(&good).unwrap().tensors["b"];
        assert_eq!((b.dtype, &good[b.start..b.end]), (Dtype::U8, &[0; 3][..]));
        let empty = file("{\"__metadata__\": {\"format\": \"pt\"}}", 0);
        assert_eq!(Header::read(&empty).unwrap().metadata["format"], "pt");
        let cases: [(String, usize, &[&str]); 19] = [
            (
                two(&entry("b", "U8", "[3]", "[7, 10]")),
                10,
                &["`a` F32 [2, 1]", "`b` U8 [3]", "share"],
            ),
            (
                two(&entry("b", "U8", "[3]", "[9, 12]")),
                12,
                &["8 to 9", "`b` U8 [3]"],
            ),
            (
                two(&entry("a", "U8", "[3]", "[8, 11]")),
                11,
                &["`a` U8 [3]", "second time"],
            ),
            (
                two(&entry("b", "U8", "[3]", "[8, 11]")),
                10,
                &["`b` U8 [3]", "11", "10"],
            ),
            (two(&entry("b", "U8", "[3]", "[8, 11]")), 12, &["11", "12"]),
            (
                one("F32", "[3]", "[0, 8]"),
                8,
                &["`w` F32 [3]", "12 bytes", "[0, 8]"],
            ),
            (one("F32", "[2]", "[8, 0]"), 8, &["`w` F32 [2]", "[8, 0]"]),
            (
                one("F32", "[4294967296, 4294967296]", "[0, 8]"),
                8,
                &["`w`", "more values"],
            ),
            (
                one("F32", "[18446744073709551615]", "[0, 8]"),
                8,
                &["`w`", "more values"],
            ),
            (
                one("F32", "[18446744073709551616]", "[0, 8]"),
                8,
                &["`w`", "shape"],
            ),
            (one("F32", "[-1]", "[0, 8]"), 8, &["`w`", "shape", "[-1]"]),
            (one("F99", "[2]", "[0, 8]"), 8, &["`w`", "dtype", "F99"]),
            (one("F32", "[2]", "[0]"), 8, &["`w`", "data_offsets", "[0]"]),
            (one("F32", "2", "[0, 8]"), 8, &["`w`", "shape", "2"]),
            ("[]".into(), 0, &["header", "object"]),
            ("{".into(), 0, &["header", "EOF"]),
            (two(&a), 8, &["`a` F32 [2, 1]", "share"]),
            (
                r#"{"__metadata__": {"a": 1}}"#.into(),
                0,
                &["header", "string"],
            ),
            (r#"{"w": 3}"#.into(), 0, &["`w`", "dtype"]),
        ];
        for (header, data, words) in cases {
            let error = Header::read(&file(&header, data)).expect_err(&header);
            assert!(words.iter().all(|w| error.contains(w)), "{header}: {error}");
        }
        assert!(Header::read(&[1, 2, 3]).is_err_and(|e| e.contains("3 bytes")));
        for len in [9, u64::MAX, MAX_HEADER + 1] {
            let mut file = len.to_le_bytes().to_vec();
            file.extend([0; 8]);
            assert!(Header::read(&file).is_err_and(|e| e.contains(&len.to_string())));
        }
    }
}
