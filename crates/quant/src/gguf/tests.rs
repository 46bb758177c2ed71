#![allow(clippy::unwrap_used)]
use std::path::PathBuf;

use proptest::prelude::*;

use super::dequant::dequantize;
use super::*;

/// Writes a GGUF file the way llama.cpp's converter does.
#[derive(Default)]
pub(super) struct Writer {
    pairs: Vec<u8>,
    n_pairs: u64,
    infos: Vec<u8>,
    n_infos: u64,
    data: Vec<u8>,
}

impl Writer {
    pub(super) fn text(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    }

    pub(super) fn pair(&mut self, key: &str, kind: u32, value: &[u8]) {
        Self::text(&mut self.pairs, key);
        self.pairs.extend(kind.to_le_bytes());
        self.pairs.extend(value);
        self.n_pairs += 1;
    }

    pub(super) fn int(&mut self, key: &str, value: u32) {
        self.pair(key, 4, &value.to_le_bytes());
    }

    pub(super) fn string(&mut self, key: &str, value: &str) {
        let mut bytes = Vec::new();
        Self::text(&mut bytes, value);
        self.pair(key, 8, &bytes);
    }

    pub(super) fn tensor(&mut self, name: &str, shape: &[usize], kind: u32, data: &[u8]) {
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        Self::text(&mut self.infos, name);
        self.infos.extend((shape.len() as u32).to_le_bytes());
        for d in shape.iter().rev() {
            self.infos.extend((*d as u64).to_le_bytes());
        }
        self.infos.extend(kind.to_le_bytes());
        self.infos.extend((self.data.len() as u64).to_le_bytes());
        self.n_infos += 1;
        self.data.extend(data);
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend(self.n_infos.to_le_bytes());
        out.extend(self.n_pairs.to_le_bytes());
        out.extend(&self.pairs);
        out.extend(&self.infos);
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }
}

pub(super) fn open(bytes: &[u8]) -> Result<GgufFile, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    GgufFile::open(&path).map_err(|e| e.to_string())
}

fn small() -> Writer {
    let mut w = Writer::default();
    let mut texts = 8u32.to_le_bytes().to_vec();
    texts.extend(2u64.to_le_bytes());
    Writer::text(&mut texts, "a");
    Writer::text(&mut texts, "bé");
    let mut ints = 5u32.to_le_bytes().to_vec();
    ints.extend(3u64.to_le_bytes());
    (0..3i32).for_each(|i| ints.extend((-i).to_le_bytes()));
    w.string("general.architecture", "llama");
    w.int("n", 7);
    w.pair("eps", 6, &1e-5f32.to_le_bytes());
    w.pair("yes", 7, &[1]);
    w.pair("texts", 9, &texts);
    w.pair("ints", 9, &ints);
    w.tensor(
        "v",
        &[3],
        0,
        &[1.0f32, 2.0, -3.0].map(f32::to_le_bytes).concat(),
    );
    w.tensor("m", &[2, 32], 8, &[1; 68]);
    w
}

#[test]
fn metadata_and_tensors_read_back() {
    let file = open(&small().bytes()).unwrap();
    assert_eq!(file.text("general.architecture").unwrap(), Some("llama"));
    assert_eq!(file.int("n").unwrap(), Some(7));
    assert_eq!(file.float("eps").unwrap(), Some(1e-5));
    assert_eq!(file.flag("yes").unwrap(), Some(true));
    assert_eq!(file.texts("texts").unwrap().unwrap(), ["a", "bé"]);
    assert_eq!(file.ints("ints").unwrap().unwrap(), [0, -1, -2]);
    assert_eq!(file.int("absent").unwrap(), None);
    assert_eq!(file.names(), ["m", "v"]);
    let info = file.tensor("m").unwrap();
    assert_eq!(
        (info.kind, info.shape.as_slice()),
        (TensorKind::Q8_0, &[2, 32][..])
    );
    let error = file.int("eps").unwrap_err().to_string();
    assert!(
        error.contains("model.gguf") && error.contains("`eps`"),
        "{error}"
    );
    assert!(file.texts("ints").is_err() && file.flag("n").is_err() && file.text("n").is_err());
}

#[test]
fn lies_are_named() {
    let change = |change: &dyn Fn(&mut Writer)| {
        let mut writer = small();
        change(&mut writer);
        open(&writer.bytes()).unwrap_err()
    };
    let f32s = [0u8; 12];
    for (error, words) in [
        (change(&|w| w.n_infos = u64::MAX), ["tensors", "cannot fit"]),
        (change(&|w| w.n_pairs = 1 << 40), ["metadata", "cannot fit"]),
        (change(&|w| w.int("n", 1)), ["`n`", "twice"]),
        (change(&|w| w.tensor("v", &[3], 0, &f32s)), ["`v`", "twice"]),
        (
            change(&|w| w.tensor("x", &[4], 0, &f32s)),
            ["`x`", "past the end"],
        ),
        (
            change(&|w| w.tensor("x", &[3], 10, &f32s)),
            ["`x`", "number 10"],
        ),
        (
            change(&|w| w.tensor("x", &[3], 8, &f32s)),
            ["`x`", "blocks of 32"],
        ),
        (
            change(&|w| w.tensor("x", &[0], 0, &f32s)),
            ["`x`", "dimension of 0"],
        ),
        (
            change(&|w| w.tensor("x", &[1; 5], 0, &f32s)),
            ["`x`", "5 dimensions"],
        ),
        (
            change(&|w| w.tensor("x", &[1 << 40, 1 << 40], 0, &f32s)),
            ["`x`", "more values"],
        ),
        (
            change(&|w| w.int("general.alignment", 3)),
            ["general.alignment", "power"],
        ),
        (change(&|w| w.pair("q", 77, &[])), ["`q`", "type 77"]),
        (
            change(&|w| w.pair("q", 9, &[9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])),
            ["`q`", "array of arrays"],
        ),
        (
            change(&|w| w.pair("q", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xFF])),
            ["`q`", "UTF-8"],
        ),
    ] {
        assert!(
            words.iter().all(|w| error.contains(w)),
            "{words:?}: {error}"
        );
    }
    let mut overlap = small();
    let at = overlap.infos.len() - 8;
    overlap.infos[at..].fill(0);
    assert!(open(&overlap.bytes()).unwrap_err().contains("share bytes"));
    overlap.infos[at] = 1;
    assert!(
        open(&overlap.bytes())
            .unwrap_err()
            .contains("multiple of 32")
    );
    let mut bytes = small().bytes();
    bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert!(open(&bytes).unwrap_err().contains("big-endian"));
    bytes[4] = 1;
    assert!(open(b"GGML").unwrap_err().contains("no GGUF file"));
}

#[test]
fn every_truncation_is_an_error() {
    let whole = small().bytes();
    for len in 0..whole.len() {
        assert!(open(&whole[..len]).is_err(), "{len}");
    }
}

/// Blocks of random bits and what gguf 0.19's Python code reads from them.
#[test]
fn blocks_are_those_of_the_reference() {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/gguf_blocks.json"
    ));
    let cases: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (_, kind, name) in TensorKind::ALL {
        if kind == TensorKind::I2S || kind.has_two() {
            continue;
        }
        let case = &cases[name];
        let hex = case["bytes"].as_str().unwrap();
        let byte = |i: usize| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len() / 2).map(byte).collect();
        let mut out = vec![0f32; case["len"].as_u64().unwrap() as usize];
        dequantize(kind, &bytes, &mut out);
        let (mut sum, mut weighted) = (0.0, 0.0);
        for (i, &v) in out.iter().enumerate() {
            sum += f64::from(v);
            weighted += (i + 1) as f64 * f64::from(v);
        }
        for (key, got) in [
            ("first", f64::from(out[0])),
            ("sum", sum),
            ("weighted", weighted),
        ] {
            let want = case[key].as_f64().unwrap();
            // As exact as decimal text is read.
            assert!(
                (got - want).abs() <= 1e-14 * want.abs(),
                "{name} {key}: {got} {want}"
            );
        }
    }
}

#[test]
fn i2s_takes_quarters_of_128_values_and_a_scale_at_the_end() {
    let mut bytes = vec![0b01_01_01_01u8; 64];
    bytes[0] = 0b00_01_10_01;
    bytes[33] = 0b10_10_00_01;
    bytes.extend(0.5f32.to_le_bytes());
    bytes.extend([7; 28]);
    let tensor = ternary::decode(TensorKind::I2S, &bytes, 128);
    let tensor = tensor.unwrap().unwrap();
    assert_eq!(tensor.scales, TernaryScales::Tensor(0.5));
    let mut want = vec![0i8; 256];
    (want[0], want[64]) = (-1, 1);
    (want[129], want[161], want[193]) = (1, 1, -1);
    assert_eq!(tensor.codes, want);
    bytes[1] |= 3;
    let error = ternary::decode(TensorKind::I2S, &bytes, 128).unwrap_err();
    assert!(error.contains("row 0, column 97"), "{error}");
}

#[test]
fn scales_of_blocks_are_made_as_coarse_as_they_are() {
    let block = |scale: f32, code: u8| {
        let mut block = vec![code * 0b01_01_01_01; 64];
        block.extend(half::f16::from_f32(scale).to_le_bytes());
        block
    };
    let decode = |blocks: [Vec<u8>; 4]| {
        let tensor = ternary::decode(TensorKind::Tq2_0, &blocks.concat(), 512);
        tensor.unwrap().unwrap().scales
    };
    let zero = || block(0.0, 1);
    let scales = decode([block(2.0, 2), zero(), zero(), block(2.0, 0)]);
    assert_eq!(scales, TernaryScales::Tensor(2.0));
    let scales = decode([block(2.0, 2), block(2.0, 0), zero(), block(3.0, 0)]);
    assert_eq!(scales, TernaryScales::Row(vec![2.0, 3.0]));
    let scales = decode([block(2.0, 2), block(1.0, 0), zero(), block(3.0, 0)]);
    let want = [2.0, 2.0, 1.0, 1.0, 0.0, 0.0, 3.0, 3.0];
    assert_eq!(scales, TernaryScales::Group(want.to_vec()));
    assert!(ternary::decode(TensorKind::Tq2_0, &block(1.0, 3), 256).is_err());
}

/// Whatever is in the file, reading it and asking for everything in it ends in time and memory that
/// its size bounds.
fn ask_for_everything(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    drop(GgufModel::open(&path));
    let Ok(file) = GgufFile::open(&path) else {
        return;
    };
    for key in file.metadata().keys() {
        drop((
            file.int(key),
            file.float(key),
            file.flag(key),
            file.text(key),
        ));
        drop((file.texts(key), file.ints(key), file.floats(key)));
    }
    for name in file.names() {
        let info = file.tensor(name).unwrap();
        assert!(file.bytes(info).len() <= bytes.len());
    }
}

fn model() -> Vec<u8> {
    let mut w = small();
    for (key, value) in [
        ("block_count", 1),
        ("context_length", 16),
        ("embedding_length", 32),
        ("feed_forward_length", 32),
        ("attention.head_count", 2),
    ] {
        w.int(&format!("llama.{key}"), value);
    }
    w.tensor("token_embd.weight", &[4, 32], 8, &[3; 4 * 34]);
    w.tensor("rope_freqs.weight", &[8], 0, &1f32.to_le_bytes().repeat(8));
    w.tensor("blk.0.attn_q.weight", &[2, 64], 42, &[0x15; 2 * 18]);
    w.tensor("blk.0.attn_k.weight", &[1, 128], 142, &[0x2A; 34]);
    w.bytes()
}

proptest! {
    #[test]
    fn damaged_files_are_errors_or_harmless(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut bytes = model();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        ask_for_everything(&bytes);
    }

    #[test]
    fn any_bytes_behind_the_magic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tail);
        ask_for_everything(&bytes);
    }
}
