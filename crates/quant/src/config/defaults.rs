//! What a field is where the file does not have it, and how it is written.

use serde::Serializer;

pub(super) fn rope_theta() -> f64 {
    10_000.0
}

pub(super) fn rms_norm_eps() -> f64 {
    1e-6
}

/// Whole numbers as such: transformers refuses `256.0` where it wants an integer.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
pub(super) fn whole<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(v) if *v == (*v as i64) as f64 => to.serialize_some(&(*v as i64)),
        _ => to.serialize_some(value),
    }
}
