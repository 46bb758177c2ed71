//! RMSNorm.

use tritburn_kernels::{Exec, ops};

/// `y = x · w / √(mean(x²) + ε)`, in f32.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Vec<f32>,
    pub(crate) eps: f32,
}

impl RmsNorm {
    /// Normalises each row of `x`, `[tokens, width]`, into `out` of the same shape.
    pub(crate) fn forward(&self, exec: &Exec, x: &[f32], out: &mut [f32]) {
        let width = self.weight.len();
        exec.rows(out, width, |t, out| {
            ops::rms_norm(&x[t * width..][..width], &self.weight, self.eps, out);
        });
    }

    /// Normalises one row and quantises the result; returns the step.
    pub(crate) fn quantize(&self, x: &[f32], codes: &mut [i8]) -> f32 {
        ops::rms_norm_int8(x, &self.weight, self.eps, codes)
    }
}
