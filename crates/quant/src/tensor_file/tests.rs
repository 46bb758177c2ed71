#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use safetensors::SafeTensors;

use super::*;

fn write(path: &Path, tensors: &[NamedTensor<'_>]) {
    write_safetensors(path, tensors, &BTreeMap::new()).unwrap();
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn every_float_type_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(MODEL_FILE);
    let f16: Vec<u8> = half::f16::from_f32(1.5).to_le_bytes().to_vec();
    let bf16: Vec<u8> = half::bf16::from_f32(-2.0).to_le_bytes().to_vec();
    let meta = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let tensors: [NamedTensor<'_>; 4] = [
        ("z", Dtype::U8, &[3], &[1, 2, 3]),
        ("h", Dtype::F16, &[1], &f16),
        ("a", Dtype::F32, &[1, 2], &f32s(&[0.25, 3.0])),
        ("b", Dtype::BF16, &[1, 1], &bf16),
    ];
    write_safetensors(&path, &tensors, &meta).unwrap();
    let file = TensorFile::open_folder(dir.path()).unwrap();
    assert_eq!(file.names(), ["a", "b", "h", "z"]);
    assert_eq!(file.metadata(), meta);
    assert_eq!(file.tensor_f32("a", &[1, 2]).unwrap(), [0.25, 3.0]);
    assert_eq!(file.tensor_f32("b", &[1, 1]).unwrap(), [-2.0]);
    assert_eq!(file.tensor_f32("h", &[1]).unwrap(), [1.5]);
    assert_eq!(file.bytes("z", Dtype::U8, &[3]).unwrap(), [1, 2, 3]);
    // The library that everyone else reads with accepts it, and the bytes are reproducible.
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(SafeTensors::deserialize(&bytes).unwrap().len(), 4);
    write_safetensors(&path, &tensors, &meta).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn lies_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(MODEL_FILE);
    write(&path, &[("w", Dtype::F32, &[2, 1], &f32s(&[1.0, 2.0]))]);
    let file = TensorFile::open(&path).unwrap();
    for (error, words) in [
        (file.tensor_f32("w", &[1, 2]), ["[2, 1]", "[1, 2]"]),
        (file.tensor_f32("v", &[1]), ["`v`", "missing"]),
        (
            file.bytes("w", Dtype::U8, &[2, 1]).map(|_| Vec::new()),
            ["F32", "U8"],
        ),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(MODEL_FILE), "{error}");
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    }
    let dup: NamedTensor<'_> = ("w", Dtype::U8, &[1], &[0]);
    assert!(write_safetensors(&path, &[dup, dup], &BTreeMap::new()).is_err());
    let short: NamedTensor<'_> = ("w", Dtype::F32, &[1], &[0]);
    assert!(write_safetensors(&path, &[short], &BTreeMap::new()).is_err());
}

#[test]
fn every_truncation_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(MODEL_FILE);
    write(&path, &[("w", Dtype::F32, &[2], &f32s(&[1.0, 2.0]))]);
    let whole = std::fs::read(&path).unwrap();
    for len in 0..whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        let error = TensorFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("safetensors file"), "{error}");
    }
    std::fs::write(&path, (u64::MAX).to_le_bytes()).unwrap();
    assert!(TensorFile::open(&path).is_err());
}

#[test]
fn shards_are_found_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("one"), &[("a", Dtype::U8, &[1], &[7])]);
    write(&dir.path().join("two"), &[("b", Dtype::U8, &[1], &[8])]);
    let index = dir.path().join(INDEX_FILE);
    let open = |map: &str| {
        std::fs::write(&index, format!("{{\"weight_map\":{map}}}")).unwrap();
        TensorFile::open_folder(dir.path())
    };
    let file = open(r#"{"a":"one","b":"two"}"#).unwrap();
    assert_eq!(file.bytes("b", Dtype::U8, &[1]).unwrap(), [8]);
    for (name, shape, words) in [
        ("b", &[2][..], ["two", "`b`", "[1]", "[2]"]),
        ("c", &[2], [INDEX_FILE, "`c`", "[2]", "missing"]),
    ] {
        let error = file.bytes(name, Dtype::U8, shape).unwrap_err().to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    }
    for (bad, words) in [
        (
            r#"{"a":"two","b":"one"}"#,
            ["`a` should be in two", "download"],
        ),
        (
            r#"{"a":"one","b":"one"}"#,
            ["`b` should be in one", "download"],
        ),
        (r#"{"a":"../one"}"#, ["weight_map.a", "file name"]),
        (r#"{"a":"/one"}"#, ["weight_map.a", "file name"]),
        (r#"{"a":""}"#, ["weight_map.a", "file name"]),
        (r#"{"a":3}"#, ["weight_map.a", "is 3"]),
        ("{}", ["`weight_map` is empty", INDEX_FILE]),
        ("[]", ["`weight_map` is missing", "no object"]),
        ("", ["expected value", INDEX_FILE]),
    ] {
        let error = open(bad).unwrap_err().to_string();
        assert!(error.contains(INDEX_FILE), "{bad}: {error}");
        assert!(words.iter().all(|w| error.contains(w)), "{bad}: {error}");
    }
    // A shard that is not there, and one that is damaged, are named themselves.
    for (file, word) in [("three", "No such file"), ("short", "safetensors file")] {
        std::fs::write(dir.path().join("short"), [9, 0]).unwrap();
        let error = open(&format!(r#"{{"a":"one","b":"{file}"}}"#)).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(file) && error.contains(word), "{error}");
    }
    // One tensor in two shards.
    let both: [NamedTensor<'_>; 2] = [("a", Dtype::U8, &[1], &[7]), ("b", Dtype::U8, &[1], &[8])];
    write(&dir.path().join("two"), &both);
    let error = open(r#"{"a":"one","b":"two"}"#).unwrap_err().to_string();
    assert!(
        ["`a`", "one", "two", "also"]
            .iter()
            .all(|w| error.contains(w)),
        "{error}"
    );
}

/// The format does not ask for tensors to begin where their values are aligned.
#[test]
fn values_at_odd_places_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(MODEL_FILE);
    let values = [1.5f32, -2.0, 3.25];
    for (dtype, bytes) in [
        ("F32", f32s(&values)),
        (
            "F16",
            values
                .map(|v| half::f16::from_f32(v).to_le_bytes())
                .concat(),
        ),
        (
            "BF16",
            values
                .map(|v| half::bf16::from_f32(v).to_le_bytes())
                .concat(),
        ),
    ] {
        let end = 1 + bytes.len();
        let header = format!(
            r#"{{"o": {{"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}},
                "w": {{"dtype": "{dtype}", "shape": [3], "data_offsets": [1, {end}]}}}}"#
        );
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.push(9);
        file.extend(&bytes);
        std::fs::write(&path, file).unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.tensor_f32("w", &[3]).unwrap(), values, "{dtype}");
    }
}

proptest! {
    /// Damaged indices and shards are errors or give what they say; a name never leads out of the
    /// folder.
    #[test]
    fn damaged_shards_and_indices(
        target in prop::sample::select(vec!["one", "two", INDEX_FILE]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("one"), &[("a", Dtype::F32, &[2], &f32s(&[1.0, 2.0]))]);
        write(&dir.path().join("two"), &[("b", Dtype::U8, &[3], &[1, 2, 3])]);
        let index = r#"{"metadata": {}, "weight_map": {"a": "one", "b": "two"}}"#;
        std::fs::write(dir.path().join(INDEX_FILE), index).unwrap();
        let path = dir.path().join(target);
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(file) = TensorFile::open_folder(dir.path()) {
            for name in file.names() {
                let (dtype, shape) = file.info(name).unwrap();
                prop_assert!(file.path_of(name).starts_with(dir.path()));
                drop(file.tensor_f32(name, shape));
                prop_assert!(file.bytes(name, dtype, shape).is_ok());
            }
        }
    }
}
