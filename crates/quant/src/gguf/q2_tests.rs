//! Q2_0 and PQ2_0 as files have them.
#![allow(clippy::unwrap_used)]
use half::f16;

use super::dequant::dequantize;
use super::tests::{Writer, open};
use super::*;

const Q2_0: u32 = 42;
const PQ2_0: u32 = 142;

/// A block of `len` weights: a scale, then the same code everywhere.
fn block(scale: f32, code: u8, len: usize) -> Vec<u8> {
    let mut block = f16::from_f32(scale).to_le_bytes().to_vec();
    block.resize(2 + len / 4, code * 0b01_01_01_01);
    block
}

fn decode(kind: TensorKind, blocks: &[Vec<u8>], cols: usize) -> Option<TernaryTensor> {
    ternary::decode(kind, &blocks.concat(), cols).unwrap()
}

/// Bytes written by hand after the two definitions.
#[test]
fn the_scale_stands_first_and_the_first_code_in_the_low_bits() {
    for (kind, len) in [(TensorKind::Q2_0, 64), (TensorKind::Pq2_0, 128)] {
        // 0.5, and codes 0, 1, 2, 3 and 2, 2, 1, 0 in front of zeros.
        let mut bytes = vec![0x00, 0x38, 0b11_10_01_00, 0b00_01_10_10];
        bytes.resize(kind.block_bytes(), 0b01_01_01_01);
        let mut values = vec![0f32; len];
        dequantize(kind, &bytes, &mut values);
        assert_eq!(values[..8], [-0.5, 0.0, 0.5, 1.0, 0.5, 0.5, 0.0, -0.5]);
        assert!(values[8..].iter().all(|v| *v == 0.0));
        bytes[2] = 0b10_10_01_00;
        *bytes.last_mut().unwrap() = 0b10_01_01_01;
        let tensor = decode(kind, &[bytes], len).unwrap();
        assert_eq!(tensor.scales, TernaryScales::Tensor(0.5));
        assert_eq!(tensor.codes[..8], [-1, 0, 1, 1, 1, 1, 0, -1]);
        assert_eq!((tensor.codes.len(), tensor.codes[len - 1]), (len, 1));
    }
}

#[test]
fn a_code_of_3_makes_a_tensor_one_of_other_values() {
    for (kind, len) in [(TensorKind::Q2_0, 64), (TensorKind::Pq2_0, 128)] {
        let mut blocks = [block(1.0, 2, len), block(1.0, 0, len)];
        assert!(decode(kind, &blocks, len).is_some());
        blocks[1][7] |= 0b11_00_00;
        assert_eq!(decode(kind, &blocks, len), None);
    }
}

#[test]
fn scales_of_64_make_those_of_128_or_none() {
    let scales = |blocks: &[Vec<u8>], cols| {
        let tensor = decode(TensorKind::Q2_0, blocks, cols);
        tensor.map(|tensor| tensor.scales)
    };
    let b = |scale, code| block(scale, code, 64);
    let two_rows = |first: [Vec<u8>; 4], second: [Vec<u8>; 4]| [first, second].concat();
    let same = || [b(2.0, 2), b(2.0, 0), b(2.0, 2), b(2.0, 0)];
    let zero = || b(9.0, 1);
    let found = scales(&two_rows(same(), same()), 256);
    assert_eq!(found, Some(TernaryScales::Tensor(2.0)));
    let other = [b(3.0, 2), zero(), zero(), b(3.0, 0)];
    let found = scales(&two_rows(same(), other), 256);
    assert_eq!(found, Some(TernaryScales::Row(vec![2.0, 3.0])));
    let groups = [zero(), b(5.0, 0), b(3.0, 2), zero()];
    let found = scales(&two_rows(same(), groups), 256);
    let want = TernaryScales::Group(vec![2.0, 2.0, 5.0, 3.0]);
    assert_eq!(found, Some(want));
    let halves = [b(2.0, 2), b(3.0, 0), b(3.0, 2), b(3.0, 0)];
    assert_eq!(scales(&two_rows(same(), halves), 256), None);
    // Three blocks a row are no groups of two.
    let found = scales(
        &[b(2.0, 2), b(2.0, 2), zero(), b(3.0, 0), zero(), zero()],
        192,
    );
    assert_eq!(found, Some(TernaryScales::Row(vec![2.0, 3.0])));
    assert_eq!(scales(&[b(2.0, 2), b(2.0, 2), b(3.0, 2)], 192), None);
    // Blocks of 128 are groups.
    let blocks = [block(2.0, 2, 128), block(0.5, 0, 128), block(0.5, 2, 128)];
    let found = decode(TensorKind::Pq2_0, &blocks, 384).unwrap().scales;
    assert_eq!(found, TernaryScales::Group(vec![2.0, 0.5, 0.5]));
    let bad = ternary::decode(TensorKind::Pq2_0, &block(f32::NAN, 2, 128), 128);
    assert!(bad.unwrap_err().contains("NaN"));
    let one = [block(f32::NAN, 2, 64), block(2.0, 2, 64)].concat();
    let bad = ternary::decode(TensorKind::Q2_0, &one, 128);
    assert!(bad.unwrap_err().contains("NaN"));
}

/// A model with an embedding and `q` of these blocks, both of this type.
fn model(id: u32, blocks: &[Vec<u8>], change: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::default();
    w.string("general.architecture", "qwen3");
    for (key, value) in [
        ("block_count", 1),
        ("context_length", 16),
        ("embedding_length", 256),
        ("feed_forward_length", 256),
        ("attention.head_count", 2),
    ] {
        w.int(&format!("qwen3.{key}"), value);
    }
    change(&mut w);
    let rows = blocks.len() * (blocks[0].len() - 2) * 4 / 256;
    w.tensor("token_embd.weight", &[rows, 256], id, &blocks.concat());
    w.tensor("blk.0.attn_q.weight", &[rows, 256], id, &blocks.concat());
    w.bytes()
}

fn open_model(bytes: &[u8]) -> Result<GgufModel, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    GgufModel::open(&path).map_err(|e| e.to_string())
}

/// 256 rows of 256 weights with scales for 128 of them.
fn rows(len: usize) -> Vec<Vec<u8>> {
    let block = |i: usize| block((i / (128 / len) + 1) as f32, (i % 2 * 2) as u8, len);
    (0..256 * 256 / len).map(block).collect()
}

#[test]
fn both_forms_of_number_42_and_that_of_142_are_read() {
    for (id, len) in [(Q2_0, 64), (Q2_0, 128), (PQ2_0, 128)] {
        let blocks = rows(len);
        let model = open_model(&model(id, &blocks, |_| {})).unwrap();
        assert!(model.config().is_ternary());
        let kind = model.file().tensor("blk.0.attn_q.weight").unwrap().kind;
        let want = [TensorKind::Q2_0, TensorKind::Pq2_0][usize::from(len == 128)];
        assert_eq!(kind, want, "{id} {len}");
        let name = "model.layers.0.self_attn.q_proj.weight";
        let tensor = model.ternary(name, 256, 256).unwrap().unwrap();
        let scales = (1..=512u16).map(f32::from).collect();
        assert_eq!(tensor.scales, TernaryScales::Group(scales));
        let code = |i: usize| (i / len % 2 * 2) as i8 - 1;
        assert!((0..256 * 256).all(|i| tensor.codes[i] == code(i)));
        let name = "model.embed_tokens.weight";
        let values = model.tensor_f32(name, &[256, 256]).unwrap();
        let value = |i: usize| f32::from(code(i)) * (i / 128 + 1) as f32;
        assert!((0..256 * 256).all(|i| values[i] == value(i)));
        let mut row = [0f32; 256];
        let matrix = model.matrix(name, 256, 256).unwrap();
        matrix.read(7, &mut row);
        assert_eq!(row, values[7 * 256..][..256]);
    }
}

#[test]
fn other_values_are_dequantised() {
    let mut blocks = rows(64);
    blocks[0][2] = 0b11_10_01_00;
    let model = open_model(&model(Q2_0, &blocks, |_| {})).unwrap();
    assert!(!model.config().is_ternary(), "an embedding does not count");
    let name = "model.layers.0.self_attn.q_proj.weight";
    assert_eq!(model.ternary(name, 256, 256).unwrap(), None);
    let values = model.tensor_f32(name, &[256, 256]).unwrap();
    assert_eq!(values[..5], [-1.0, 0.0, 1.0, 2.0, -1.0]);
}

#[test]
fn every_truncation_of_either_form_is_an_error() {
    for (id, len) in [(Q2_0, 64), (Q2_0, 128), (PQ2_0, 128)] {
        let whole = model(id, &rows(len)[..8 * 256 / len], |_| {});
        assert!(open(&whole).is_ok());
        let last = whole.len() - 64;
        for cut in (0..last).step_by(7).chain(last..whole.len()) {
            assert!(open(&whole[..cut]).is_err(), "{id} {len} {cut}");
        }
    }
    // Neither form: places for blocks of another size.
    let mut bytes = rows(64);
    bytes.extend(rows(64));
    let mut w = Writer::default();
    w.tensor("a", &[256, 256], Q2_0, &bytes.concat());
    w.tensor("b", &[256, 256], Q2_0, &bytes.concat());
    let error = open(&w.bytes()).unwrap_err();
    for word in [
        "model.gguf",
        "`a` takes 18432 bytes and has 36864",
        "17408",
        "neither",
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
    let mut w = Writer::default();
    w.tensor("a", &[2, 32], Q2_0, &[0; 64]);
    assert!(open(&w.bytes()).unwrap_err().contains("blocks of 64"));
}

#[test]
fn turned_models_are_refused_with_what_to_take_instead() {
    let mut w = Writer::default();
    w.tensor("blk.0.attn_q.weight", &[1, 128], 143, &[0; 28]);
    let error = open(&w.bytes()).unwrap_err();
    for word in [
        "model.gguf",
        "`blk.0.attn_q.weight`",
        "PTQ1_0",
        "Hadamard",
        "Q2_g64.gguf",
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
    let name = "blk.0.ffn_up.weight";
    let mut names = [8u32.to_le_bytes().as_slice(), &1u64.to_le_bytes()].concat();
    Writer::text(&mut names, name);
    for (listed, word) in [(false, "the weights"), (true, "`blk.0.ffn_up.weight`")] {
        let bytes = model(PQ2_0, &rows(128), |w| {
            w.int("prism.hadamard.block_size", 1024);
            if listed {
                w.pair("prism.hadamard.weight_names", 9, &names);
            }
        });
        let error = open_model(&bytes).unwrap_err();
        for word in [
            word,
            "model.gguf",
            "`prism.hadamard.block_size`",
            "Q2_g64.gguf",
        ] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
