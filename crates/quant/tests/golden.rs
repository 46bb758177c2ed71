//! Quantisers against values that PyTorch computed.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use tritburn_quant::act::{TokenQuantiser, absmax_int8};
use tritburn_quant::hadamard::Factors;
use tritburn_quant::scheme::WeightQuant;
use tritburn_quant::tensor_file::TensorFile;
use tritburn_quant::ternary::{absmean, ternary_codes};

fn golden_file(name: &str) -> Option<TensorFile> {
    let dir = std::env::var_os("TRITBURN_GOLDEN_DIR").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../../shared/golden"
            ))
        },
        PathBuf::from,
    );
    let path = dir.join(name);
    if !path.exists() {
        eprintln!("skipped: no golden vectors at {}", path.display());
        return None;
    }
    Some(TensorFile::open(&path).unwrap())
}

fn golden() -> Option<TensorFile> {
    golden_file("quant_and_losses.safetensors")
}

fn assert_close(got: f32, want: f32) {
    assert!((got - want).abs() <= 2e-6 * want.abs(), "{got} {want}");
}

#[test]
fn golden_ternary_weights() {
    let Some(file) = golden() else { return };
    let w = file.tensor_f32("w", &[48, 64]).unwrap();
    let want = file.tensor_f32("w_b158", &[48, 64]).unwrap();
    let scale = absmean(&w);
    for (code, want) in ternary_codes(&w, scale).into_iter().zip(want) {
        assert_close(f32::from(code) * scale, want);
    }
}

#[test]
fn golden_int8_activations() {
    let Some(file) = golden() else { return };
    let x = file.tensor_f32("x", &[2, 5, 64]).unwrap();
    let want = file.tensor_f32("a_int8", &[2, 5, 64]).unwrap();
    for (x, want) in x.chunks(64).zip(want.chunks(64)) {
        let mut codes = [0; 64];
        let step = absmax_int8(x, &mut codes);
        for (code, want) in codes.iter().zip(want) {
            assert_close(f32::from(*code) * step, *want);
        }
    }
}

#[test]
fn golden_binary_weights() {
    let Some(file) = golden() else { return };
    let w = file.tensor_f32("w", &[48, 64]).unwrap();
    let want = file.tensor_f32("w_b1", &[48, 64]).unwrap();
    let b1 = tritburn_quant::weight::quantise(&w, 64, WeightQuant::B1).unwrap();
    for (code, want) in b1.codes.into_iter().zip(want) {
        assert_close(f32::from(code) * b1.scales[0], want);
    }
}

/// Every token of `x` through `quant`, against `want`.
fn tokens(file: &TensorFile, quant: &str, x: &str, want: &str) {
    let shape = file.info(x).unwrap().1.to_vec();
    let (x, want) = (
        file.tensor_f32(x, &shape).unwrap(),
        file.tensor_f32(want, &shape).unwrap(),
    );
    let mut quantiser = TokenQuantiser::new(quant.parse().unwrap()).unwrap();
    let width = shape[shape.len() - 1];
    for (x, want) in x.chunks(width).zip(want.chunks(width)) {
        let mut codes = vec![0; width];
        let step = quantiser.quantise(x, &mut codes);
        for (code, want) in codes.iter().zip(want) {
            assert_close(f32::from(*code) * step, *want);
        }
    }
}

#[test]
fn golden_activation_quantisers() {
    let Some(file) = golden() else { return };
    tokens(&file, "int8", "x", "a_int8");
    tokens(&file, "int4", "x", "a_int4");
    tokens(&file, "top50%+int8", "x", "a_topk50_int8");
    let Some(file) = golden_file("losses_and_more.safetensors") else {
        return;
    };
    tokens(&file, "fp4-e2m1", "fp4.x", "fp4.e2m1");
    tokens(&file, "fp4-e1m2", "fp4.x", "fp4.e1m2");
}

#[test]
fn golden_hadamard() {
    let Some(file) = golden_file("losses_and_more.safetensors") else {
        return;
    };
    let shape = file.info("fp4.x").unwrap().1.to_vec();
    let mut x = file.tensor_f32("fp4.x", &shape).unwrap();
    let want = file.tensor_f32("hadamard.y", &shape).unwrap();
    let factors = Factors::of(64).unwrap();
    x.chunks_mut(64).for_each(|x| factors.apply(x));
    let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert!(
        x.iter()
            .zip(&want)
            .all(|(a, b)| (a - b).abs() <= 2e-6 * largest)
    );
}
