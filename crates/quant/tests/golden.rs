//! Quantisers against values that PyTorch computed.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use tritburn_quant::act::absmax_int8;
use tritburn_quant::tensor_file::TensorFile;
use tritburn_quant::ternary::{absmean, ternary_codes};

fn golden() -> Option<TensorFile> {
    let dir = std::env::var_os("TRITBURN_GOLDEN_DIR").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../../shared/golden"
            ))
        },
        PathBuf::from,
    );
    let path = dir.join("quant_and_losses.safetensors");
    if !path.exists() {
        eprintln!("skipped: no golden vectors at {}", path.display());
        return None;
    }
    Some(TensorFile::open(&path).unwrap())
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
