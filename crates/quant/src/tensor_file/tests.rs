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
    for bad in [
        r#"{"a":"two","b":"one"}"#,
        r#"{"a":"one","b":"three"}"#,
        r#"{"a":"../one"}"#,
        r#"{"a":3}"#,
        "{}",
        "[]",
        "",
    ] {
        assert!(open(bad).is_err(), "{bad}");
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
