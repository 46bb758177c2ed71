//! What a field is where the file does not have it.

pub(super) fn rope_theta() -> f64 {
    10_000.0
}

pub(super) fn rms_norm_eps() -> f64 {
    1e-6
}
