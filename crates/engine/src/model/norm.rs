//! RMSNorm.

/// Independent sums, so that the loop becomes vector code.
const LANES: usize = 8;

/// `y = x · w / √(mean(x²) + ε)`, in f32.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Vec<f32>,
    pub(crate) eps: f32,
}

impl RmsNorm {
    /// Normalises each row of `x`, `[tokens, width]`, into `out` of the same shape.
    pub(crate) fn forward(&self, x: &[f32], out: &mut [f32]) {
        let width = self.weight.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let mean = sum_of_squares(x) / width as f32;
            let scale = 1.0 / (mean + self.eps).sqrt();
            for ((out, x), w) in out.iter_mut().zip(x).zip(&self.weight) {
                *out = x * scale * w;
            }
        }
    }
}

fn sum_of_squares(x: &[f32]) -> f32 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += v * v;
        }
    }
    lanes.iter().sum::<f32>() + tail.iter().map(|v| v * v).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_scaled_to_unit_mean_square_and_weighted() {
        let norm = RmsNorm {
            weight: vec![1.0, 2.0, 0.5],
            eps: 0.25,
        };
        let mut out = [0.0; 6];
        norm.forward(&[3.0, 0.0, -1.5, 0.0, 0.0, 0.0], &mut out);
        // mean of squares 3.75, plus 0.25 is 4.
        assert_eq!(out, [1.5, 0.0, -0.375, 0.0, 0.0, 0.0]);
    }
}
