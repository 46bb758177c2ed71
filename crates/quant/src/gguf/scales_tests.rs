//! Scales of tensors, rows and groups in files that are written.
#![allow(clippy::unwrap_used)]
use std::path::Path;

use half::f16;
use serde_json::{Value, json};

use super::write_tests::{Stored, codes, config, f32s, folder_of, packed};
use super::*;
use crate::scheme::{Granularity, WeightQuant};
use crate::weight::quantise;

const Q: &str = "model.layers.0.self_attn.q_proj.weight";
const DOWN: &str = "model.layers.0.mlp.down_proj.weight";

fn config_of(quant: WeightQuant) -> Value {
    let mut config = config();
    config["tritburn"] = json!({"quant": {"weights": quant}});
    config
}

/// Scales that differ from each other, and that f16 holds.
fn scales(quant: WeightQuant, rows: usize, cols: usize) -> (Vec<usize>, Vec<f32>) {
    let shape = match quant.granularity() {
        Granularity::Tensor => vec![1],
        Granularity::Row => vec![rows],
        Granularity::Group(size) => vec![rows, cols / size],
    };
    let n = shape.iter().product();
    let scale = |i: usize| (i + 1) as f32 / 2048.0;
    (shape, (0..n).map(scale).collect())
}

fn folder(dir: &Path, quant: WeightQuant, inverse: bool) {
    let mut config = config_of(quant);
    if inverse {
        config["quantization_config"]["linear_class"] = json!("bitlinear");
    }
    folder_of(dir, &config, |name, rows, cols| {
        let (shape, mut scales) = scales(quant, rows, cols);
        if inverse {
            scales.iter_mut().for_each(|s| *s = 1.0 / *s);
        }
        let scales = f32s(format!("{name}_scale"), &shape, scales.into_iter());
        vec![scales, packed(name, rows, cols)]
    });
}

/// What the reader makes of `values` of a matrix of `cols` columns.
fn read_as(quant: WeightQuant, values: Vec<f32>, cols: usize) -> TernaryScales {
    match quant.granularity() {
        Granularity::Tensor => TernaryScales::Tensor(values[0]),
        Granularity::Row => TernaryScales::Row(values),
        Granularity::Group(size) if size == cols => TernaryScales::Row(values),
        Granularity::Group(size) => {
            let repeat = |v| std::iter::repeat_n(v, size / 128);
            TernaryScales::Group(values.into_iter().flat_map(repeat).collect())
        }
    }
}

const PAIRS: [(GgufTernary, WeightQuant); 9] = [
    (GgufTernary::Q2_0, WeightQuant::B1),
    (GgufTernary::Q2_0, WeightQuant::Absmean),
    (GgufTernary::Q2_0, WeightQuant::AbsmeanRow),
    (GgufTernary::Q2_0, WeightQuant::AbsmeanBlock256),
    (GgufTernary::Q2_0, WeightQuant::AbsmeanGroup128),
    (GgufTernary::Tq2_0, WeightQuant::AbsmeanRow),
    (GgufTernary::Tq2_0, WeightQuant::AbsmeanBlock256),
    (GgufTernary::Tq1_0, WeightQuant::AbsmeanRow),
    (GgufTernary::I2S, WeightQuant::Absmean),
];

#[test]
fn packed_codes_and_scales_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    for (ternary, quant) in PAIRS {
        for inverse in [false, true] {
            folder(dir.path(), quant, inverse);
            write_gguf(dir.path(), &out, ternary, GgufEmbedding::F16).unwrap();
            let model = GgufModel::open(&out).unwrap();
            // The rows of q are in another order in the file.
            for (name, rows, cols) in [(Q, 256, 256), (DOWN, 256, 512)] {
                let back = model.ternary(name, rows, cols).unwrap().unwrap();
                let want = read_as(quant, scales(quant, rows, cols).1, cols);
                assert!(back.scales == want, "{name} {ternary:?} {quant:?}");
                assert!(back.codes == codes(rows, cols), "{name} {ternary:?}");
            }
            if ternary == GgufTernary::Q2_0 {
                let kind = model.file().int("general.file_type").unwrap();
                assert_eq!(kind, Some(41));
            }
        }
    }
}

fn masters(rows: usize, cols: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919 % 1013) as f32 / 506.0 - 1.0) * (1.0 + (i / 64 % 5) as f32);
    (0..rows * cols).map(value).collect()
}

#[test]
fn master_weights_are_quantised_by_their_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    for (ternary, quant) in PAIRS {
        let mut config = config_of(quant);
        config["quantization_config"]["quantization_mode"] = json!("online");
        folder_of(dir.path(), &config, |name, rows, cols| -> Vec<Stored> {
            vec![f32s(
                name.into(),
                &[rows, cols],
                masters(rows, cols).into_iter(),
            )]
        });
        write_gguf(dir.path(), &out, ternary, GgufEmbedding::F16).unwrap();
        let model = GgufModel::open(&out).unwrap();
        for (name, rows, cols) in [(Q, 256, 256), (DOWN, 256, 512)] {
            let back = model.ternary(name, rows, cols).unwrap().unwrap();
            let want = quantise(&masters(rows, cols), cols, quant).unwrap();
            assert!(back.codes == want.codes, "{name} {ternary:?} {quant:?}");
            let round = |s: f32| match ternary {
                GgufTernary::I2S => s,
                _ => f16::from_f32(s).to_f32(),
            };
            let scales = want.scales.into_iter().map(round).collect();
            let scales = read_as(quant, scales, cols);
            assert!(back.scales == scales, "{name} {ternary:?} {quant:?}");
        }
    }
}

#[test]
fn scales_that_a_type_has_no_place_for_are_refused_with_the_one_that_has() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    let error = |ternary| {
        let error = write_gguf(dir.path(), &out, ternary, GgufEmbedding::F16);
        assert!(!out.exists());
        error.unwrap_err().to_string()
    };
    for (ternary, quant, words) in [
        (
            GgufTernary::I2S,
            WeightQuant::AbsmeanRow,
            ["each row", "one for the tensor"],
        ),
        (
            GgufTernary::I2S,
            WeightQuant::AbsmeanGroup128,
            ["128 columns", "one for the tensor"],
        ),
        (
            GgufTernary::Tq2_0,
            WeightQuant::AbsmeanGroup128,
            ["128 columns", "256 columns"],
        ),
        (
            GgufTernary::Tq1_0,
            WeightQuant::AbsmeanGroup128,
            ["128 columns", "256 columns"],
        ),
    ] {
        folder(dir.path(), quant, false);
        let error = error(ternary);
        for word in words.into_iter().chain([Q, "use q2_0"]) {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
    // Other scales than config.json says.
    folder(dir.path(), WeightQuant::AbsmeanRow, false);
    for quant in [WeightQuant::Absmean, WeightQuant::AbsmeanGroup128] {
        let config = config_of(quant).to_string();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let error = error(GgufTernary::Q2_0);
        for word in ["q_proj.weight_scale", "[256]", "tritburn.quant.weights"] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
    // Scales that f16 does not hold, and such that are none.
    for (at, scale, word) in [
        (3, 1e-9, "keep the Hugging Face folder"),
        (200, 1e6, "keep the Hugging Face folder"),
        (255, 0.0, "must be positive"),
        (0, -1.0, "must be positive"),
        (1, f32::NAN, "must be positive"),
    ] {
        folder_of(
            dir.path(),
            &config_of(WeightQuant::AbsmeanRow),
            |name, rows, cols| {
                let scales = (0..rows).map(|r| if r == at % rows { scale } else { 1.0 });
                let scales = f32s(format!("{name}_scale"), &[rows], scales);
                vec![scales, packed(name, rows, cols)]
            },
        );
        let error = error(GgufTernary::Tq2_0);
        assert!(
            error.contains(word) && error.contains("q_proj"),
            "{word}: {error}"
        );
    }
    folder_of(dir.path(), &config(), |name, rows, cols| {
        let scale = f32s(format!("{name}_scale"), &[], [1e-9].into_iter());
        vec![scale, packed(name, rows, cols)]
    });
    assert!(error(GgufTernary::Q2_0).contains("use i2_s"));
}
