//! RMSNorm, and the LayerNorm of BitNet b1.

use tritburn_kernels::{Buffer, Exec, ops};

use super::buffers::with_buffer;

/// `y = x · w / √(mean(x²) + ε)`, in f32.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Vec<f32>,
    pub(crate) eps: f32,
    /// Whether the mean is subtracted first, which makes it a LayerNorm without bias.
    pub(crate) centred: bool,
}

impl RmsNorm {
    /// Normalises each row of `x`, `[rows, width]`, into `out` of the same shape.
    pub(crate) fn forward(&self, exec: &Exec, x: &[f32], out: &mut [f32]) {
        let width = self.weight.len();
        let row = |t: usize, out: &mut [f32]| self.row(&x[t * width..][..width], out);
        exec.light_rows(out, width, row);
    }

    /// Normalises one row.
    pub(crate) fn row(&self, x: &[f32], out: &mut [f32]) {
        if self.centred {
            centred(x, |x| ops::rms_norm(x, &self.weight, self.eps, out));
        } else {
            ops::rms_norm(x, &self.weight, self.eps, out);
        }
    }

    /// Normalises each row of `x` in place; `buffer` is overwritten.
    pub(crate) fn in_place(&self, exec: &Exec, x: &mut Buffer<f32>, buffer: &mut Buffer<f32>) {
        buffer.resize(x.len());
        self.forward(exec, x, buffer);
        std::mem::swap(x, buffer);
    }

    /// Normalises one row and quantises the result; returns the step.
    pub(crate) fn quantize(&self, x: &[f32], codes: &mut [i8]) -> f32 {
        if self.centred {
            centred(x, |x| ops::rms_norm_int8(x, &self.weight, self.eps, codes))
        } else {
            ops::rms_norm_int8(x, &self.weight, self.eps, codes)
        }
    }
}

/// Calls `f` with `x` less its mean.
fn centred<R>(x: &[f32], f: impl FnOnce(&[f32]) -> R) -> R {
    let mean = x.iter().sum::<f32>() / x.len() as f32;
    with_buffer(x.len(), |buffer| {
        for (b, v) in buffer.iter_mut().zip(x) {
            *b = v - mean;
        }
        f(buffer)
    })
}
